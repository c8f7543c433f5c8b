# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether fake engines have room for adapters that are to be delivered."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight import serving
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import Check, Checklist

from tests.support.fake_engine import faults
from tests.support.fake_engine.running import CONVERT, FakeEngine
from tests.support.releases import manifest_of
from tests.support.serving import ServingNode, make_base

ANYWAY = "To deliver nevertheless, set engine_policy to report."
NAMES = ("one", "two")


class Site:
    """A node with an engine, to which adapters are to be delivered."""

    def __init__(self, directory: pathlib.Path, start: t.Callable[..., FakeEngine]) -> None:
        self.directory = directory
        self.base = make_base(directory)
        self._start = start

    def start(self, personality: str, version: str = "", **settings: t.Any) -> FakeEngine:
        return self._start(personality, self.base, version, **settings)

    def check(self, *engines: dict[str, t.Any], names: t.Sequence[str] = NAMES, **changes: t.Any) -> list[Check]:
        checklist = Checklist()
        params = {
            "engines": [{"start_timeout": 0, **engine} for engine in engines],
            "engine_policy": "enforce",
            "bases": {},
            "store": str(self.directory / "store"),
            **changes,
        }
        serving.check_serving(checklist, params, [manifest_of(1, name) for name in names])
        return checklist.checks


@pytest.fixture
def site(tmp_path: pathlib.Path, fake_engine: t.Callable[..., FakeEngine]) -> Site:
    return Site(tmp_path, fake_engine)


def test_check_engine_with_room_says_how_much(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "available_memory", lambda: 10**9)
    engine = site.start("vllm", "0.32.0", max_loras=3)
    [one] = site.check({"name": "vllm", "url": engine.url, "max_cpu_loras": 4})
    assert (one.check, one.state) == (f"engine vllm at {engine.url}", "ok")
    parts = one.found.split("; ")
    assert parts[:3] == ["2 adapters", "3 of 3 places (max_loras)", "4 of 4 places (max_cpu_loras)"]
    assert parts[3].endswith(" for releases side by side, 1.0 GB left of memory of this host")
    assert parts[4] == "that of a GPU is not known"
    # It was asked, and told nothing.
    assert {seen.kind for seen in engine.calls()} == {"health", "version", "list", "metrics"}


@pytest.mark.parametrize(
    ("engine", "settings", "stated", "state", "found"),
    [
        (
            ("vllm", "0.32.0"),
            {"max_loras": 2},
            {"max_cpu_loras": 4},
            "warning",
            "needs 3 places: one for each of 2 adapters, one for the next release of an adapter during a switch, and max_loras"
            " is 2 (read from it). It lets requests of some adapters wait for those of others.",
        ),
        (
            ("vllm", "0.14.1"),
            {"max_loras": 2},
            {"max_cpu_loras": 4},
            "failed",
            "and max_loras is 2 (read from it). It may send answers of one adapter to users of another while it loads",
        ),
        (
            ("vllm", "0.32.0"),
            {},
            {"max_cpu_loras": 3},
            "warning",
            "needs 4 places: two for each of 2 adapters, and max_cpu_loras is 3 (stated in engines). It reads adapters again",
        ),
        (
            ("sglang", "0.5.23"),
            {"max_loaded_loras": 2},
            {},
            "failed",
            "and max_loaded_loras is 2 (read from it). It unloads the adapter that was used least recently.",
        ),
        (
            ("sglang", "0.5.23"),
            {"max_loras": 2},
            {},
            "warning",
            "and max_loras_per_batch is 2 (read from it). It lets requests",
        ),
        (
            ("mistralrs", "0.9.5"),
            {"max_loras": 2},
            # What it says itself counts.
            {"max_adapters": 16},
            "failed",
            "and max_adapters is 2 (read from it). It refuses the next release.",
        ),
    ],
)
@pytest.mark.parametrize("policy", ["enforce", "report"])
def test_check_engine_without_room_says_what_it_does_then(
    site: Site,
    engine: tuple[str, str],
    settings: dict[str, t.Any],
    stated: dict[str, t.Any],
    state: str,
    found: str,
    policy: str,
) -> None:
    fake = site.start(*engine, **settings)
    declared = {"name": engine[0], "url": fake.url, **stated}
    [one] = [one for one in site.check(declared, engine_policy=policy) if one.state != "unknown"]
    assert one.check == f"engine {engine[0]} at {fake.url}"
    assert found in one.found
    fails = (state, policy) == ("failed", "enforce")
    assert one.state == ("failed" if fails else "warning")
    needed = "max_cpu_loras 4" if "max_cpu_loras is" in found else f"{found.partition('and ')[2].partition(' is')[0]} 3"
    assert one.remedy == f"Start it with {needed} or more.{f' {ANYWAY}' if fails else ''}"


