# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checks of an adapter before it is loaded."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.identity import Identities
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.attempt import Attempt, Verdict
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.case import Case
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.checks import check_before_loading
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.interpreter import Environment
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.options import LoadTestOptions

HERE = Environment("digest", {"peft": "99.0", "transformers": "5.23.0", "torch": "2.13.0"})


def check(case: Case, binding: str = "enforce", force: bool = False, check_mode: bool = False) -> Attempt:
    """Check a case; returns the attempt."""
    options = LoadTestOptions(
        adapters=[],
        bases={},
        manifests=None,
        models_dir="",
        store="",
        python="",
        device="cpu",
        level="model",
        minimum_level=None,
        base_binding=binding,
        force=force,
    )
    attempt = Attempt(case)
    check_before_loading(attempt, HERE, options, Identities(), check_mode)
    return attempt


def test_check_intact_files_reaches_structure(case: Case) -> None:
    attempt = check(case)
    assert (attempt.verdict, attempt.result.level) == (Verdict.OPEN, "structure")
    assert attempt.result.limited_by == "Not loaded in check mode."
    assert attempt.result.checks[-1] == "adapter_config.json, adapter_model.safetensors have the sha256 of the manifest."
    attempt = check(dataclasses.replace(case, required="structure", minimum="structure"))
    assert (attempt.verdict, attempt.result.limited_by) == (Verdict.PASSED, "Level structure was requested.")


def test_check_missing_release_fails_except_in_check_mode(case: Case) -> None:
    case = dataclasses.replace(case, directory=None)
    with pytest.raises(DeliveryError, match=r"is not on this host, neither staged nor in the store\. Transfer it with"):
        check(case)
    attempt = check(case, check_mode=True)
    assert (attempt.verdict, attempt.result.level) == (Verdict.OPEN, None)


def test_check_valid_receipt_skips_loading_but_not_the_declaration(case: Case) -> None:
    receipt = {"level": "model", "base": "base", "environment": "digest", "notes": ["kept"]}
    case = dataclasses.replace(case, receipt=receipt)
    attempt = check(case)
    assert (attempt.verdict, attempt.result.notes) == (Verdict.FROM_RECEIPT, ["kept"])
    assert check(case, force=True).verdict is Verdict.OPEN
    with pytest.raises(DeliveryError, match=r"r in adapter_config\.json"):
        check(dataclasses.replace(case, declared=dataclasses.replace(case.declared, rank=8)))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_check_changed_file_is_an_error(case: Case, name: str) -> None:
    path = pathlib.Path(str(case.directory), name)
    if name.endswith(".json"):
        path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(DeliveryError, match=rf"{name} differs from the manifest of release {case.manifest.release}"):
        check(case)


def test_check_pickle_does_not_reach_structure(pickle_case: Case) -> None:
    assert check(pickle_case).result.level is None
    with pytest.raises(DeliveryError, match=r"has a pickle \(adapter_model.bin\), which level structure cannot check"):
        check(dataclasses.replace(pickle_case, required="structure"))


def test_check_other_base_is_an_error_or_a_note(case: Case, tmp_path: pathlib.Path) -> None:
    base = str(case.base["path"])
    trained = t.cast("dict[str, t.Any]", Identities().at(base))
    case = dataclasses.replace(case, manifest=dataclasses.replace(case.manifest, base=trained))
    result = check(case).result
    assert result.checks[-1].startswith("The base matches that of the training, by its config and a sample of ")
    assert not [note for note in result.notes if "base" in note]

    other = tmp_path / "other"
    shutil.copytree(base, other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}), encoding="utf-8")
    case = dataclasses.replace(case, base={**case.base, "path": str(other)})
    with pytest.raises(DeliveryError, match=r"was trained on another base than .*: rms_norm_eps in its config\.json is 0\.5"):
        check(case)
    result = check(case, binding="report").result
    assert any(note.startswith(f"It was trained on another base than the one at {other}") for note in result.notes)
    assert not any(text.startswith("The base matches that") for text in result.checks)


@pytest.mark.parametrize(
    "changed", [{"config": 5}, {"weights": 5}, {"config": {"rope_scaling": "x"}}, {"config": {"rope_parameters": [1]}}]
)
def test_check_base_identified_in_another_form_is_rejected(case: Case, tiny: pathlib.Path, changed: dict[str, t.Any]) -> None:
    trained = {**t.cast("dict[str, t.Any]", Identities().at(str(tiny / "base"))), **changed}
    case = dataclasses.replace(case, manifest=dataclasses.replace(case.manifest, base=trained))
    with pytest.raises(DeliveryError, match="has a manifest that identifies its base in another form"):
        check(case)


def test_check_unknown_training_versions_and_base_are_noted(case: Case) -> None:
    case = dataclasses.replace(case, manifest=dataclasses.replace(case.manifest, versions={}, base=None))
    notes = check(case).result.notes
    assert "The library versions of the training are unknown beyond those in the adapter's files." in notes
    assert "The manifest does not identify the base of the training, so it was not compared." in notes
