# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""What lets a wave go on, and what goes back after a failure."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem

from .._node_names import listed
from .plan import Plan


class Passed(t.NamedTuple):
    """What is known of a node that has passed. ``changed`` are the adapters it now serves anew.

    Only those that have a previous release are among them.
    """

    changed: tuple[str, ...] = ()


def held_back(plan: Plan, node: str, agents: c.Iterable[str], passed: c.Container[str]) -> list[Problem]:
    """Return why a node must not be delivered, one problem for each of its agents that failed.

    ``passed`` are the nodes of which the run has recorded that they passed, and that it has not
    lost since. Nothing else lets a wave go on: not the mere absence of a failure.
    """
    problems = []
    for agent in agents:
        wave = plan.wave(agent, node)
        found = first_failure(plan, agent, passed, before=wave)
        if found:
            failed, nodes = found
            problems.append(
                Problem(
                    f"wave {wave} of {agent}",
                    f"was not started: wave {failed} failed ({listed(nodes)}).",
                    f"Correct what failed on {listed(nodes)}, or leave {'it' if len(nodes) == 1 else 'them'} out with --limit,"
                    " and deploy again.",
                )
            )
    return problems


def first_failure(plan: Plan, agent: str, passed: c.Container[str], before: int | None = None) -> tuple[int, list[str]] | None:
    """Return the first wave of an agent with nodes that have not passed, and these nodes.

    ``before`` limits it to the waves before that one.
    """
    for number, nodes in enumerate(plan.waves.get(agent, []), 1):
        if before is not None and number >= before:
            return None
        missing = [node for node in nodes if node not in passed]
        if missing:
            return number, missing
    return None


def going_back(plan: Plan, node: str, agents: c.Mapping[str, c.Collection[str]], passed: c.Mapping[str, Passed]) -> list[str]:
    """Return the adapters of a node that go back to their previous release.

    Those are the adapters that this run changed, of agents of which another node has failed.
    ``agents`` maps the agents of the node to their adapters.
    """
    if node not in plan.back or node not in passed:
        return []
    failed = [agent for agent in agents if first_failure(plan, agent, passed)]
    return [name for name in passed[node].changed if any(name in agents[agent] for agent in failed)]
