# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Plans the rollout of the selected nodes of an inventory."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import shown

from .._node_names import listed
from .._rollout.plan import Candidate, Plan
from .._rollout.serial import ALL_AT_ONCE, CANARY, serial_of
from .fleet import Node
from .rows import Row, agents_of

# An agent with more serving nodes than these gets a canary, unless ``agent_serial`` is set.
_WITHOUT_CANARY = 2
# The variables that have to be known before the first contact.
_VARIABLES = ("agent_serial", "agent_on_failure")
_ADAPTERS = "agent_adapters"


def plan_of(nodes: c.Sequence[Node], selected: c.Mapping[str, c.Sequence[Row]]) -> Plan:
    """Return the plan of a run. ``selected`` has the rows that it delivers, by node.

    Nodes whose engine has a URL come first, so that a canary proves as much as it can. Raises
    DeliveryError for agents whose nodes have different values of ``agent_serial``.
    """
    serial = _serial_of_agents(nodes)
    covered = sorted((node for node in nodes if selected.get(node.name)), key=lambda node: not node.serves)
    candidates = [Candidate(node.name, tuple(agents_of(selected[node.name])), node.serves) for node in covered]
    serving: dict[str, int] = {}
    for node, candidate in zip(covered, candidates):
        for agent in candidate.agents:
            serving[agent] = serving.get(agent, 0) + node.serves
    sizes = {
        agent: serial_of(serial[agent]) if serial.get(agent) is not None else CANARY if number > _WITHOUT_CANARY else ALL_AT_ONCE
        for agent, number in serving.items()
    }
    return Plan.of(candidates, sizes, [node.name for node in covered if node.goes_back])


def unplanned(unknown: c.Mapping[str, c.Mapping[str, str]], is_set: t.Callable[[str, str], bool]) -> list[Problem]:
    """Return why waves that somebody has asked for cannot be planned before the first contact.

    ``unknown`` has the reasons why variables of each node cannot be evaluated. ``is_set`` tells
    whether a variable of a node asks for something.
    """
    problems = []
    for name in _VARIABLES:
        problems += [
            Problem(
                f"{node}, {name}",
                f"cannot be evaluated yet: {reasons[name].rstrip('.')}.",
                f"Declare {name} without facts and registered results.",
            )
            for node, reasons in unknown.items()
            if name in reasons
        ]
        # With the adapters of one node, the tags are not known, and so no selection.
        without_adapters = [node for node, reasons in unknown.items() if _ADAPTERS in reasons]
        asking = [node for node in unknown if is_set(node, name)]
        if without_adapters and asking:
            problem = f"needs {_ADAPTERS}, which cannot be evaluated yet on {listed(without_adapters)}."
            remedy = f"Declare {_ADAPTERS} without facts and registered results, or remove {name}."
            problems.append(Problem(f"{listed(asking)}, {name}", problem, remedy))
    return problems


def _serial_of_agents(nodes: c.Iterable[Node]) -> dict[str, t.Any]:
    """Return ``agent_serial`` of each agent, on which all of its nodes have to agree."""
    found: dict[str, tuple[str, t.Any]] = {}
    problems: dict[str, Problem] = {}
    for node in nodes:
        for agent in node.agents:
            value = node.serial.get(agent)
            other, others = found.setdefault(agent, (node.name, value))
            if others != value:
                words = ["is not set" if one is None else f"is {shown(one)}" for one in (others, value)]
                problem = f"{words[0]} on {other} and {words[1]} on {node.name}, for agent {agent}."
                remedy = "Declare it once, for the group of the agent. A node of several agents has a dictionary by agent."
                problems.setdefault(agent, Problem("agent_serial", problem, remedy))
    if problems:
        raise DeliveryError(*problems.values())
    return {agent: value for agent, (_node, value) in found.items()}
