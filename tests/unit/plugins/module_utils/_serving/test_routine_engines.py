# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of calls and its way back, on fakes of the engines other than vLLM."""

from __future__ import annotations

import hashlib
import json
import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.contract import Dead
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.desired import write_options
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.inspection import inspect
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.journal import Pending, read_pending, write_pending
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.node import Node

from tests.support.fake_engine import control, faults
from tests.support.fake_engine.running import CONVERT, FakeEngine
from tests.support.releases import NAME, release_of
from tests.support.serving import ServingNode, make_base

VERSIONED = {version: f"{NAME}@{release_of(version)}" for version in (1, 2)}


class Engine(t.NamedTuple):
    """An engine and its fake.

    ``alias`` is whether it gets the public name, ``proof`` what a golden proves of it, ``lists``
    whether it lists its adapters.
    """

    name: str
    personality: str
    version: str
    alias: bool = True
    proof: str = "served"
    lists: bool = True


ENGINES = {
    "sglang": Engine("sglang", "sglang", "0.5.23"),
    "mistralrs": Engine("mistralrs", "mistralrs", "0.9.5"),
    "llama_server": Engine("llama-server", "llama_server", ""),
    "llama_router": Engine("llama-server", "llama_server", "", alias=False),
    "lmdeploy": Engine("lmdeploy", "lmdeploy", "", proof="unproved"),
    "tgi": Engine("tgi", "tgi", "3.3.7", lists=False),
    "own": Engine("own", "own", ""),
    "own without a list": Engine("own", "own", "", lists=False),
}


restarted = pytest.mark.parametrize("site", ["llama_server", "lmdeploy", "tgi", "own", "own without a list"], indirect=True)


class Site(t.NamedTuple):
    engine: Engine
    node: ServingNode
    fake: FakeEngine

    def public(self, version: int) -> str:
        return NAME if self.engine.alias else VERSIONED[version]

    def listed(self) -> set[str]:
        """Return the names in the engine's list or, if it has none, those of the record."""
        return set(self.node.listed()) if self.engine.lists else {name for name, _root in self.node.desired().rows()}

    def served(self) -> list[tuple[str, str]]:
        """Return the adapter's state by the node's own record: release and proof."""
        return [(served.release, served.proof) for served in self.node.desired().adapters.values()]

    def serve(self, version: int) -> None:
        """Serve a version."""
        self.node.deploy(version)
        assert self.problems() == ""

    def inspected(self, probe: bool) -> list[dict[str, t.Any]]:
        """Return what the engine serves, as adapter_serve_info does."""
        options = self.node.options
        node = Node(options["models_dir"], options["store"], {})
        entries: list[dict[str, t.Any]] = inspect(node, self.node.node_engines(), [NAME], [NAME], probe)["adapters"]
        return entries

    def deploy_unreadable(self, version: int) -> None:
        """Activate a version whose weights the engine cannot read at its start."""
        self.node.deploy(version)
        if "convert" in self.node.engines[0]:
            self.node.engines[0]["convert"] = ["/bin/sh", "-c", "printf GGUF > $1"]
        else:
            pathlib.Path(self.node.root(version), "adapter_model.safetensors").unlink()

    def problems(self) -> str:
        return "\n".join(map(str, self.node.serve()["problems"]))


@pytest.fixture(params=sorted(ENGINES))
def site(request: pytest.FixtureRequest, fake_engine: t.Callable[..., FakeEngine], tmp_path: pathlib.Path) -> Site:
    engine = ENGINES[request.param]
    base = make_base(tmp_path)
    vocabulary = {f"\u0120t{number}": number for number in range(512)}
    tokenizer = {"model": {"type": "BPE", "vocab": vocabulary}, "decoder": {"type": "ByteLevel"}}
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings: dict[str, t.Any] = {"prefix_caching": engine.name != "llama-server"}
    keys: dict[str, t.Any] = {"start_timeout": 30}
    if engine.personality == "mistralrs":
        settings["base_name"] = str(base)
        keys["kv_cache"] = "float32"
    if request.param == "llama_router":
        keys["preset"] = settings["preset"] = str(tmp_path / "preset.ini")
        (tmp_path / "preset.ini").write_text("[base]\nmodel = base.gguf\n")
    if not engine.lists and engine.name == "own":
        settings.update(lists_adapters=False, ready="/up")
        keys.update(lists_adapters=False, ready="/up")
    fake = fake_engine(engine.personality, base, engine.version, start=str(tmp_path / "options"), **settings)
    if request.param == "llama_router":
        # The site starts the base.
        control.ask(fake.port, "POST", "/models/load", {"model": "base"})
    keys["restart"] = fake.restart_command
    if engine.name == "llama-server":
        keys["convert"] = CONVERT
    node = ServingNode(tmp_path, base, fake.url, engine.name, **keys)
    # The unit of the engine reads the file of the store.
    (tmp_path / "options").symlink_to(node.node_engines()[0].paths.options)
    return Site(engine, node, fake)


