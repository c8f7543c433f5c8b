# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The fleet: the nodes of an inventory, the agents that they serve and their adapters."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem

from .rows import Row, agents_of, by_agent, rows_with_agents

# The values of ``agent_on_failure``: what a node does when another node of its agent fails.
STAY, BACK = "stay", "back"
# Groups that say nothing about a node.
_COMMON_GROUPS = frozenset({"all", "ungrouped", "agents"})


class Variables(t.Protocol):
    """What the fleet needs of :class:`HostVariables`."""

    def get(self, name: str) -> t.Any: ...


@dataclasses.dataclass(frozen=True)
class Node:
    """A node as its variables describe it.

    ``purpose``, ``notes``, ``prompts`` and ``serial`` are by agent. ``serial`` is None for all
    agents where the variable is not set. ``serves`` is whether it has an engine with a URL.
    """

    name: str
    address: str
    groups: tuple[str, ...]
    rows: list[Row]
    purpose: dict[str, t.Any]
    notes: dict[str, t.Any]
    prompts: dict[str, t.Any]
    training_host: str | None
    models_dir: str | None
    source_models_dir: str | None
    serial: dict[str, t.Any]
    serves: bool
    goes_back: bool

    @classmethod
    def of(cls, name: str, groups: c.Iterable[str], variables: Variables) -> Node:
        agent = variables.get("agent_name")
        rows = rows_with_agents(variables.get("agent_adapters"), agent, variables.get("agent_form"))
        return cls(
            name=name,
            address=str(variables.get("ansible_host") or name),
            groups=tuple(group for group in groups if group not in _COMMON_GROUPS),
            rows=rows,
            purpose=by_agent(variables.get("agent_purpose"), agent),
            notes={name: _as_list(notes) for name, notes in by_agent(variables.get("agent_notes"), agent).items()},
            prompts=by_agent(variables.get("agent_prompts"), agent),
            training_host=variables.get("agent_training_host"),
            models_dir=variables.get("agent_models_dir"),
            source_models_dir=variables.get("agent_source_models_dir"),
            serial=_of_each(variables.get("agent_serial"), agents_of(rows)),
            serves=_has_url(variables.get("agent_engine")),
            goes_back=variables.get("agent_on_failure") == BACK,
        )

    @property
    def agents(self) -> list[str]:
        return list(agents_of(self.rows))

    def entry(self, selected: c.Sequence[Row]) -> dict[str, t.Any]:
        """The node as fleet_info and adapter_selection_info return it."""
        return {
            "name": self.name,
            "address": self.address,
            "groups": list(self.groups),
            "agents": self.agents,
            "purpose": {agent: str(purpose) for agent, purpose in self.purpose.items()},
            "notes": {agent: [str(note) for note in notes] for agent, notes in self.notes.items()},
            "training_host": self.training_host,
            "models_dir": self.models_dir,
            "source_models_dir": self.source_models_dir,
            "rows": [{**row, "selected": row in selected} for row in self.rows],
        }


def _of_each(value: t.Any, agents: c.Iterable[str]) -> dict[str, t.Any]:
    """Return a variable by agent. A value that is no dictionary holds for all agents of a node."""
    return {str(name): of for name, of in value.items()} if isinstance(value, dict) else dict.fromkeys(agents, value)


def _has_url(engines: t.Any) -> bool:
    entries = engines if isinstance(engines, list) else [engines]
    return any(isinstance(entry, dict) and entry.get("url") for entry in entries)


def _as_list(value: t.Any) -> list[t.Any]:
    return value if isinstance(value, list) else [value]


def variants_of(rows_of_nodes: c.Iterable[c.Sequence[Row]]) -> dict[str, list[str]]:
    """Return all agents of a fleet with their variants."""
    return agents_of(row for rows in rows_of_nodes for row in rows)


def prompts_of(nodes: c.Iterable[Node]) -> tuple[dict[str, list[t.Any]], list[Problem]]:
    """Return the golden prompts of each adapter: those of its agent, which all nodes must share."""
    found: dict[str, tuple[str, list[t.Any]]] = {}
    problems: dict[str, Problem] = {}
    for node in nodes:
        for row in node.rows:
            prompts = node.prompts.get(row["agent"])
            if not prompts:
                continue
            host, others = found.setdefault(row["name"], (node.name, prompts))
            if others != prompts:
                problem = f"differ between {host} and {node.name}."
                remedy = "Declare them once, for the group of the agent."
                problems.setdefault(row["name"], Problem("agent_prompts", problem, remedy, row["name"]))
    return {name: prompts for name, (_host, prompts) in found.items()}, list(problems.values())