def test_check_router_counts_its_base_and_takes_0_for_no_limit(site: Site) -> None:
    (site.directory / "preset.ini").write_text("[base]\nmodel = base.gguf\n")
    preset = str(site.directory / "preset.ini")
    fake = site.start("llama_server", preset=preset)
    declared = {"name": "llama.cpp", "url": fake.url, "preset": preset, "convert": CONVERT}
    [one] = site.check({**declared, "models_max": 3})
    assert one.state == "failed"
    assert one.found.startswith("needs 4 places: one for each of 2 adapters, one for the next release of an adapter during a")
    assert "one for the base, and models_max is 3 (stated in engines). It ends the process of the release" in one.found
    [one] = site.check({**declared, "models_max": 0})
    assert (one.state, one.found) == (
        "ok",
        "2 adapters; 4 of any number of places (models_max); the memory that it has for adapters is not known here",
    )
    [one, two] = site.check(declared)
    assert (one.state, one.found.partition(", and ")[2]) == ("unknown", "models_max is not known. State models_max in engines")
    assert two.state == "ok"


def test_check_engine_that_restarts_needs_no_second_place(site: Site) -> None:
    fake = site.start("lmdeploy")
    [one] = site.check({"name": "lmdeploy", "url": fake.url, "restart": "lmdeploy.service"})
    assert (one.state, one.found) == (
        "ok",
        "gets its adapters at its start: no two releases of one are loaded side by side",
    )


def test_check_engine_counts_what_it_has_besides(site: Site, tmp_path: pathlib.Path) -> None:
    fake = site.start("mistralrs", "0.9.5", max_loras=3, base_name=str(site.base))
    node = ServingNode(tmp_path, site.base, fake.url, "mistralrs")
    for name in NAMES:
        node.deploy(1, name)
    client = node.node_engines()[0].client
    declared = {"name": "mistralrs", "url": fake.url}
    assert site.check(declared)[0].state == "ok"
    # One is there in an older release, under its versioned name.
    client.load(f"{NAMES[0]}@{'a' * 12}", node.root(1, NAMES[0]))
    assert site.check(declared)[0].state == "ok"
    # An adapter that tags did not select, or that somebody else loaded.
    client.load("three", node.root(1, NAMES[0]))
    [one] = site.check(declared)
    assert one.found.startswith("needs 4 places: one for each of 3 adapters")


def test_check_engine_without_memory_for_a_second_release_fails(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "available_memory", lambda: 100)
    fake = site.start("vllm", "0.32.0")
    declared = {"name": "vllm", "url": fake.url, "max_cpu_loras": 4}
    [one] = site.check(declared)
    size = max(entry.size for entry in manifest_of(1, NAMES[0]).files if entry.path == "adapter_model.safetensors")
    assert one.state == "failed"
    assert (
        one.found
        == f"needs at least {serving.human_bytes(3 * size)} for new releases beside the old ones, and 100 B are left of"
        + (" memory of this host.")
    )
    assert one.remedy == f"Free memory on this host, or serve fewer adapters there. {ANYWAY}"
    assert [one.state for one in site.check(declared, engine_policy="report")] == ["warning"]


def test_check_mistralrs_compares_memory_with_its_own_limit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "available_memory", lambda: 0)
    fake = site.start("mistralrs", "0.9.5")
    [one] = site.check({"name": "mistralrs", "url": fake.url})
    assert one.state == "ok" and " left of the engine's limit" in one.found


