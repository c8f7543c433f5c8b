# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.gate import Passed, going_back, held_back
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.plan import Candidate, Plan

NODES = [*(Candidate(f"a{number}", ("a",)) for number in (1, 2, 3)), Candidate("b1", ("b",)), Candidate("b2", ("b",))]
PLAN = Plan.of(NODES, {"a": [1], "b": [1]}, ["a1", "a2", "b1"])
ADAPTERS: dict[str, t.Collection[str]] = {"a": {"x", "y"}}


def test_held_back_first_wave_never_is() -> None:
    assert held_back(PLAN, "a1", ["a"], set()) == []


def test_held_back_node_without_recorded_pass_stops_later_waves_of_its_agent() -> None:
    [problem] = held_back(PLAN, "a2", ["a"], {"b1"})
    assert str(problem) == (
        "wave 2 of a: was not started: wave 1 failed (a1)."
        " Correct what failed on a1, or leave it out with --limit, and deploy again."
    )
    assert held_back(PLAN, "b2", ["b"], {"b1"}) == []


def test_held_back_every_later_wave_names_the_first_that_failed() -> None:
    [problem] = held_back(PLAN, "a3", ["a"], set())
    assert problem.problem == "was not started: wave 1 failed (a1)."
    [problem] = held_back(PLAN, "a3", ["a"], {"a1"})
    assert problem.problem == "was not started: wave 2 failed (a2)."
    assert held_back(PLAN, "a3", ["a"], {"a1", "a2"}) == []


def test_held_back_node_of_two_agents_needs_the_waves_of_both() -> None:
    plan = Plan.of([Candidate("a1", ("a",)), Candidate("b1", ("b",)), Candidate("both", ("a", "b"))], {"a": [1], "b": [1]})
    assert [problem.subject for problem in held_back(plan, "both", ["a", "b"], {"b1"})] == ["wave 2 of a"]
    assert len(held_back(plan, "both", ["a", "b"], set())) == 2


def test_held_back_node_that_is_not_planned_needs_all_waves_with_earlier_turns() -> None:
    [problem] = held_back(PLAN, "a4", ["a"], {"a1"})
    assert problem.problem == "was not started: wave 2 failed (a2)."
    assert held_back(PLAN, "a4", ["a"], {"a1", "a2"}) == []
    [problem] = held_back(PLAN, "b3", ["b"], {"b1"})
    assert problem.problem == "was not started: wave 2 failed (b2)."


def test_going_back_adapters_that_changed_do_after_a_failure_elsewhere() -> None:
    passed = {"a1": Passed(("x",)), "b1": Passed(("x",)), "b2": Passed()}
    assert going_back(PLAN, "a1", ADAPTERS, passed) == ["x"]
    # Nothing failed of agent b.
    assert going_back(PLAN, "b1", {"b": {"x"}}, passed) == []


def test_going_back_node_that_stays_or_failed_itself_does_not() -> None:
    plan = Plan(PLAN.waves, PLAN.turns, frozenset({"a2"}))
    passed = {"a1": Passed(("x",))}
    assert going_back(plan, "a1", ADAPTERS, passed) == []
    assert going_back(plan, "a2", ADAPTERS, passed) == []


def test_going_back_adapters_of_another_agent_of_the_node_do_not() -> None:
    plan = Plan.of([Candidate("both", ("a", "b")), Candidate("a2", ("a",))], {"a": [1], "b": [1]}, ["both"])
    passed = {"both": Passed(("x", "z"))}
    assert going_back(plan, "both", {"a": {"x"}, "b": {"z"}}, passed) == ["x"]
    assert going_back(plan, "both", {"a": {"x"}, "b": {"z"}}, {**passed, "a2": Passed()}) == []
