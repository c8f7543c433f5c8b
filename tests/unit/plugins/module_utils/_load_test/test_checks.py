# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of an adapter: before anything was loaded, and of what the child that loaded it reports."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.identity import Identities
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import PERMITTED, Golden
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.case import Case
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.checks import Host, judge, not_loaded, take_report
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths

HERE = Host("digest", {"peft": "99.0", "transformers": "5.23.0", "torch": "2.13.0"})
# Two tokens, of which the adapter makes the first id likelier.
ANSWER: dict[str, t.Any] = {"on": [[[-0.2, -2.0], [-0.3, -1.5]]], "off": [[[-1.0, -0.5], [-1.2, -0.4]]]}


@pytest.fixture
def case(adapter: pathlib.Path, declare: t.Callable[..., Declaration], tiny: pathlib.Path, tmp_path: pathlib.Path) -> Case:
    """The plain adapter, which has to reach level model on a base that lies here, and has no receipt."""
    declared = declare()
    manifest = describe(str(adapter), declared, {}, str(tmp_path / "cache")).manifest
    return Case(
        declared=declared,
        base={"path": str(tiny / "base"), "config": declared.base_config},
        paths=AdapterPaths(str(tmp_path / "models"), str(tmp_path / "store"), declared.name),
        manifest=manifest,
        required="model",
        least="model",
        golden=None,
        directory=str(adapter),
        base_digest="base",
        receipt=None,
    )


def ask(case: Case, binding: str = "enforce", force: bool = False, check_mode: bool = False, host: Host = HERE) -> None:
    judge(case, host, {"force": force, "base_binding": binding}, Identities(), check_mode)


def report(**found: t.Any) -> dict[str, t.Any]:
    """What the child says of an adapter that it took to level model, but for the keywords given."""
    plain = {"level": "model", "device": "cpu", "passed": True, "problems": [], "checks": ["loaded"], "warnings": []}
    return {**plain, "answer": None, "driver": None, "limited_by": None, **found}


def golden(case: Case, answer: dict[str, t.Any]) -> Golden:
    return Golden(
        name=case.declared.name,
        digest=case.manifest.digest,
        prompts="",
        base={},
        recorded={"dtype": "bfloat16", "device_name": "a GPU"},
        questions=[{"ids": [1, 2, 3], "start": 1, "tokens": [[2], [3]]}],
        answer=answer,
        noise={},
        permitted=PERMITTED,
    )


# Before anything is loaded


def test_files_that_are_as_declared_reach_structure(case: Case) -> None:
    ask(case)
    assert (case.passed, case.facts["level"], case.facts["limited_by"]) == (False, "structure", "Not loaded in check mode.")
    assert case.facts["checks"][-1] == "adapter_config.json, adapter_model.safetensors have the sha256 of the manifest."
    case.required = case.least = "structure"
    ask(case)
    assert (case.passed, case.facts["limited_by"]) == (True, "Level structure was asked for.")


def test_what_is_not_here_fails_but_in_check_mode(case: Case) -> None:
    case.directory = None
    with pytest.raises(DeliveryError, match=r"is not on this host, neither staged nor in the store\. Bring it with"):
        ask(case)
    ask(case, check_mode=True)
    assert (case.passed, case.facts.get("level")) == (False, None)


def test_a_receipt_spares_the_loading_and_not_the_comparison_with_the_inventory(case: Case) -> None:
    case.receipt = {"level": "model", "base": "base", "environment": "digest", "notes": ["kept"]}
    ask(case)
    assert (case.passed, case.from_receipt, case.facts["notes"]) == (True, True, ["kept"])
    case.from_receipt = False
    ask(case, force=True)
    assert not case.from_receipt
    case.declared = dataclasses.replace(case.declared, rank=8)
    with pytest.raises(DeliveryError, match=r"r in adapter_config\.json"):
        ask(case)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_other_bytes_than_the_manifest_says_are_refused(case: Case, name: str) -> None:
    path = pathlib.Path(str(case.directory), name)
    if name.endswith(".json"):
        path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(DeliveryError, match=rf"{name} is not what the manifest of release {case.manifest.release} says"):
        ask(case)


def test_of_a_pickle_structure_says_nothing(case: Case) -> None:
    weights = pathlib.Path(str(case.directory), "adapter_model.safetensors")
    pickled = weights.with_name("adapter_model.bin")
    weights.rename(pickled)
    files = tuple(
        dataclasses.replace(entry, path=pickled.name) if entry.path == weights.name else entry for entry in case.manifest.files
    )
    case.manifest = dataclasses.replace(case.manifest, files=tuple(sorted(files, key=lambda entry: entry.path)))
    ask(case)
    assert "level" not in case.facts
    # Where memory does not suffice either, nothing is known of it, so that no least level is reached.
    case.least = "structure"
    (problem,) = take_report(case, report(level=None, passed=False, limited_by="no room."), {})
    assert problem.problem == "reached no level in the load test at level model on cpu: no room."
    assert problem.remedy == "Make room on cpu, name another device."
    case.required = "structure"
    with pytest.raises(DeliveryError, match=r"has a pickle \(adapter_model.bin\), which level structure cannot judge"):
        ask(case)


