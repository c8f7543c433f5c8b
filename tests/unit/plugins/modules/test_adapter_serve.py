# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""adapter_serve, adapter_serve_info and the pruning of adapter_release, on a fake engine."""

from __future__ import annotations

import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import read_state
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.answers import answer_of

from tests.support.fake_engine import faults, running
from tests.support.releases import NAME, manifest_of, release_of, stage, write_version
from tests.support.serving import ServingNode, make_base
from tests.support.troubleshooting import documented
from tests.unit.plugins.modules.conftest import RunModule

Serve = t.Callable[..., t.Dict[str, t.Any]]


@pytest.fixture
def engine(tmp_path: pathlib.Path) -> t.Iterator[running.FakeEngine]:
    with running.running("vllm", make_base(tmp_path), "0.32.0") as started:
        yield started


@pytest.fixture
def node(engine: running.FakeEngine, tmp_path: pathlib.Path) -> ServingNode:
    return ServingNode(tmp_path, tmp_path / "base", engine.url)


@pytest.fixture
def serve(node: ServingNode, run_module: RunModule) -> Serve:
    """Run adapter_serve. What it prints passes the gate."""

    def run(check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
        result = run_module("adapter_serve", {**node.options, **options}, check_mode=check_mode)
        answer_of("adapter_serve", "node", result)
        return result

    return run


@pytest.fixture
def serve_info(node: ServingNode, run_module: RunModule) -> Serve:
    def run(**options: t.Any) -> dict[str, t.Any]:
        result = run_module("adapter_serve_info", {**node.options, **options})
        answer_of("adapter_serve_info", "node", result)
        return result

    return run


def active(node: ServingNode) -> t.Optional[str]:
    return read_state(node.node().paths).active


def test_serve_loads_the_active_release_and_reports_it(node: ServingNode, serve: Serve) -> None:
    release = node.deploy(1)
    assert serve(check_mode=True)["changed"] is True
    result = serve()
    [entry] = result["adapters"]
    assert (result["changed"], result["rolled_back"], result["notes"]) == (True, [], [])
    assert (entry["engine"], entry["version"], entry["root"]) == ("vllm", "0.32.0", node.root(1))
    assert (entry["action"], entry["proof"], entry["served"]) == ("served", "served", release)
    assert set(entry["seconds"]) == {"baseline", "load", "probe", "switch", "probe_again", "drain"}
    assert serve()["changed"] is serve(check_mode=True)["changed"] is False


def test_serve_in_check_mode_returns_what_would_be_served(node: ServingNode, engine: running.FakeEngine, serve: Serve) -> None:
    def predicted() -> tuple[t.Any, ...]:
        [entry] = serve(check_mode=True)["adapters"]
        return tuple(entry[key] for key in ("action", "release", "served", "proof"))

    node.deploy(1)
    assert predicted() == ("served", release_of(1), None, None)
    serve()
    assert predicted() == ("unchanged", release_of(1), release_of(1), "served")
    node.deploy(2)
    before = len(engine.calls())
    assert predicted() == ("served", release_of(2), release_of(1), None)
    assert {seen.kind for seen in engine.calls()[before:]} == {"health", "version", "list"}


def test_serve_in_check_mode_finds_what_the_engine_must_not_have(node: ServingNode, serve: Serve, tmp_path: pathlib.Path) -> None:
    node.deploy(1)
    write_version(tmp_path / "other", 3)
    name = f"{NAME}@{release_of(1)}"
    node.node_engines()[0].client.load(name, str(tmp_path / "other"))
    result = serve(check_mode=True)
    assert f"has {name} from {tmp_path}/other, not from {node.root(1)}" in result["msg"]
    assert result["adapters"][0]["action"] == "failed"


@pytest.mark.parametrize(("failure", "expected"), [("previous", 1), ("keep", 2)])
def test_serve_release_that_fails_lets_the_files_follow(
    node: ServingNode, engine: running.FakeEngine, serve: Serve, failure: str, expected: int
) -> None:
    node.deploy(1)
    serve()
    node.deploy(2)
    engine.fault(faults.BASE_ANSWERS, name=f"{NAME}@*")
    result = serve(failure=failure)
    assert result["failed"] and result["rolled_back"] == ([NAME] if failure == "previous" else [])
    assert f"Release {release_of(1)} is still served" in result["msg"]
    assert active(node) == release_of(expected)
    assert (result["adapters"][0]["action"], result["adapters"][0]["served"]) == ("went back", release_of(1))


def test_serve_release_that_fails_is_not_what_a_rollback_leads_to(
    node: ServingNode, engine: running.FakeEngine, serve: Serve
) -> None:
    for version in (1, 2):
        node.deploy(version)
        serve()
    node.deploy(3)
    engine.fault(faults.BASE_ANSWERS, name=f"{NAME}@*")
    assert serve()["rolled_back"] == [NAME]
    state = read_state(node.node().paths)
    assert (state.active, state.previous) == (release_of(2), release_of(1))


def test_serve_first_release_that_fails_leaves_the_files(node: ServingNode, engine: running.FakeEngine, serve: Serve) -> None:
    node.deploy(1)
    engine.fault(faults.BASE_ANSWERS)
    result = serve()
    assert (result["failed"], result["rolled_back"], active(node)) == (True, [], release_of(1))


def test_serve_engine_that_is_down_leaves_the_files(node: ServingNode, engine: running.FakeEngine, serve: Serve) -> None:
    node.deploy(1)
    serve()
    node.deploy(2)
    engine.fault(faults.STOPS, on="health")
    result = serve()
    assert (result["failed"], result["rolled_back"], active(node)) == (True, [], release_of(2))


def test_serve_release_that_one_of_two_engines_refuses_goes_back_in_both(
    node: ServingNode, engine: running.FakeEngine, serve: Serve, tmp_path: pathlib.Path
) -> None:
    with running.running("vllm", tmp_path / "base", "0.32.0") as other:
        node.engines.append({**node.engines[0], "url": other.url})
        for one in node.engines:
            one["base"] = "None"
        node.deploy(1)
        assert "failed" not in serve()
        node.deploy(2)
        other.fault(faults.BASE_ANSWERS, name=f"{NAME}@*")
        result = serve()
        assert (result["failed"], result["rolled_back"]) == (True, [NAME])
        assert [entry["served"] for entry in result["adapters"]] == [release_of(1)] * 2
        assert node.listed() == {NAME: node.root(1)}


def test_serve_release_that_one_engine_refuses_goes_back_in_one_that_is_restarted(
    node: ServingNode, engine: running.FakeEngine, serve: Serve, tmp_path: pathlib.Path
) -> None:
    with running.running("own", tmp_path / "base", start=str(tmp_path / "options")) as own:
        restarted = {"name": "own", "url": own.url, "restart": own.restart_command, "start_timeout": 60}
        node.engines.insert(0, restarted)
        for one in node.engines:
            one["base"] = "None"
        (tmp_path / "options").symlink_to(node.node_engines()[0].paths.options)
        node.deploy(1)
        assert "failed" not in serve()
        node.deploy(2)
        engine.fault(faults.BASE_ANSWERS, name=f"{NAME}@*")
        result = serve()
        assert [problem["subject"] for problem in result["problems"]] == [f"adapter {NAME}, engine vllm at {engine.url}"]
        assert [entry["served"] for entry in result["adapters"]] == [release_of(1)] * 2
        assert node.desired().adapters[NAME].release == release_of(1)


def test_serve_without_a_url_is_refused(node: ServingNode, serve: Serve) -> None:
    node.deploy(1)
    result = serve(engines="vllm")
    assert result["msg"] == "engines: has no engine with a url. Add the url that an engine serves adapters at."


def test_serve_adapter_without_active_release_is_refused(node: ServingNode, serve: Serve) -> None:
    node.deploy(1)
    assert serve(names=["absent"])["msg"] == "adapter absent: has no active release on this node. Deploy it first."


def test_serve_notes_are_warnings(node: ServingNode, serve: Serve, tmp_path: pathlib.Path) -> None:
    with running.running("vllm", tmp_path / "base", "0.14.1") as old:
        node.engines[0]["url"] = old.url
        node.deploy(1)
        first, second = serve()["warnings"]
    assert "vLLM 0.14.1 may send answers of one adapter to users of another" in first
    assert f"So a gateway has to lead {NAME} to {NAME}@{release_of(1)}." in second


# What is really served


def assert_documented(result: dict[str, t.Any], cause: str) -> None:
    """Check that docs/troubleshooting.md has the first difference that was found."""
    assert documented(cause).fullmatch(result["differences"][0]), result["differences"]


def test_serve_info_before_and_after_serving(node: ServingNode, serve: Serve, serve_info: Serve) -> None:
    node.deploy(1)
    result = serve_info()
    [before] = result["adapters"]
    assert (before["state"], before["served"]) == ("not loaded", None)
    assert_documented(result, "adapter that the engine does not have")
    serve()
    result = serve_info()
    [after] = result["adapters"]
    assert (after["state"], after["served"], after["listed"], after["why"]) == ("served", release_of(1), NAME, "")
    assert after["figures"]["distances"]["on"] < 0.0001
    assert (result["differences"], result["critical"]) == ([], [])
    assert result["engines"][0]["proves"] == "path"


def test_serve_info_of_another_release_is_behind(node: ServingNode, serve: Serve, serve_info: Serve) -> None:
    node.deploy(1)
    serve()
    node.deploy(2)
    result = serve_info()
    [entry] = result["adapters"]
    assert (entry["state"], entry["served"], entry["active"]) == ("behind", release_of(1), release_of(2))
    assert_documented(result, "engine that serves an earlier release")


def test_serve_info_without_golden_is_unproved(node: ServingNode, serve: Serve, serve_info: Serve) -> None:
    node.deploy(1, golden_of=None)
    serve()
    result = serve_info()
    assert (result["adapters"][0]["state"], result["differences"]) == ("unproved", [])


def test_serve_info_finds_wrong_answers_only_with_a_probe(
    node: ServingNode, engine: running.FakeEngine, serve: Serve, serve_info: Serve, tmp_path: pathlib.Path
) -> None:
    """Somebody loads other bytes from the path that was served, and puts the release back."""
    node.deploy(1)
    serve()
    client = node.node_engines()[0].client
    client.unload(NAME)
    write_version(tmp_path / "other", 3)
    engine.fault(faults.OTHER_WEIGHTS, name=NAME, times=1, directory=str(tmp_path / "other"))
    client.load(NAME, node.root(1))
    assert serve_info(probe=False)["adapters"][0]["state"] == "served"
    result = serve_info()
    assert (result["adapters"][0]["state"], result["critical"]) == ("wrong answers", [NAME])
    assert_documented(result, "engine that answers like another adapter")


def test_serve_info_finds_strangers_and_directories_that_are_gone(
    node: ServingNode, serve: Serve, serve_info: Serve, tmp_path: pathlib.Path
) -> None:
    node.deploy(1)
    serve()
    client = node.node_engines()[0].client
    write_version(tmp_path / "other", 3)
    client.load("guest", str(tmp_path / "other"))
    assert_documented(serve_info(), "adapter that nobody has declared")
    # It is one that was not selected.
    assert serve_info(expected=[NAME, "guest"])["differences"] == []
    client.unload(NAME)
    client.load(NAME, str(tmp_path / "other"))
    result = serve_info()
    assert result["adapters"][0]["state"] == "foreign"
    assert_documented(result, "engine that has a name from elsewhere")
    shutil.rmtree(tmp_path / "other")
    result = serve_info()
    assert (result["adapters"][0]["state"], result["critical"]) == ("gone", [NAME])
    assert_documented(result, "engine whose directory is gone")


def test_serve_info_of_an_engine_that_is_down_says_so(
    node: ServingNode, engine: running.FakeEngine, serve: Serve, serve_info: Serve
) -> None:
    node.deploy(1)
    serve()
    engine.fault(faults.STOPS, on="health")
    result = serve_info()
    assert result["adapters"][0]["state"] == "not loaded"
    problem = result["engines"][0]["problem"]
    assert "closed the connection without an answer" in problem
    assert (result["adapters"][0]["why"], problem.count(engine.url)) == (problem, 0)


def test_serve_info_without_the_right_key_is_unproved_and_names_the_file(
    node: ServingNode, serve: Serve, serve_info: Serve, tmp_path: pathlib.Path
) -> None:
    node.deploy(1)
    with running.running("vllm", tmp_path / "base", "0.32.0", api_key="right") as locked:
        node.engines[0]["url"] = locked.url
        demands = "demands an API key (HTTP 401). Put the key into a file on the node, and its path into api_key_file"
        assert demands in serve()["msg"]
        (tmp_path / "key").write_text("wrong\n")
        rejects = "rejects the API key (HTTP 401). Write the key of the engine into the file that its api_key_file names."
        for keys, said in ({}, demands), ({"api_key_file": str(tmp_path / "key")}, rejects):
            node.engines[0].update(keys)
            result = serve_info()
            [entry] = result["adapters"]
            assert (entry["state"], entry["served"]) == ("unproved", None)
            assert said in entry["why"]
            # An audit has found out nothing, and says so.
            assert result["differences"] == [f"vllm at {locked.url}: {entry['why']}"]
            if not keys:
                assert_documented(result, "engine that an audit cannot ask")
        (tmp_path / "key").write_text("right\n")
        assert serve()["adapters"][0]["proof"] == "served"
        assert serve_info()["differences"] == []


# What is not pruned


def activate(node: ServingNode, run_module: RunModule, version: int) -> dict[str, t.Any]:
    stage(node.node().paths, version)
    options = {key: value for key, value in node.options.items() if key != "names"}
    return run_module("adapter_release", {**options, "keep": 1, "manifests": [manifest_of(version).to_text()]})


def test_release_that_an_engine_lists_is_not_pruned(node: ServingNode, serve: Serve, run_module: RunModule) -> None:
    node.deploy(1)
    serve()
    activate(node, run_module, 2)
    result = activate(node, run_module, 3)
    assert result["adapters"][0]["pruned"] == []
    assert os.path.isdir(node.root(1))
    # The engine has the next release now, and its answers of the first one have ended.
    serve()
    serve()
    result = activate(node, run_module, 4)
    assert release_of(1) in result["adapters"][0]["pruned"]
    assert not os.path.exists(node.root(1))


def test_release_that_a_gateway_may_still_lead_to_is_not_pruned(
    node: ServingNode, engine: running.FakeEngine, serve: Serve, run_module: RunModule
) -> None:
    node.engines[0]["public_name"] = "none"
    node.deploy(1)
    serve()
    activate(node, run_module, 2)
    assert serve()["adapters"][0]["previous"] == release_of(1)
    # The options load it again.
    engine.restart()
    assert node.listed() == {}
    assert release_of(1) not in activate(node, run_module, 3)["adapters"][0]["pruned"]
    serve()
    assert release_of(1) in activate(node, run_module, 4)["adapters"][0]["pruned"]


def test_release_of_an_engine_that_does_not_answer_is_not_pruned(
    node: ServingNode, engine: running.FakeEngine, run_module: RunModule
) -> None:
    node.deploy(1)
    engine.fault(faults.STOPS, on="list")
    activate(node, run_module, 2)
    result = activate(node, run_module, 3)
    assert result["adapters"][0]["pruned"] == []
    [warning] = result["warnings"]
    assert warning.startswith("No release is deleted, because it is not known which ones are in use. engine vllm at ")
    engine.restart()
    assert activate(node, run_module, 4)["adapters"][0]["pruned"] == [release_of(1), release_of(2)]
