# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module adapter_load_test in this process, with the real PEFT in its worker."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import PERMITTED
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.confinement import available_isolation
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.receipt import write_receipt

from tests.support import tiny_adapters
from tests.support.load_test_node import ADAPTERS, BASE, LoadTestNode, Options, of_all
from tests.support.loaded_modules import loaded_by_module

Run = t.Callable[..., Options]


@pytest.fixture
def node(tmp_path: pathlib.Path) -> LoadTestNode:
    return LoadTestNode(tmp_path, tiny_adapters.cached())


@pytest.fixture
def run(node: LoadTestNode, run_module: t.Callable[..., Options]) -> Run:
    """Return a function that runs the module on the node with changed options."""

    def run(check: bool = False, **changes: t.Any) -> Options:
        options = {key: value for key, value in node.options(**changes).items() if value is not None}
        return run_module("adapter_load_test", options, check_mode=check, diff=True)

    return run


def test_load_test_at_level_structure_returns_whole_result(node: LoadTestNode, run: Run) -> None:
    node.stage()
    result = run(level="structure", adapters=node.rows[:1])
    manifest = node.manifests[0]
    checks = result["adapters"][0]["checks"]
    assert checks[-1] == "adapter_config.json, adapter_model.safetensors have the sha256 of the manifest."
    assert result == {
        "changed": True,
        "seconds": 0.0,
        "adapters": [
            {
                "name": manifest.name,
                "release": manifest.release,
                "required_level": "structure",
                "from_receipt": False,
                "level": "structure",
                **dict.fromkeys(("device", "device_name", "capability", "dtype", "load_seconds", "peak_memory_bytes")),
                **dict.fromkeys(("effect", "distances", "permitted")),
                "versions": {},
                "notes": [],
                "limited_by": "Level structure was requested.",
                "isolation": None,
                "checks": checks,
            }
        ],
        "diff": {
            "before_header": "receipts",
            "after_header": "receipts",
            "before": f"{manifest.name} {manifest.release}: not tested\n",
            "after": f"{manifest.name} {manifest.release}: level structure\n",
        },
    }


def test_load_test_problem_names_its_adapter(node: LoadTestNode, run: Run) -> None:
    result = run(level="structure", adapters=node.rows[:1])
    manifest = node.manifests[0]
    problem = f"release {manifest.release} is not on this host, neither staged nor in the store."
    assert result["problems"] == [
        {
            "adapter": manifest.name,
            "subject": f"adapter {manifest.name}",
            "problem": problem,
            "remedy": "Transfer it with adapter_sync first.",
        }
    ]
    assert result["msg"] == f"adapter {manifest.name}: {problem} Transfer it with adapter_sync first."


@pytest.mark.slow
def test_load_test_valid_receipts_and_other_environments(node: LoadTestNode, run: Run) -> None:
    node.stage()
    done = run()
    assert of_all(done, "level") == ["model"] * 2
    receipts = node.receipts()

    # The active release is found by the state; a lower level is contained in its receipt.
    node.activate()
    active = run(manifests=None, level="adapter")
    assert not active["changed"]
    assert of_all(active, "from_receipt") == [True] * 2
    assert active["diff"]["before"] == active["diff"]["after"] == ""

    # Another device is another environment, and a missing device passes nothing.
    other = run(device="cuda:63", level="adapter")
    assert other["failed"]
    assert not other["changed"]
    for found in ADAPTERS:
        assert f"adapter {found}: was not tested at level adapter on cuda:63" in other["msg"]
    assert "device cuda:63: cannot be used by" in other["msg"]
    assert "set device to cpu" in other["msg"]
    assert node.receipts() == receipts

    # A receipt of a lower level is not valid for a higher one.
    lower = node.manifests[0]
    write_receipt(node.paths(lower.name), lower.release, {**(receipts[0] or {}), "level": "adapter"})
    assert of_all(run(check=True), "from_receipt") == [False, True]