def test_another_base_is_refused_or_reported(case: Case, tmp_path: pathlib.Path) -> None:
    base = str(case.base["path"])
    case.manifest = dataclasses.replace(case.manifest, base=t.cast("dict[str, t.Any]", Identities().at(base)))
    ask(case)
    assert case.facts["checks"][-1].startswith("The base is the one that it was trained on, by its config and a sample of ")
    assert not [note for note in case.notes if "base" in note]

    other = tmp_path / "other"
    shutil.copytree(base, other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}), encoding="utf-8")
    case.base["path"] = str(other)
    with pytest.raises(DeliveryError, match=r"was trained on another base than .*: rms_norm_eps in its config\.json is 0\.5"):
        ask(case)
    ask(case, binding="report")
    assert any(note.startswith(f"It was trained on another base than the one at {other}") for note in case.notes)
    assert not any(check.startswith("The base is the one") for check in case.facts["checks"])


def test_what_is_not_known_of_the_training_is_said(case: Case) -> None:
    case.manifest = dataclasses.replace(case.manifest, versions={}, base=None)
    ask(case)
    assert "The library versions of the training are not known beyond what the adapter itself tells." in case.notes
    assert "The training server does not tell its base, so nothing says that the base here is the same." in case.notes


# What was loaded


def test_a_level_that_was_reached(case: Case) -> None:
    ask(case)
    before = list(case.facts["checks"])
    assert take_report(case, report(device_name="a CPU", driver="580.1"), {"torch": "2.13.0"}) == []
    assert (case.passed, case.refuted) == (True, False)
    assert (case.facts["level"], case.facts["device_name"]) == ("model", "a CPU")
    assert case.facts["versions"] == {"torch": "2.13.0", "driver": "580.1"}
    assert case.facts["checks"] == [*before, "loaded"]
    assert case.facts["limited_by"] == "No golden was recorded of this release."


def test_a_lower_level_passes_where_it_is_permitted(case: Case) -> None:
    short = report(level="adapter", passed=False, limited_by="the base does not fit.")
    ask(case)
    (problem,) = take_report(case, short, {})
    assert problem.problem == "reached level adapter in the load test at level model on cpu: the base does not fit."
    assert problem.remedy == "Make room on cpu, name another device, or permit level adapter as the least level."
    assert (case.passed, case.refuted) == (False, False)
    case.least = "adapter"
    assert take_report(case, short, {}) == []
    assert (case.passed, case.facts["limited_by"]) == (True, "the base does not fit.")


def test_what_spoke_against_it_refutes_it(case: Case) -> None:
    ask(case)
    case.least = "structure"
    found = [{"problem": "tensor x differs.", "remedy": "Try again."}]
    (problem,) = take_report(case, report(level="adapter", passed=False, problems=found), {})
    assert str(problem) == "adapter adapter: failed the load test at level model on cpu: tensor x differs. Try again."
    assert (case.passed, case.refuted) == (False, True)


def test_an_answer_is_compared_with_the_golden(case: Case) -> None:
    case.required = case.least = "golden"
    ask(case)
    case.golden = golden(case, ANSWER)
    assert take_report(case, report(level="golden", answer=ANSWER), {}) == []
    assert (case.passed, case.refuted, case.facts["level"]) == (True, False, "golden")
    assert case.facts["distances"] == {"on": 0, "off": 0, "direction": 1, "strength": 1, "top1": 1}
    assert case.facts["permitted"] == PERMITTED
    assert case.facts["checks"][-1].startswith("Along 2 recorded tokens it answers as where it was trained, by 0.000 with")
    assert case.facts["checks"][-1].endswith("recorded in bfloat16 on a GPU.")
    assert case.facts["limited_by"] is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"on": ANSWER["off"], "off": ANSWER["off"]}, "answers as if the adapter were not there"),
        ({"on": [], "off": []}, "failed level golden: the golden was answered in another form than it was asked"),
    ],
)
def test_another_answer_is_no_more_than_level_model_and_refutes_it(case: Case, answer: dict[str, t.Any], words: str) -> None:
    case.required = case.least = "golden"
    ask(case)
    case.golden = golden(case, ANSWER)
    (problem,) = take_report(case, report(level="golden", answer=answer), {})
    assert words in problem.problem
    assert (case.passed, case.refuted, case.facts["level"]) == (False, True, "model")


def test_a_case_to_which_the_test_did_not_come(case: Case) -> None:
    problem = not_loaded(case, "cuda").problem
    assert problem == "was not tested at level model on cuda, because the load test broke off."
    assert case.facts["limited_by"] == "It was not loaded: the load test on cuda broke off."
    assert not case.passed
    assert not os.path.exists(case.paths.root)
