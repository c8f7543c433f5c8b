# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module adapter_load_test as ansible runs it: packed into a zip file, on a local connection, with the real PEFT."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import write_json
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import PERMITTED
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths, make_store
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.receipt import read_receipt
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import State, write_state

from tests.support import tiny_adapters
from tests.support.paths import CHECKOUT

PEFT_PYTHON = os.environ.get("LORAFLEET_PEFT_PYTHON", str(CHECKOUT / ".cache" / "venv" / "peft" / "bin" / "python"))
ANSIBLE = str(pathlib.Path(sys.executable).with_name("ansible"))
# Name of the adapter on the node, and which of the tiny adapters it is.
ADAPTERS = {"grammar.3b_lora": ("adapter", 16), "grammar.8b_lora": ("adapter_b", 32)}

Result = dict[str, t.Any]


class Node:
    """A models directory and a store, and adapter_load_test run on them."""

    def __init__(self, tmp_path: pathlib.Path, tiny: pathlib.Path) -> None:
        self.tmp_path = tmp_path
        self.models, self.store = tmp_path / "models", tmp_path / "store"
        self.models.mkdir()
        self.base = tiny / "base"
        self.rows = [
            {"name": name, "base": "tiny/Llama-64", "rank": rank, "alpha": 32} for name, (_kind, rank) in ADAPTERS.items()
        ]
        self.manifests = [self._describe(tiny / kind, row) for row, (kind, _rank) in zip(self.rows, ADAPTERS.values())]
        self.directories = {name: tiny / kind for name, (kind, _rank) in ADAPTERS.items()}

    def _describe(self, source: pathlib.Path, row: Result) -> Manifest:
        whole = {"target_modules": None, "peft_config": None, "extra_files": None, "allow_pickle": False, **row}
        config = json.loads((self.base / "config.json").read_text(encoding="utf-8"))
        declared = Declaration.from_row(whole, {"config": config})
        return describe(str(source), declared, {}, str(self.tmp_path / "cache" / row["name"])).manifest

    def paths(self, name: str) -> AdapterPaths:
        return AdapterPaths(str(self.models), str(self.store), name)

    def stage(self) -> None:
        for manifest in self.manifests:
            paths = self.paths(manifest.name)
            make_store(paths)
            self._copy(manifest, pathlib.Path(paths.staged(manifest.release)))

    def activate(self) -> None:
        for manifest in self.manifests:
            paths = self.paths(manifest.name)
            os.rename(paths.staged(manifest.release), paths.release(manifest.release))
            write_json(paths.manifest(manifest.release), manifest.to_json())
            write_state(paths, State().activated(manifest.release, "exchange"))

    def _copy(self, manifest: Manifest, target: pathlib.Path) -> None:
        target.mkdir()
        for entry in manifest.files:
            shutil.copy(self.directories[manifest.name] / entry.path, target / entry.path)

    def _arguments(self, given: bool, options: Result) -> Result:
        return {
            "adapters": self.rows,
            "bases": {"tiny/Llama-64": {"path": str(self.base)}},
            "models_dir": str(self.models),
            "store": str(self.store),
            "python": PEFT_PYTHON,
            "device": "cpu",
            **({"manifests": [manifest.to_text() for manifest in self.manifests]} if given else {}),
            **options,
        }

    def through_ansible(self, *flags: str, given: bool = True, **options: t.Any) -> Result:
        """The result of the module in an ad-hoc run of ansible: packed, sent and started as on a node."""
        tree = self.tmp_path / "tree"
        command = [ANSIBLE, "localhost", "-i", "localhost,", "-c", "local", "-t", str(tree), *flags]
        command += ["-e", f"ansible_python_interpreter={sys.executable}"]
        done = subprocess.run(
            [*command, "-m", "lorafleet.delivery.adapter_load_test", "-a", json.dumps(self._arguments(given, options))],
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".collections")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert (tree / "localhost").exists(), done.stdout + done.stderr
        result = json.loads((tree / "localhost").read_text(encoding="utf-8"))
        assert "module_stderr" not in result, result
        return t.cast("Result", result)

    def run(self, check: bool = False, given: bool = True, **options: t.Any) -> Result:
        """The result of the module started by itself, which takes a tenth of the time."""
        arguments = {**self._arguments(given, options), "_ansible_check_mode": check, "_ansible_diff": True}
        done = subprocess.run(
            [sys.executable, "-m", "ansible_collections.lorafleet.delivery.plugins.modules.adapter_load_test"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={**os.environ, "PYTHONPATH": str(CHECKOUT / ".collections")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.stderr == ""
        return t.cast("Result", json.loads(done.stdout))

    def receipts(self) -> list[t.Optional[Result]]:
        return [read_receipt(self.paths(manifest.name), manifest.release) for manifest in self.manifests]


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path, tiny_adapters.cached())


def of_all(result: Result, key: str) -> list[t.Any]:
    return [adapter[key] for adapter in result["adapters"]]


def test_check_do_check_again_do_again(node: Node) -> None:
    node.stage()
    checked = node.through_ansible("--check")
    assert checked["changed"]
    assert of_all(checked, "level") == ["structure"] * 2
    assert of_all(checked, "limited_by") == ["Not loaded in check mode."] * 2
    assert node.receipts() == [None, None]

    done = node.through_ansible()
    assert done["changed"]
    assert of_all(done, "name") == list(ADAPTERS)
    assert of_all(done, "release") == [manifest.release for manifest in node.manifests]
    assert of_all(done, "required_level") == of_all(done, "level") == ["model"] * 2
    assert of_all(done, "from_receipt") == [False] * 2
    assert of_all(done, "device") == ["cpu"] * 2
    assert of_all(done, "limited_by") == ["No golden was recorded of this release."] * 2
    assert all(effect > 0.01 for effect in of_all(done, "effect"))
    assert all(len(checks) == 11 for checks in of_all(done, "checks"))
    assert all({"python", "torch", "peft"} <= set(versions) for versions in of_all(done, "versions"))
    assert done["seconds"] > 0
    receipts = node.receipts()
    assert [receipt and receipt["level"] for receipt in receipts] == ["model"] * 2

    for flags in (["--check"], []):
        again = node.through_ansible(*flags)
        assert not again["changed"]
        assert again["seconds"] == 0
        assert of_all(again, "from_receipt") == [True] * 2
        assert [{**adapter, "from_receipt": False} for adapter in again["adapters"]] == done["adapters"]
    assert node.receipts() == receipts

    # What was activated since is the same release, now found through the state; a lower level is contained in its receipt.
    node.activate()
    served = node.run(given=False, level="adapter")
    assert not served["changed"]
    assert of_all(served, "from_receipt") == [True] * 2
    assert served["diff"]["before"] == served["diff"]["after"] == ""

    # Another device is another environment, and nothing passes on one that is not there.
    other = node.run(device="cuda:63", level="adapter")
    assert other["failed"]
    assert not other["changed"]
    for found in ADAPTERS:
        assert f"adapter {found}: was not tested at level adapter on cuda:63" in other["msg"]
    assert "device cuda:63: cannot be used by" in other["msg"]
    assert "ask for device cpu" in other["msg"]
    assert node.receipts() == receipts

    # A receipt of a lower level does not stand for a higher one.
    lower = node.manifests[0]
    write_json(node.paths(lower.name).receipt(lower.release), {**(receipts[0] or {}), "level": "adapter"})
    assert of_all(node.run(check=True), "from_receipt") == [False, True]


def test_where_memory_does_not_suffice_a_permitted_level_does(node: Node) -> None:
    node.stage()
    # Enough for level adapter; a base takes a gigabyte and more.
    little: Result = {"memory_limit": "700M"}
    strict = node.run(**little)
    assert strict["failed"]
    assert not strict["changed"]
    assert "reached level adapter in the load test at level model on cpu: the base " in strict["msg"]
    assert "GiB of memory on cpu, 0.7 GiB are permitted." in strict["msg"]
    assert "permit level adapter as the least level" in strict["msg"]
    assert of_all(strict, "level") == ["adapter"] * 2

    done = node.run(**little, minimum_level="adapter")
    assert not done.get("failed")
    assert done["changed"]
    assert of_all(done, "required_level") == ["model"] * 2
    assert of_all(done, "level") == ["adapter"] * 2
    assert all("0.7 GiB are permitted" in reason for reason in of_all(done, "limited_by"))
    receipts = node.receipts()
    assert [receipt and receipt["level"] for receipt in receipts] == ["adapter"] * 2

    # More is tried in every run, but as long as no more is reached there is nothing new to write down.
    again = node.run(**little, minimum_level="adapter")
    assert (again["changed"], again["seconds"] > 0) == (False, True)
    assert not node.run(check=True, **little, minimum_level="adapter")["changed"]
    assert node.receipts() == receipts
    more = node.run(minimum_level="adapter")
    assert (more["changed"], of_all(more, "level")) == (True, ["model"] * 2)

    # A least level above what is asked for is asked for.
    above = node.run(check=True, level="available", minimum_level="golden")
    assert "cannot reach level golden: the manifest of release" in above["msg"]


def test_where_there_is_no_memory_at_all_the_files_may_suffice(node: Node) -> None:
    node.stage()
    little: Result = {"adapters": node.rows[:1], "level": "adapter", "memory_limit": "1M"}
    strict = node.run(**little)
    assert (strict["failed"], strict["changed"]) == (True, False)
    (problem,) = strict["problems"]
    assert problem["problem"].startswith("reached level structure in the load test at level adapter on cpu: the adapter alone ")
    assert problem["remedy"] == "Make room on cpu, name another device, or permit level structure as the least level."

    done = node.run(**little, minimum_level="structure")
    assert not done.get("failed"), done["msg"]
    assert done["changed"]
    (found,) = done["adapters"]
    assert (found["required_level"], found["level"], found["device"], found["versions"]) == ("adapter", "structure", None, {})
    assert found["limited_by"].startswith("the adapter alone does not fit")
    receipt = node.receipts()[0]
    assert (receipt and receipt["level"]) == "structure"
    assert not node.run(**little, minimum_level="structure")["changed"]

    # What was reached once is no less true for it.
    assert node.run(adapters=node.rows[:1], level="adapter")["changed"]
    assert node.run(**little, force=True)["failed"]
    receipt = node.receipts()[0]
    assert (receipt and receipt["level"]) == "adapter"


def test_a_receipt_of_another_golden_says_nothing_of_this_one(node: Node) -> None:
    node.stage()
    little: Result = {"adapters": node.rows[:1], "memory_limit": "1M", "minimum_level": "structure"}
    node.run(**little)
    manifest = node.manifests[0]
    path = node.paths(manifest.name).receipt(manifest.release)
    write_json(path, {**(node.receipts()[0] or {}), "level": "golden", "golden": "of another recording"})
    golden = {"schema": 1, "name": manifest.name, "digest": manifest.digest, "prompts": "", "base": {}, "recorded": {}}
    asked = {"questions": [{"ids": [1, 2], "start": 1, "tokens": [[2]]}], "answer": {"on": [[[0.0]]], "off": [[[0.0]]]}}
    node.manifests[0] = dataclasses.replace(manifest, golden={**golden, **asked, "noise": {}, "permitted": PERMITTED})
    assert node.run(check=True, **little)["changed"]
    done = node.run(**little)
    assert (done["changed"], of_all(done, "required_level"), of_all(done, "level")) == (True, ["golden"], ["structure"])
    receipt = node.receipts()[0]
    assert (receipt and receipt["level"]) == "structure"


def test_no_receipt_outlives_a_test_that_failed(node: Node, tmp_path: pathlib.Path) -> None:
    node.stage()
    base = tmp_path / "base"
    shutil.copytree(node.base, base)
    options: Result = {"adapters": node.rows[:1], "bases": {"tiny/Llama-64": {"path": str(base)}}}
    assert node.run(**options)["changed"]
    # The disk of the base rots: its size and times tell nothing, so the receipt would stand.
    weights = base / "model.safetensors"
    before = weights.stat()
    data = weights.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    weights.write_bytes(data[:begin].ljust(len(data), b"\xff"))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert of_all(node.run(check=True, **options), "from_receipt") == [True]
    failed = node.run(**options, force=True)
    assert "adapter grammar.3b_lora: failed the load test at level model on cpu: its base " in failed["msg"]
    assert node.receipts()[0] is None


def test_what_goes_wrong_between_versions_is_refused_before_loading(node: Node, tmp_path: pathlib.Path) -> None:
    # Saved by a PEFT that is newer than any.
    source = tmp_path / "newer"
    shutil.copytree(node.directories["grammar.3b_lora"], source)
    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    (source / "adapter_config.json").write_text(json.dumps({**config, "peft_version": "99.1.0"}), encoding="utf-8")
    node.directories["grammar.3b_lora"] = source
    node.manifests[0] = node._describe(source, node.rows[0])
    node.stage()
    result = node.run(adapters=node.rows[:1])
    assert "was saved by PEFT 99.1.0, this node has the older PEFT" in result["msg"]
    assert "Install PEFT 99.1 or newer in agent_python." in result["msg"]
    assert (result["changed"], result["seconds"]) == (False, 0)

    # An interpreter with transformers 4; nothing but its versions is looked at before it is refused.
    versions = {"python": "3.12.3", "torch": "2.10.0", "transformers": "4.57.6", "peft": "99.1.0", "safetensors": "0.8.0"}
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps(versions)}'\n", encoding="utf-8")
    python.chmod(0o755)
    result = node.run(adapters=node.rows[:1], python=str(python))
    tokenizer = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokenizer["tokenizer_class"] == "TokenizersBackend"
    assert len(result["problems"]) == 3
    for says in ("its tokenizer was saved", "the tokenizer of its base was saved", "rope_parameters but no rope_theta"):
        assert says in result["msg"]
    assert "transformers 4.57.6 on this node" in result["msg"]


def test_what_merely_differs_between_versions_is_reported(node: Node) -> None:
    node.stage()
    node.manifests[0] = dataclasses.replace(node.manifests[0], versions={"torch": "1.0", "transformers": "5.0"})
    result = node.run(level="adapter")
    notes = of_all(result, "notes")
    assert [note.partition(", this node")[0] for note in notes[0]][:2] == [
        "The training had torch 1.0",
        "The training had transformers 5.0",
    ]
    # Nothing is known of the other one but what the adapter itself says.
    assert "The library versions of the training are not known beyond what the adapter itself tells." in notes[1]
    assert "The training server does not tell its base, so nothing says that the base here is the same." in notes[1]
    # Which ansible-core 2.19 gives a form of its own.
    assert "The training had torch 1.0" in str(result["warnings"])
    # A receipt keeps them.
    assert of_all(node.run(level="adapter"), "notes") == notes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_serves_must_be_able_to_read_what_becomes_active(node: Node) -> None:
    node.stage()
    closed = node.run(check=True, level="structure", user="nobody", file_mode="0640")
    assert "user nobody: cannot read the files that become active: they get mode 0640, owner 0 and group 0." in closed["msg"]
    assert not node.run(check=True, level="structure", user="nobody", file_mode="0640", group="nogroup").get("failed")


def test_check_mode_on_a_clean_host_predicts(node: Node) -> None:
    clean = node.run(check=True)
    assert clean["changed"]
    assert of_all(clean, "limited_by") == ["Not tested in check mode: the release is not on this host yet."] * 2
    assert not node.store.exists()


def test_the_diff_speaks_of_levels(node: Node) -> None:
    node.stage()
    name, release = node.manifests[0].name, node.manifests[0].release
    checked = node.run(check=True, level="structure")
    done = node.run(level="structure")
    assert checked["diff"]["before"] == done["diff"]["before"]
    assert f"{name} {release}: not tested\n" in done["diff"]["before"]
    assert f"{name} {release}: to be tested at level structure on cpu\n" in checked["diff"]["after"]
    assert f"{name} {release}: level structure\n" in done["diff"]["after"]


def test_what_fails_keeps_what_passes_and_names_all(node: Node) -> None:
    node.stage()
    paths = node.paths("grammar.3b_lora")
    weights = pathlib.Path(paths.staged(node.manifests[0].release), "adapter_model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    result = node.run(level="structure")
    assert result["failed"]
    assert result["changed"]
    assert len(result["problems"]) == 1
    assert "grammar.3b_lora" in result["msg"]
    assert f"is not what the manifest of release {node.manifests[0].release} says" in result["msg"]
    assert of_all(result, "level") == [None, "structure"]
    assert result["adapters"][1]["limited_by"] == "Level structure was asked for."
    receipts = node.receipts()
    assert receipts[0] is None
    assert receipts[1] is not None
    # No receipt stands where the test is to be made again, or the base is another.
    assert not node.run(level="structure", adapters=node.rows[1:])["changed"]
    assert node.run(check=True, level="structure", force=True, adapters=node.rows[1:])["changed"]
    config = json.loads((node.base / "config.json").read_text(encoding="utf-8"))
    assert node.run(check=True, level="structure", bases={"tiny/Llama-64": {"config": config}}, adapters=node.rows[1:])["changed"]
    # Nor where another base was only reported at the time, and is to be refused now; or the other way round.
    assert node.run(check=True, level="structure", base_binding="report", adapters=node.rows[1:])["changed"]
    # What the inventory declares is compared even where a receipt stands.
    declared = node.run(level="structure", adapters=[{**node.rows[1], "alpha": 64}])
    assert declared["failed"]
    assert "lora_alpha" in declared["msg"]


def test_without_record_nothing_is_written(node: Node) -> None:
    node.stage()
    result = node.run(level="structure", record=False)
    assert not result["changed"]
    assert of_all(result, "level") == ["structure"] * 2
    assert node.receipts() == [None, None]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "is not on this host, neither staged nor in the store. Bring it with adapter_sync first."),
        ({"given": False}, "has no active release on this host. Deploy it first."),
        ({"manifests": []}, "has no manifest among those given."),
        ({"bases": {}, "level": "model"}, "cannot reach level model: base tiny/Llama-64 has no path on this host."),
        ({"bases": {}}, "cannot reach level adapter: of base tiny/Llama-64 neither path nor config is known."),
        ({"bases": {"tiny/Llama-64": {"path": "/nonexistent"}}}, "has the path /nonexistent"),
        ({"device": "tpu"}, "device is tpu: expected cpu, cuda, or cuda: and a number."),
    ],
)
def test_what_cannot_be_tested_is_said(node: Node, options: Result, problem: str) -> None:
    result = node.run(**options)
    assert result["failed"]
    assert not result.get("changed")
    assert problem in result["msg"]


def test_a_missing_interpreter_fails_but_not_in_check_mode(node: Node) -> None:
    node.stage()
    checked = node.run(check=True, python="/nonexistent/python")
    assert checked["changed"]
    assert not checked.get("failed")
    result = node.run(python="/nonexistent/python")
    assert result["failed"]
    assert "/nonexistent/python: does not exist. Install the PEFT environment on this host, or set agent_python" in result["msg"]
    assert "adapter grammar.3b_lora: was not tested at level model on cpu" in result["msg"]
    assert node.receipts() == [None, None]
