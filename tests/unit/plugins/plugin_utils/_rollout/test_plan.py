# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.plan import Candidate, Plan
from hypothesis import given
from hypothesis import strategies as st

from .test_serial import SIZES

AGENTS = ["cleaner", "describer", "tagger"]
FLEETS = st.lists(st.sets(st.sampled_from(AGENTS), min_size=1), min_size=1, max_size=12).map(
    lambda fleet: [Candidate(f"node-{number}", tuple(sorted(agents))) for number, agents in enumerate(fleet)]
)


def plan(serial: dict[str, list[int | str]], **nodes: tuple[str, ...]) -> Plan:
    return Plan.of([Candidate(name, agents) for name, agents in nodes.items()], serial)


@given(FLEETS, st.fixed_dictionaries(dict.fromkeys(AGENTS, SIZES)))
def test_plan_every_node_is_in_one_wave_of_each_agent_and_after_the_waves_before(
    nodes: list[Candidate], serial: dict[str, list[int | str]]
) -> None:
    found = Plan.of(nodes, serial)
    for agent, waves in found.waves.items():
        assert [name for wave in waves for name in wave] == [node.name for node in nodes if agent in node.agents]
        assert all(waves)
        for before, after in zip(waves, waves[1:]):
            assert max(found.turns[name] for name in before) < min(found.turns[name] for name in after)
    assert set(found.turns.values()) == set(range(1, found.last_turn + 1))


def test_plan_agents_without_shared_nodes_do_not_wait_for_each_other() -> None:
    found = plan({"a": [1], "b": ["100%"]}, a1=("a",), a2=("a",), b1=("b",), b2=("b",))
    assert found.turns == {"a1": 1, "a2": 2, "b1": 1, "b2": 1}


def test_plan_node_of_two_agents_comes_after_the_waves_of_both() -> None:
    found = plan({"a": [1], "b": [2]}, a1=("a",), both=("a", "b"), b2=("b",), b3=("b",))
    assert found.waves == {"a": [["a1"], ["both"]], "b": [["both", "b2"], ["b3"]]}
    assert found.turns == {"a1": 1, "both": 2, "b2": 1, "b3": 3}
    assert found.wave("b", "both") == 1


def test_plan_of_one_turn_is_needed_only_where_nodes_go_back() -> None:
    nodes = [Candidate("a1", ("a",)), Candidate("a2", ("a",))]
    assert not Plan.of(nodes, {"a": ["100%"]}).is_needed
    assert Plan.of(nodes, {"a": ["100%"]}, ["a1"]).is_needed
    assert Plan.of(nodes, {"a": [1]}).is_needed


def test_plan_node_that_is_not_planned_comes_last() -> None:
    found = plan({"a": [1], "b": ["100%"]}, a1=("a",), a2=("a",), b1=("b",))
    assert found.turn("other") == 2
    assert [found.wave(agent, "other") for agent in ("a", "b", "c")] == [2, 2, 1]
    assert plan({"a": ["100%"]}, a1=("a",)).wave("a", "other") == 1


@pytest.mark.parametrize("back", [[], ["a1"]])
def test_plan_as_json_is_the_same_plan(back: list[str]) -> None:
    found = Plan.of([Candidate("a1", ("a",)), Candidate("a2", ("a",))], {"a": [1]}, back)
    assert Plan.from_json(found.to_json()) == found


def test_plan_without_nodes_has_one_turn() -> None:
    assert Plan.of([], {}).last_turn == 1
