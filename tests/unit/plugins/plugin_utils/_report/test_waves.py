# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

import jsonschema
import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.run import Failure, Run
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.waves import wave_words, waves_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import SERVE

from tests.support.paths import CHECKOUT

PLAN = {"waves": {"cleaner": [["a1"], ["a2", "a3"], ["a4"]], "describer": [["b1", "b2"]]}}


def waves(kind: str = "deploy", unserved: t.Iterable[str] = (), **states: str) -> list[dict[str, t.Any]]:
    """The waves of a run after which the adapters of nodes are in these states."""
    agents = {"a": "cleaner", "b": "describer"}
    nodes = [
        {"node": name, "adapters": [{"agent": agents[name[0]], "name": "x", "state": state} for state in of.split()]}
        for name, of in states.items()
    ]
    run = Run("2026-11-22T12:00:00+00:00", kind, rollout=PLAN)
    for name in unserved:
        run.node(name).failures.append(Failure(SERVE, name, {}, frozenset({"x"})))
    return waves_of(run, nodes)


def words(**states: str) -> list[str]:
    return [wave_words(entry) for entry in waves(**states)]


def test_waves_of_nodes_that_are_active_or_up_to_date_have_passed() -> None:
    found = waves(a1="activated not_selected", a2="unchanged", a3="repaired", a4="activated", b1="activated", b2="activated")
    assert [(entry["agent"], entry["wave"], entry["waves"], entry["nodes"], entry["result"]) for entry in found] == [
        ("cleaner", 1, 3, ["a1"], "passed"),
        ("cleaner", 2, 3, ["a2", "a3"], "passed"),
        ("cleaner", 3, 3, ["a4"], "passed"),
    ]


@pytest.mark.parametrize("state", ["failed", "unreachable", "skipped", "activated failed"])
def test_waves_of_node_without_success_fail_and_hold_back_the_others(state: str) -> None:
    assert words(a1="activated", a2=state, a3="activated", a4="not_started") == [
        "passed",
        "failed (a2)",
        "not started: wave 2 failed (a2)",
    ]


def test_waves_of_node_that_ended_without_a_result_do_not_pass() -> None:
    assert words(a1="not_reached", a2="not_started", a3="not_started", a4="not_started") == [
        "not reached",
        "not started: wave 1 failed (a1)",
        "not started: wave 1 failed (a1)",
    ]


def test_waves_of_node_whose_engine_does_not_serve_the_release_fail() -> None:
    found = waves(unserved=["a1"], a1="activated", a2="not_started", a3="not_started", a4="not_started")
    assert wave_words(found[0]) == "failed (a1)"


def test_waves_of_nodes_after_the_end_of_the_playbook_were_not_started() -> None:
    assert words(a1="failed", a2="not_reached", a3="not_reached", a4="not_reached")[1:] == ["not started: wave 1 failed (a1)"] * 2


def test_waves_of_unfinished_run_are_not_reached() -> None:
    assert words(a1="activated", a2="activated", a3="not_reached", a4="not_reached") == ["passed", "not reached", "not reached"]


def test_waves_of_nodes_that_went_back_are_named_even_of_an_agent_with_one_wave() -> None:
    found = waves(a1="rolled_back", a2="failed", a3="activated", a4="not_started", b1="rolled_back", b2="failed")
    assert [wave_words(entry) for entry in found] == [
        "passed, rolled back on a1",
        "failed (a2)",
        "not started: wave 2 failed (a2)",
        "failed (b2), rolled back on b1",
    ]


def test_waves_of_other_playbooks_are_none() -> None:
    assert waves(kind="audit", a1="as_verified") == []


def test_waves_follow_the_schema() -> None:
    schema = json.loads((CHECKOUT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    found = waves(a1="rolled_back", a2="failed", a3="activated", a4="not_started")
    for entry in found:
        jsonschema.validate(entry, schema["$defs"]["wave"])
        assert entry.keys() == schema["$defs"]["wave"]["properties"].keys()