@pytest.mark.slow
def test_load_test_without_memory_for_base_reaches_minimum_level(node: LoadTestNode, run: Run) -> None:
    node.stage()
    # Enough for level adapter; a base takes a gigabyte and more.
    little: Options = {"memory_limit": "700M"}
    strict = run(**little)
    assert strict["failed"]
    assert not strict["changed"]
    assert "reached level adapter in the load test at level model on cpu: the base " in strict["msg"]
    assert "GiB of memory on cpu, 0.7 GiB are permitted." in strict["msg"]
    assert "or set minimum_level to adapter." in strict["msg"]
    assert of_all(strict, "level") == ["adapter"] * 2

    done = run(**little, minimum_level="adapter")
    assert not done.get("failed")
    assert done["changed"]
    assert of_all(done, "required_level") == ["model"] * 2
    assert of_all(done, "level") == ["adapter"] * 2
    assert all("0.7 GiB are permitted" in reason for reason in of_all(done, "limited_by"))
    receipts = node.receipts()
    assert [receipt and receipt["level"] for receipt in receipts] == ["adapter"] * 2

    # Every run tries for more, but only a higher level changes the receipt.
    again = run(**little, minimum_level="adapter")
    assert (again["changed"], again["seconds"] > 0) == (False, True)
    assert not run(check=True, **little, minimum_level="adapter")["changed"]
    assert node.receipts() == receipts
    more = run(minimum_level="adapter")
    assert (more["changed"], of_all(more, "level")) == (True, ["model"] * 2)

    # A minimum level above the level raises it.
    above = run(check=True, level="available", minimum_level="golden")
    assert "cannot reach level golden: the manifest of release" in above["msg"]


@pytest.mark.slow
def test_load_test_without_any_memory_reaches_minimum_level_structure(node: LoadTestNode, run: Run) -> None:
    node.stage()
    little: Options = {"adapters": node.rows[:1], "level": "adapter", "memory_limit": "1M"}
    strict = run(**little)
    assert (strict["failed"], strict["changed"]) == (True, False)
    (problem,) = strict["problems"]
    assert problem["problem"].startswith("reached level structure in the load test at level adapter on cpu: the adapter alone ")
    assert problem["remedy"] == "Free memory on cpu, set another device, or set minimum_level to structure."

    done = run(**little, minimum_level="structure")
    assert not done.get("failed"), done["msg"]
    assert done["changed"]
    (found,) = done["adapters"]
    assert (found["required_level"], found["level"], found["device"], found["versions"]) == ("adapter", "structure", None, {})
    assert found["limited_by"].startswith("the adapter alone does not fit")
    receipt = node.receipts()[0]
    assert (receipt and receipt["level"]) == "structure"
    assert not run(**little, minimum_level="structure")["changed"]

    # A later shortage does not withdraw a receipt.
    assert run(adapters=node.rows[:1], level="adapter")["changed"]
    assert run(**little, force=True)["failed"]
    receipt = node.receipts()[0]
    assert (receipt and receipt["level"]) == "adapter"


@pytest.mark.slow
def test_load_test_receipt_of_another_golden_is_replaced(node: LoadTestNode, run: Run) -> None:
    node.stage()
    little: Options = {"adapters": node.rows[:1], "memory_limit": "1M", "minimum_level": "structure"}
    run(**little)
    manifest = node.manifests[0]
    other = {**(node.receipts()[0] or {}), "level": "golden", "golden": "of another recording"}
    write_receipt(node.paths(manifest.name), manifest.release, other)
    golden = {"schema": 1, "name": manifest.name, "digest": manifest.digest, "prompts": "", "base": {}, "recorded": {}}
    asked = {"questions": [{"ids": [1, 2], "start": 1, "tokens": [[2]]}], "answer": {"on": [[[0.0]]], "off": [[[0.0]]]}}
    node.manifests[0] = dataclasses.replace(manifest, golden={**golden, **asked, "noise": {}, "permitted": PERMITTED})
    assert run(check=True, **little)["changed"]
    done = run(**little)
    assert (done["changed"], of_all(done, "required_level"), of_all(done, "level")) == (True, ["golden"], ["structure"])
    receipt = node.receipts()[0]
    assert (receipt and receipt["level"]) == "structure"


