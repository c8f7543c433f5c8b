# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Finds hosts for which Ansible's precedence of groups would hide an agent.

A host that is in the groups of two agents has the variables of the last group only, so Ansible
itself never shows that the other agent was declared.
"""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.yaml import yaml_dump
from ansible.vars.manager import VariableManager
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import first

from .fleet import Node
from .rows import Row

# Variables that are by agent on a node that serves several.
_BY_AGENT = ("purpose", "notes", "prompts")


class GroupDeclarations:
    """What each group declares, as a host would see it that is in this group alone."""

    def __init__(self, loader: t.Any, sources: c.Sequence[str], node: c.Callable[[str, dict[str, t.Any]], Node]) -> None:
        self._inventory = InventoryManager(loader=loader, sources=list(sources))
        self._variables = VariableManager(loader=loader, inventory=self._inventory)
        self._node = node
        self._nodes: dict[str, Node] = {}

    def of(self, group: str) -> Node:
        if group not in self._nodes:
            # A host of this copy of the inventory only. No host of an inventory has a space.
            name = f"only in {group}"
            if group not in self._inventory.groups:
                # Made during the run, by add_host or group_by.
                self._inventory.add_group(group)
            self._inventory.add_host(name, group=group)
            self._nodes[group] = self._node(name, self._variables.get_vars(host=self._inventory.get_host(name)))
        return self._nodes[group]

    def ancestors(self, group: str) -> set[str]:
        return {ancestor.get_name() for ancestor in self._inventory.groups[group].get_ancestors()}


def hidden_agents(nodes: c.Sequence[Node], declarations: GroupDeclarations) -> Problem | None:
    """Return the problem of nodes that hide agents or adapters which their groups declare.

    The nodes are in the same groups and serve the same rows.
    """
    node, names = nodes[0], [node.name for node in nodes]
    rows = {group: declarations.of(group).rows for group in node.groups if declarations.of(group).rows}
    declared = {agent for of_group in rows.values() for agent in _agents(of_group)}
    missing = declared - set(node.agents) if len(declared) > 1 else set()
    # A group may replace what its parent declares for the same agent, and a host what its groups
    # declare.
    innermost = [rows[group] for group in rows if not any(group in declarations.ancestors(other) for other in rows)]
    if node.rows in innermost:
        served = {(row["agent"], row["name"]) for row in node.rows}
        lost = [row for of_group in innermost for row in of_group if (row["agent"], row["name"]) not in served]
        missing |= {row["name"] for row in lost if row["agent"] not in missing}
    if not missing:
        return None
    by_group = "; ".join(f"{group} declares {', '.join(_agents(of_group))}" for group, of_group in rows.items())
    problem = f"is in groups that declare different adapters ({by_group}). Ansible would ignore {', '.join(sorted(missing))}."
    others = f", and the same for {first(names[1:])}" if names[1:] else ""
    form = _form(list(rows), declarations)
    return Problem(f"host {first(names)}", problem, f"Name the agents in host_vars/{node.name}.yml{others}:\n{form}")


def _agents(rows: c.Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["agent"] for row in rows))


def _form(groups: c.Sequence[str], declarations: GroupDeclarations) -> str:
    """The variables of a host that serves what all groups declare."""
    rows: dict[tuple[str, str], Row] = {}
    values: dict[str, dict[str, t.Any]] = {}
    for group in groups:
        declared = declarations.of(group)
        rows.update({(row["agent"], row["name"]): row for row in declared.rows})
        for name in _BY_AGENT:
            values.setdefault(f"agent_{name}", {}).update(getattr(declared, name))
    form = {"agent_adapters": list(rows.values()), **{name: value for name, value in values.items() if value}}
    text: str = yaml_dump(form, default_flow_style=False, sort_keys=False, allow_unicode=True)
    return text.rstrip()
