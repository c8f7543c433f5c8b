# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet import Node
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.rollout_plan import plan_of, unplanned
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.plan import Plan

URL = {"name": "vllm", "url": "http://127.0.0.1:8000"}
ROW = {"name": "x", "variant": "3b"}


def node(name: str, agent: str = "cleaner", **variables: t.Any) -> Node:
    given = {f"agent_{key}": value for key, value in variables.items()}
    return Node.of(name, ["agents"], {"agent_adapters": [ROW], "agent_name": agent, **given})


def plan(*nodes: Node, without: t.Collection[str] = ()) -> Plan:
    return plan_of(nodes, {one.name: [] if one.name in without else one.rows for one in nodes})


def fleet(number: int, **variables: t.Any) -> list[Node]:
    return [node(f"a{one}", **variables) for one in range(1, number + 1)]


def test_plan_of_agent_with_more_than_two_serving_nodes_has_a_canary() -> None:
    assert plan(*fleet(3, engine=URL)).waves == {"cleaner": [["a1"], ["a2", "a3"]]}
    assert plan(*fleet(3, engine=["tgi", URL])).last_turn == 2


@pytest.mark.parametrize("engine", [None, "", "vllm", {"name": "vllm"}, {"name": "vllm", "url": ""}], ids=str)
def test_plan_of_agent_without_serving_nodes_is_not_needed(engine: t.Any) -> None:
    assert not plan(*fleet(3, engine=engine)).is_needed


def test_plan_of_two_serving_nodes_is_not_needed() -> None:
    assert not plan(*fleet(2, engine=URL), node("a3")).is_needed


def test_plan_of_serial_overrides_the_canary() -> None:
    assert plan(*fleet(3, engine=URL, serial="100%")).last_turn == 1
    assert plan(*fleet(4, serial=[1, 2])).waves == {"cleaner": [["a1"], ["a2", "a3"], ["a4"]]}


def test_plan_of_nodes_that_are_not_selected_moves_the_canary() -> None:
    assert plan(*fleet(4, engine=URL), without=["a1"]).waves == {"cleaner": [["a2"], ["a3", "a4"]]}
    # Not enough nodes are left for a canary.
    assert not plan(*fleet(3, engine=URL), without=["a1"]).is_needed


def test_plan_of_nodes_whose_engine_has_no_url_come_last() -> None:
    assert plan(node("a0"), *fleet(3, engine=URL)).waves == {"cleaner": [["a1"], ["a2", "a3", "a0"]]}


def test_plan_of_serial_by_agent_holds_for_these_agents() -> None:
    serial = {"cleaner": 1, "describer": "100%"}
    nodes = [*fleet(2, serial=serial), *(node(f"b{one}", "describer", serial=serial) for one in (1, 2))]
    assert plan(*nodes).waves == {"cleaner": [["a1"], ["a2"]], "describer": [["b1", "b2"]]}


def test_plan_of_nodes_with_different_serial_is_refused() -> None:
    with pytest.raises(DeliveryError) as refused:
        plan(node("a1", serial=1), node("a2"))
    assert str(refused.value) == (
        "agent_serial: is 1 on a1 and is not set on a2, for agent cleaner."
        " Declare it once, for the group of the agent. A node of several agents has a dictionary by agent."
    )


def test_plan_of_nodes_that_go_back_is_needed_without_waves() -> None:
    found = plan(node("a1", on_failure="back"), node("a2"), node("a3", on_failure="back"), without=["a3"])
    assert (found.last_turn, found.back, found.is_needed) == (1, {"a1"}, True)


def test_unplanned_variables_that_cannot_be_evaluated_are_named_with_the_cause() -> None:
    unknown = {"a1": {"agent_serial": "'os' is undefined"}, "a2": {}}
    assert [str(problem) for problem in unplanned(unknown, lambda _node, _name: False)] == [
        "a1, agent_serial: cannot be evaluated yet: 'os' is undefined. Declare agent_serial without facts and registered results."
    ]


def test_unplanned_waves_beside_a_node_without_adapters_are_refused() -> None:
    unknown = {"a1": {}, "a2": {"agent_adapters": "'os' is undefined"}, "a3": {}}
    assert unplanned(unknown, lambda _node, _name: False) == []
    assert [str(problem) for problem in unplanned(unknown, lambda node, name: (node, name) != ("a2", "agent_serial"))] == [
        f"{nodes}, {name}: needs agent_adapters, which cannot be evaluated yet on a2."
        f" Declare agent_adapters without facts and registered results, or remove {name}."
        for nodes, name in (("a1, a3", "agent_serial"), ("a1, a2, a3", "agent_on_failure"))
    ]