@pytest.mark.slow
def test_load_test_failure_withdraws_receipt(node: LoadTestNode, run: Run, tmp_path: pathlib.Path) -> None:
    node.stage()
    base = tmp_path / "base"
    shutil.copytree(node.base, base)
    options: Options = {"adapters": node.rows[:1], "bases": {BASE: {"path": str(base)}}}
    assert run(**options)["changed"]
    # The base decays on disk with its size and times unchanged, so the receipt seems valid.
    weights = base / "model.safetensors"
    before = weights.stat()
    data = weights.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    weights.write_bytes(data[:begin].ljust(len(data), b"\xff"))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert of_all(run(check=True, **options), "from_receipt") == [True]
    failed = run(**options, force=True)
    assert "adapter grammar.3b_lora: failed the load test at level model on cpu: its base " in failed["msg"]
    assert node.receipts()[0] is None


@pytest.mark.slow
def test_load_test_incompatible_versions_fail_before_loading(node: LoadTestNode, run: Run, tmp_path: pathlib.Path) -> None:
    # Saved by a PEFT newer than any other.
    source = tmp_path / "newer"
    shutil.copytree(node.directories["grammar.3b_lora"], source)
    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    (source / "adapter_config.json").write_text(
        json.dumps({**config, "peft_version": "99.1.0", "of_the_future": 1}), encoding="utf-8"
    )
    node.directories["grammar.3b_lora"] = source
    node.rows[0]["peft_config"] = {"of_the_future": 1}
    node.manifests[0] = node.describe(source, node.rows[0])
    node.stage()
    result = run(adapters=node.rows[:1])
    assert "has of_the_future in its configuration, which PEFT " in result["msg"]
    assert "Install PEFT 99.1 or newer in the environment of python." in result["msg"]
    assert (result["changed"], result["seconds"]) == (False, 0)

    # An interpreter with transformers 4, of which only the versions are read before the failure.
    versions = {"python": "3.12.3", "torch": "2.10.0", "transformers": "4.57.6", "peft": "99.1.0", "safetensors": "0.8.0"}
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps(versions)}'\n", encoding="utf-8")
    python.chmod(0o755)
    result = run(adapters=node.rows[:1], python=str(python))
    tokenizer = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokenizer["tokenizer_class"] == "TokenizersBackend"
    assert len(result["problems"]) == 3
    for words in ("its tokenizer was saved", "the tokenizer of its base was saved", "rope_parameters but no rope_theta"):
        assert words in result["msg"]
    assert "transformers 4.57.6 on this node" in result["msg"]


@pytest.mark.slow
def test_load_test_other_versions_are_noted(node: LoadTestNode, run: Run) -> None:
    node.stage()
    node.manifests[0] = dataclasses.replace(node.manifests[0], versions={"torch": "1.0", "transformers": "5.0"})
    result = run(level="adapter")
    notes = of_all(result, "notes")
    assert [note.partition(", this node")[0] for note in notes[0]][:2] == [
        "The training had torch 1.0",
        "The training had transformers 5.0",
    ]
    # For the other one, only the versions in the adapter's own files are known.
    assert "The library versions of the training are unknown beyond those in the adapter's files." in notes[1]
    assert "The manifest does not identify the base of the training, so it was not compared." in notes[1]
    # As strings, or in the form of ansible-core 2.19.
    assert "The training had torch 1.0" in str(result["warnings"])
    # The receipt keeps the notes.
    assert of_all(run(level="adapter"), "notes") == notes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_load_test_user_without_read_access_is_an_error(node: LoadTestNode, run: Run) -> None:
    node.stage()
    closed = run(check=True, level="structure", user="nobody", file_mode="0640")
    assert "user nobody: cannot read the files of active releases: they get mode 0640, owner 0 and group 0." in closed["msg"]
    assert not run(check=True, level="structure", user="nobody", file_mode="0640", group="nogroup").get("failed")