def test_check_engine_that_is_recorded_to_serve_the_releases_needs_no_more_memory(
    site: Site, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = site.start("vllm", "0.32.0")
    node = ServingNode(tmp_path, site.base, fake.url, max_cpu_loras=2)
    node.deploy(1, NAMES[0])
    assert node.serve()["problems"] == []
    monkeypatch.setattr(serving, "available_memory", lambda: 0)
    assert [one.state for one in site.check(node.engines[0], names=NAMES[:1])] == ["ok"]
    # It has lost them.
    fake.restart()
    assert [one.state for one in site.check(node.engines[0], names=NAMES[:1])] == ["failed"]


def test_check_engine_that_may_be_on_another_host_leaves_its_memory_open(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "available_memory", lambda: 0)
    fake = site.start("vllm", "0.32.0")
    [one] = site.check({"name": "vllm", "url": fake.url, "allow_remote": True, "max_cpu_loras": 4})
    assert (one.state, one.found.rpartition("; ")[2]) == ("ok", "the memory that it has for adapters is not known here")


def test_check_engine_that_is_down_uses_what_the_inventory_states(site: Site) -> None:
    fake = site.start("vllm", "0.32.0")
    fake.fault(faults.STOPS, on="health")
    declared = {"name": "vllm", "url": fake.url, "restart": "vllm.service", "max_loras": 1}
    down, few, unknown = site.check(declared)
    assert (down.state, down.remedy) == ("warning", "Restart the engine: systemctl restart vllm.service.")
    assert "closed the connection without an answer." in down.found
    # Its version is not known either: the newest one is assumed.
    assert (few.state, few.remedy) == ("warning", "Start it with max_loras 3 or more.")
    assert (unknown.state, unknown.found) == (
        "unknown",
        "needs 4 places: two for each of 2 adapters, and max_cpu_loras is not known. State max_cpu_loras in engines",
    )
    few_before = site.check({**declared, "version": "0.25.1"})[1]
    assert (few_before.state, "may send answers of one adapter" in few_before.found) == ("failed", True)


@pytest.mark.parametrize("key", [None, "wrong"])
def test_check_engine_without_the_right_key_fails(site: Site, tmp_path: pathlib.Path, key: t.Optional[str]) -> None:
    fake = site.start("vllm", "0.32.0", api_key="right")
    declared = {"name": "vllm", "url": fake.url}
    if key:
        (tmp_path / "key").write_text(key)
        declared["api_key_file"] = str(tmp_path / "key")
    [one] = site.check(declared, engine_policy="report")
    assert (one.check, one.state) == (f"engine vllm at {fake.url}", "failed")
    assert one.found == f"{'rejects' if key else 'demands'} {'the' if key else 'an'} API key (HTTP 401)."
    assert "api_key_file" in one.remedy


def test_check_engine_with_bad_key_file_fails(site: Site, tmp_path: pathlib.Path) -> None:
    fake = site.start("vllm", "0.32.0")
    [one] = site.check({"name": "vllm", "url": fake.url, "api_key_file": str(tmp_path / "absent")})
    assert (one.check, one.state) == (f"engine vllm at {fake.url}", "failed")
    assert str(tmp_path / "absent") in one.found


def test_check_adapter_whose_base_no_engine_has_fails(site: Site) -> None:
    fake = site.start("vllm", "0.32.0")
    found = site.check({"name": "vllm", "url": fake.url, "base": "another", "max_cpu_loras": 4}, names=NAMES[:1])
    [one] = [one for one in found if one.state == "failed"]
    assert (one.check, one.adapter) == ("adapter one", "one")
    assert f"which no engine serves: engine vllm at {fake.url} has another." in one.found


def test_check_of_two_engines_of_which_one_is_down_leaves_its_adapters_open(site: Site) -> None:
    first, second = site.start("vllm", "0.32.0"), site.start("vllm", "0.32.0")
    second.fault(faults.STOPS, on="health")
    declared = [{"name": "vllm", "url": one.url, "max_cpu_loras": 4} for one in (first, second)]
    assert {one.state for one in site.check(*declared)} == {"ok", "warning", "unknown"}


def test_check_engines_without_url_asks_nobody(site: Site) -> None:
    assert site.check(engines="vllm") == []
    with pytest.raises(DeliveryError, match="names engine vlm"):
        site.check({"name": "vlm", "url": "http://127.0.0.1:1"})