def test_serve_first_and_next_release(site: Site, tmp_path: pathlib.Path) -> None:
    for version in (1, 2):
        site.node.deploy(version)
        assert site.problems() == ""
        assert site.served() == [(release_of(version), site.engine.proof)]
        # A gateway has to follow first.
        before = {site.public(1)} if version == 2 and not site.engine.alias else set()
        assert site.listed() == {site.public(version), *before}
    files = list(tmp_path.glob("store/.serving/converted/*.gguf"))
    hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    [served] = site.node.desired().adapters.values()
    assert served.converted in hashes if site.engine.name == "llama-server" else served.converted is None
    [entry] = site.node.serve()["adapters"]
    assert (entry["action"], entry["names"]) == ("unchanged", [site.public(2)])


@pytest.mark.parametrize("site", [name for name, engine in ENGINES.items() if engine.proof == "served"], indirect=True)
def test_serve_wrong_release_goes_back(site: Site) -> None:
    site.node.deploy(1)
    assert site.problems() == ""
    # Its golden has the answers of another release.
    site.node.deploy(2, golden_of=3)
    assert "answers like another adapter" in site.problems()
    assert site.served() == [(release_of(1), "served")]
    assert site.listed() == {site.public(1)}
    assert read_pending(site.node.node_engines()[0].paths) is None


@restarted
def test_serve_release_that_the_engine_does_not_start_with_goes_back(site: Site) -> None:
    site.serve(1)
    site.deploy_unreadable(2)
    problems = site.problems()
    assert f"Release {release_of(1)} is again served" in problems
    assert (", 0.0000 from its answers before." in problems) is (site.engine.proof == "served")
    assert site.served() == [(release_of(1), site.engine.proof)]
    assert site.listed() == {NAME}
    assert read_pending(site.node.node_engines()[0].paths) is None


@restarted
def test_serve_first_release_that_the_engine_does_not_start_with_leaves_none(site: Site) -> None:
    site.deploy_unreadable(1)
    assert "The engine had no release of it before, and has none now." in site.problems()
    assert (site.listed(), site.served()) == (set(), [])


@restarted
def test_serve_after_a_run_was_killed_with_a_release_that_the_engine_does_not_start_with(site: Site) -> None:
    site.serve(1)
    [engine] = site.node.node_engines()
    site.deploy_unreadable(2)
    write_pending(engine.paths, Pending(NAME, None, site.node.root(2)))
    write_options(engine.paths, engine.client.start_options([(NAME, site.node.root(2))]))
    subprocess.run(site.fake.restart_command, check=True, timeout=60)
    with pytest.raises(Dead):
        engine.client.state()
    # The old release is active again.
    site.node.deploy(1)
    assert site.problems() == ""
    assert site.served() == [(release_of(1), site.engine.proof)]
    assert site.listed() == {NAME}


@pytest.mark.parametrize("site", ["llama_server"], indirect=True)
def test_serve_release_that_cannot_be_converted_leaves_the_engine_alone(site: Site) -> None:
    site.serve(1)
    site.node.deploy(2)
    site.node.engines[0]["convert"] = ["/bin/sh", "-c", "echo no such tensor; exit 3"]
    site.node.engines[0]["restart"] = ["/bin/false"]
    assert f"ended with 3: no such tensor. Release {release_of(1)} is still served." in site.problems()
    assert site.listed() == {NAME}
    assert read_pending(site.node.node_engines()[0].paths) is None