@pytest.fixture
def open_node() -> t.Iterator[LoadTestNode]:
    """A node whose directories every user can enter, but not the staged ones."""
    tiny = tiny_adapters.cached()
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        root.chmod(0o755)
        shutil.copytree(tiny, root / "tiny")
        node = LoadTestNode(root, root / "tiny")
        node.stage()
        for manifest in node.manifests:
            staged = pathlib.Path(node.paths(manifest.name).staged(manifest.release))
            staged.chmod(0o700)
            for path in staged.iterdir():
                path.chmod(0o600)
        yield node


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a throw-away user load adapters")
def test_load_test_as_root_has_a_throw_away_user_load(open_node: LoadTestNode, run_module: t.Callable[..., Options]) -> None:
    node = open_node
    options = node.options(user="")
    result = run_module("adapter_load_test", options)
    if of_all(result, "level")[0] != "model":
        # Python below a directory of root's, for instance.
        assert "throw-away user" in result["msg"], result
        pytest.skip(result["msg"])
    isolation = ["user", *available_isolation()]
    assert of_all(result, "level") == ["model"] * 2
    assert of_all(result, "isolation") == [isolation] * 2
    assert [receipt and receipt["isolation"] for receipt in node.receipts()] == [isolation] * 2
    for manifest in node.manifests:
        staged = pathlib.Path(node.paths(manifest.name).staged(manifest.release))
        assert {path.stat().st_mode & 0o777 for path in staged.iterdir()} == {0o600}
        assert {(path.stat().st_uid, path.stat().st_gid) for path in (staged, *staged.iterdir())} == {(0, 0)}
    # It is valid for every throw-away user, and for root: a receipt from before stays valid.
    for user in ("", "root"):
        again = run_module("adapter_load_test", node.options(user=user))
        assert of_all(again, "from_receipt") == [True] * 2
        assert of_all(again, "isolation") == [isolation] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a throw-away user load adapters")
@pytest.mark.parametrize("closed", ["base", "store", "interpreter"])
def test_load_test_by_throw_away_user_who_cannot_read_is_an_error(
    open_node: LoadTestNode, run_module: t.Callable[..., Options], closed: str
) -> None:
    python = open_node.tmp_path / "bin" / "python"
    python.parent.mkdir(mode=0o755)
    versions = json.dumps({"python": "3.11", "torch": "2.13", "safetensors": "0.8", "transformers": "5.24", "peft": "0.21.2"})
    real = 'case $3 in *unreadable*) exec /usr/bin/python3 "$@" ;; esac'
    python.write_text(f"#!/bin/sh\n{real}\necho '{versions}'\n", encoding="utf-8")
    python.chmod(0o755)
    directory = {"base": open_node.base, "store": open_node.store, "interpreter": python.parent}[closed]
    directory.chmod(0o700)
    result = run_module("adapter_load_test", open_node.options(user="", python=str(python)))
    first = result["problems"][0]
    assert "throw-away user" in first["problem"]
    assert str(directory) in first["problem"] or closed == "interpreter"
    assert "set user (variable agent_load_test_user) to one that can read it, or to root" in first["remedy"]
    assert open_node.receipts() == [None, None]


def test_load_test_check_mode_on_clean_host_predicts(node: LoadTestNode, run: Run) -> None:
    clean = run(check=True)
    assert clean["changed"]
    assert of_all(clean, "limited_by") == ["Not tested in check mode: the release is not on this host yet."] * 2
    assert not node.store.exists()


