# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The part of one node in a rollout: what the role does there now."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem

from .gate import going_back, held_back
from .plan import Plan
from .record import forget, passed_of


class Part(t.NamedTuple):
    """The names of the adapters to work on now, or the problems that block the node.

    ``rollout`` is the key of that name in the result of adapter_selection_info.
    """

    adapters: frozenset[str]
    rollout: dict[str, t.Any]
    problems: list[Problem]


def part_of(
    node: str, agents: c.Mapping[str, c.Collection[str]], plan: Plan | None, turn: int | None, in_play: c.Container[str]
) -> Part:
    """Return the part of a node. ``agents`` maps its agents to their selected adapters.

    ``turn`` is the turn of the run; without one, the rollout has ended. ``in_play`` are the hosts
    that Ansible has not lost. Turn 1 forgets that the node passed an earlier deploy.
    """
    names = frozenset(name for of_agent in agents.values() for name in of_agent)
    if plan is None:
        rollout = {"turn": 1, "turns": 1, "waves": {}, "back": False}
        return Part(names if turn == 1 else frozenset(), rollout, [])
    if turn == 1:
        forget(node)
    own = plan.turn(node)
    rollout = {
        "turn": own if agents else None,
        "turns": plan.last_turn,
        "waves": {
            agent: [plan.wave(agent, node), max(plan.wave(agent, node), len(plan.waves[agent]))]
            for agent in agents
            if agent in plan.waves
        },
        "back": bool(plan.back),
    }
    if turn not in (own, None):
        return Part(frozenset(), rollout, [])
    passed = {name: known for name, known in passed_of(plan).items() if name in in_play}
    if turn is None:
        return Part(frozenset(going_back(plan, node, agents, passed)), rollout, [])
    return Part(names, rollout, held_back(plan, node, agents, passed))