def test_serve_after_restart_of_the_engine(site: Site) -> None:
    site.node.deploy(1)
    assert site.problems() == ""
    site.fake.restart()
    if "preset" in site.node.engines[0]:
        control.ask(site.fake.port, "POST", "/models/load", {"model": "base"})
    assert site.problems() == ""
    assert site.listed() == {site.public(1)}


@pytest.mark.parametrize("site", ["llama_server", "lmdeploy", "own", "own without a list"], indirect=True)
def test_serve_with_a_gateway_restarts_with_the_release_before(site: Site) -> None:
    site.node.engines[0]["public_name"] = "none"
    site.serve(1)
    site.serve(2)
    assert site.listed() == set(VERSIONED.values())
    assert site.node.desired().adapters[NAME].previous == release_of(1)
    # The release before is there already.
    site.node.engines[0]["restart"] = ["/bin/false"]
    site.node.node().roll_back()
    [entry] = site.node.serve()["adapters"]
    assert (entry["action"], entry["served"], entry["previous"]) == ("served", release_of(1), release_of(2))
    assert site.listed() == set(VERSIONED.values())
    site.node.engines[0]["restart"] = site.fake.restart_command
    site.serve(3)
    assert site.listed() == {VERSIONED[1], f"{NAME}@{release_of(3)}"}


@pytest.mark.parametrize("site", ["own"], indirect=True)
def test_serve_with_a_gateway_returns_to_no_release_that_answers_wrongly_now(site: Site) -> None:
    site.node.engines[0]["public_name"] = "none"
    site.serve(1)
    site.serve(2)
    site.node.node().roll_back()
    site.node.record(1, golden_of=3)
    assert f"Release {release_of(2)} is still served." in site.problems()
    assert site.served() == [(release_of(2), "served")]


@pytest.mark.parametrize("site", ["tgi", "own without a list"], indirect=True)
def test_serve_by_engine_without_list_that_was_started_without_its_options(site: Site, tmp_path: pathlib.Path) -> None:
    site.serve(1)
    options = tmp_path / "options"
    options.rename(tmp_path / "kept")
    site.fake.restart()
    # The base of TGI answers for a name that it does not have.
    expected = "wrong answers" if site.engine.name == "tgi" else "not loaded"
    assert [one["state"] for one in site.inspected(probe=True)] == [expected]
    (tmp_path / "kept").rename(options)
    [entry] = site.node.serve()["adapters"]
    assert (entry["action"], entry["proof"]) == ("served", "served")
    assert [one["state"] for one in site.inspected(probe=True)] == ["served"]


@pytest.mark.parametrize("site", ["tgi", "own without a list"], indirect=True)
def test_inspect_engine_without_list_is_unproved_until_it_is_asked(site: Site) -> None:
    site.serve(1)
    [entry] = site.inspected(probe=False)
    assert (entry["state"], entry["why"]) == (
        "unproved",
        "The engine has no list of its adapters: only an audit proves it.",
    )


def test_serve_after_a_killed_run_returns_to_what_was_recorded(site: Site) -> None:
    site.node.deploy(1)
    assert site.problems() == ""
    [engine] = site.node.node_engines()
    old_root = site.node.listed().get(NAME)
    write_pending(engine.paths, Pending(NAME, old_root, str(site.node.node().paths.release(release_of(2)))))
    result = site.node.serve()
    assert result["problems"] == []
    assert "An earlier run ended" in " ".join(result["notes"])
    assert site.listed() == {site.public(1)}
    assert read_pending(engine.paths) is None


@pytest.mark.parametrize("site", [name for name, engine in ENGINES.items() if engine.lists], indirect=True)
def test_serve_by_engine_that_dies_sends_it_nothing_more(site: Site) -> None:
    site.node.deploy(1)
    site.fake.fault(faults.DIES, on="list", skip=1)
    assert site.problems() != ""
    assert [seen for seen in site.fake.calls_after_death() if seen.kind in ("load", "unload", "answer")] == []


def test_serve_several_adapters(site: Site) -> None:
    site.node.deploy(1)
    site.node.deploy(2, "other_lora")
    assert site.problems() == ""
    assert len(site.listed()) == 2
    assert len({served.root for served in site.node.desired().adapters.values()}) == 2