def test_load_test_diff_describes_receipts(node: LoadTestNode, run: Run) -> None:
    node.stage()
    name, release = node.manifests[0].name, node.manifests[0].release
    checked = run(check=True, level="structure")
    done = run(level="structure")
    assert checked["diff"]["before"] == done["diff"]["before"]
    assert f"{name} {release}: not tested\n" in done["diff"]["before"]
    assert f"{name} {release}: to be tested at level structure on cpu\n" in checked["diff"]["after"]
    assert f"{name} {release}: level structure\n" in done["diff"]["after"]


def test_load_test_failure_of_one_adapter_keeps_the_other(node: LoadTestNode, run: Run) -> None:
    node.stage()
    paths = node.paths("grammar.3b_lora")
    weights = pathlib.Path(paths.staged(node.manifests[0].release), "adapter_model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    result = run(level="structure")
    assert result["failed"]
    assert result["changed"]
    assert len(result["problems"]) == 1
    assert "grammar.3b_lora" in result["msg"]
    assert f"differs from the manifest of release {node.manifests[0].release}" in result["msg"]
    assert of_all(result, "level") == [None, "structure"]
    assert result["adapters"][1]["limited_by"] == "Level structure was requested."
    receipts = node.receipts()
    assert receipts[0] is None
    assert receipts[1] is not None
    # No receipt is valid with force, or for another base.
    assert not run(level="structure", adapters=node.rows[1:])["changed"]
    assert run(check=True, level="structure", force=True, adapters=node.rows[1:])["changed"]
    config = json.loads((node.base / "config.json").read_text(encoding="utf-8"))
    assert run(check=True, level="structure", bases={BASE: {"config": config}}, adapters=node.rows[1:])["changed"]
    # Nor for another binding of the base.
    assert run(check=True, level="structure", base_binding="report", adapters=node.rows[1:])["changed"]
    # The declaration is compared even with a valid receipt.
    declared = run(level="structure", adapters=[{**node.rows[1], "alpha": 64}])
    assert declared["failed"]
    assert "lora_alpha" in declared["msg"]


def test_load_test_without_record_writes_nothing(node: LoadTestNode, run: Run) -> None:
    node.stage()
    result = run(level="structure", record=False)
    assert not result["changed"]
    assert of_all(result, "level") == ["structure"] * 2
    assert node.receipts() == [None, None]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "is not on this host, neither staged nor in the store. Transfer it with adapter_sync first."),
        ({"manifests": None}, "has no active release on this host. Deploy it first."),
        ({"manifests": []}, "has no manifest in manifests."),
        ({"bases": {}, "level": "model"}, "cannot reach level model: base tiny/Llama-64 has no path on this host."),
        ({"bases": {}}, "cannot reach level adapter: base tiny/Llama-64 has neither path nor config."),
        ({"bases": {BASE: {"path": "/nonexistent"}}}, "has the path /nonexistent"),
        ({"device": "tpu"}, "device is tpu: expected cpu, cuda, or cuda: and a number."),
    ],
)
def test_load_test_impossible_options_are_errors(node: LoadTestNode, run: Run, options: Options, problem: str) -> None:
    result = run(**options)
    assert result["failed"]
    assert not result.get("changed")
    assert problem in result["msg"]


def test_load_test_missing_interpreter_fails_except_in_check_mode(node: LoadTestNode, run: Run) -> None:
    node.stage()
    checked = run(check=True, python="/nonexistent/python")
    assert checked["changed"]
    assert not checked.get("failed")
    result = run(python="/nonexistent/python")
    assert result["failed"]
    assert "/nonexistent/python: does not exist. Install the PEFT environment on this host, or set python" in result["msg"]
    assert "adapter grammar.3b_lora: was not tested at level model on cpu" in result["msg"]
    assert node.receipts() == [None, None]


@pytest.mark.parametrize("part", ["_load_test.worker.levels", "_load_test.program", "_golden.attach", "_engines"])
def test_module_loads_no_part_of_the_worker_until_it_loads_an_adapter(part: str) -> None:
    """It would cost time on every node of level structure, and where all receipts are valid."""
    assert [name for name in loaded_by_module("adapter_load_test") if f".{part}" in name] == []
