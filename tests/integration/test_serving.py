# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks on a node whose adapters a fake engine serves."""

from __future__ import annotations

import pathlib
import re
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.table import client_of

from tests.support.fake_engine import faults, running
from tests.support.fleet import DESCRIBER_3B, Fleet, contents
from tests.support.playbooks import Run

NODE = "jw3-1"
# What the playbooks are limited to.
LIMIT = ("--limit", "jw3")


@pytest.fixture
def engine(fleet: Fleet) -> t.Iterator[running.FakeEngine]:
    with running.running("vllm", fleet.tiny / "base", "0.32.0") as started:
        fleet.groups["jw3"]["agent_engine"] = {
            "name": "vllm",
            "url": started.url,
            "max_lora_rank": 64,
            "start_timeout": 0,
            "drain_timeout": 0,
        }
        yield started


def root(fleet: Fleet, release: str) -> str:
    return str(fleet.stored(NODE, DESCRIBER_3B) / "releases" / release)


def listed(engine: running.FakeEngine) -> dict[str, str | None]:
    [declared] = declared_engines({"name": "vllm", "url": engine.url}, "engines")
    return {row.name: row.root for row in client_of(declared).listed()}


def state(done: Run) -> t.Any:
    [entry] = done.of(NODE, "adapter_serve_info")["adapters"]
    return entry["state"], entry["root"]


def changes(engine: running.FakeEngine) -> list[str]:
    return [seen.kind for seen in engine.calls() if seen.kind in ("load", "unload")]


def release_of(done: Run) -> str:
    return str(done.adapters(NODE, "adapter_release")[DESCRIBER_3B]["release"])


def test_deploy_serves_what_it_activates_and_goes_back_by_itself(fleet: Fleet, engine: running.FakeEngine) -> None:
    done = fleet.deploy(*LIMIT)
    first = release_of(done)
    [entry] = done.of(NODE, "adapter_serve")["adapters"]
    assert (entry["action"], entry["root"], entry["proof"]) == ("served", root(fleet, first), "unproved")
    assert entry["why_unproved"].startswith("It has no golden.")

    # A node that is up to date is proved again.
    before = changes(engine)
    done = fleet.deploy(*LIMIT)
    assert done.changed() == []
    assert done.of(NODE, "adapter_serve")["adapters"][0]["action"] == "unchanged"
    assert changes(engine) == before

    status = fleet.run("status", *LIMIT)
    assert state(status) == ("unproved", root(fleet, first))
    assert f"vllm at {engine.url}: unproved release {first} as {DESCRIBER_3B}" in status.output.replace("\n", " ")

    # In check mode, nothing is said of a release that would be replaced.
    fleet.offer(DESCRIBER_3B, "adapter")
    done = fleet.deploy(*LIMIT, "--check")
    assert done.of(NODE, "adapter_serve")["adapters"] == []
    assert changes(engine) == before

    # The engine has no effect of the next release.
    engine.fault(faults.BASE_ANSWERS, name=f"{DESCRIBER_3B}@*")
    done = fleet.run("deploy", *LIMIT)
    assert done.rc == 2, done.output
    [message] = done.failures(NODE)
    assert "answers exactly as its base does" in message and f"Release {first} is still served" in message
    served = contents(fleet.served(NODE, DESCRIBER_3B))
    assert served == contents(pathlib.Path(root(fleet, first)))
    assert listed(engine) == {DESCRIBER_3B: root(fleet, first)}
    # The files went back, so nothing was delivered.
    [reported] = [one for node in fleet.report()["nodes"] for one in node["adapters"] if one["name"] == DESCRIBER_3B]
    assert (reported["state"], reported["release"], reported["verified"]) == ("failed", None, False)

    # It has now, and the old release is unloaded.
    engine.heal()
    done = fleet.deploy(*LIMIT)
    second = release_of(done)
    assert second != first
    assert listed(engine) == {DESCRIBER_3B: root(fleet, second)}


def test_serve_after_restart_of_the_engine_and_rollback_tell_the_engine(fleet: Fleet, engine: running.FakeEngine) -> None:
    first = release_of(fleet.deploy(*LIMIT))
    fleet.offer(DESCRIBER_3B, "adapter")
    second = release_of(fleet.deploy(*LIMIT))
    engine.restart()
    audit = fleet.run("audit", *LIMIT)
    assert audit.rc == 2, audit.output
    assert state(audit) == ("not loaded", None)
    assert "The engines serve something else:" in audit.output

    # What would be served, before it is.
    predicted = fleet.run("serve", *LIMIT, "--check")
    [entry] = predicted.of(NODE, "adapter_serve")["adapters"]
    assert (entry["action"], entry["release"], entry["served"]) == ("served", second, None)
    assert len(predicted.changed()) == 1
    assert "not reached" not in predicted.output and f"engine vllm at {engine.url}: not loaded" in predicted.output
    assert listed(engine) == {}

    served = fleet.run("serve", *LIMIT)
    assert served.rc == 0, served.output
    assert served.of(NODE, "adapter_serve")["adapters"][0]["action"] == "served"
    assert len(served.changed()) == 1
    assert re.search(rf"{DESCRIBER_3B} .*\bloaded\b", served.output), served.output
    assert listed(engine) == {DESCRIBER_3B: root(fleet, second)}

    rollback = fleet.run("rollback", *LIMIT)
    assert rollback.rc == 0, rollback.output
    assert rollback.of(NODE, "adapter_serve")["adapters"][0]["served"] == first
    assert listed(engine) == {DESCRIBER_3B: root(fleet, first)}


def test_deploy_in_check_mode_tells_the_engine_nothing(fleet: Fleet, engine: running.FakeEngine) -> None:
    fleet.deploy(*LIMIT)
    fleet.offer(DESCRIBER_3B, "adapter")
    before = changes(engine)
    done = fleet.deploy(*LIMIT, "--check")
    # Not the active release either: the one that would replace it is not there yet.
    assert done.of(NODE, "adapter_serve")["adapters"] == []
    assert changes(engine) == before


def test_canary_whose_engine_gives_wrong_answers_holds_back_the_others(fleet: Fleet, engine: running.FakeEngine) -> None:
    for node in ("jw3-2", "jw3-3"):
        fleet.add_node("jw3", node)
    engine.fault(faults.BASE_ANSWERS, name=f"{DESCRIBER_3B}@*")
    done = fleet.run("deploy", *LIMIT)
    assert done.rc == 2, done.output
    # The files of the canary were activated, but that is not enough.
    assert done.adapters(NODE, "adapter_release")[DESCRIBER_3B]["action"] == "activated"
    assert done.failures("jw3-2")[0].startswith(f"wave 2 of describer: was not started: wave 1 failed ({NODE}).")
    assert not fleet.served("jw3-3", DESCRIBER_3B).exists()
    assert [(entry["nodes"], entry["result"]) for entry in fleet.report()["rollout"]] == [
        ([NODE], "failed"), (["jw3-2", "jw3-3"], "not_started")
    ]  # fmt: skip

    # All nodes of this fleet have the same engine, which can serve only one of them.
    engine.heal()
    done = fleet.run("deploy", *LIMIT)
    assert done.of(NODE, "adapter_serve")["adapters"][0]["action"] == "served"
    assert fleet.report()["rollout"][0]["result"] == "passed"
    assert done.adapters("jw3-2", "adapter_release")[DESCRIBER_3B]["action"] == "activated"
