# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The inventory of a run: its hosts as the roles need them, and all that is wrong with it."""

from __future__ import annotations

import collections.abc as c
import json
import os
import typing as t

from ansible import context
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem

from .fact_checks import findings_of
from .findings import Finding, Findings
from .fleet import STAY, Node, prompts_of
from .group_checks import check_agents, check_training
from .group_declarations import GroupDeclarations, hidden_agents
from .host_variables import HostVariables
from .node_checks import check_agent_names, check_rows, no_such_host
from .playbook_directories import unread_variables
from .rollout_plan import unplanned
from .variable_checks import VariableChecks


class Inventory:
    """Read from the variables of one task, with the loader and the templar of its action plugin."""

    def __init__(self, loader: t.Any, templar: t.Any, task_vars: c.Mapping[str, t.Any], play_vars: c.Mapping[str, t.Any]) -> None:
        """``play_vars`` are variables that the playbook sets for all hosts."""
        self._loader, self._templar, self._hostvars = loader, templar, task_vars["hostvars"]
        self._play_vars = play_vars
        self._sources = task_vars["ansible_inventory_sources"]
        self.groups: dict[str, list[str]] = task_vars["groups"]
        members = self.groups.get("agents", ())
        # Without our groups, all hosts, to find those that declare adapters.
        names = [*self.groups.get("training", ()), *members] if members else self.groups["all"]
        self._evaluated: dict[str, t.Any] = {}
        self._hosts = {name: self._variables(name) for name in dict.fromkeys(names)}
        groups_of: dict[str, list[str]] = {name: [] for name in members}
        for group, hosts in self.groups.items():
            for name in groups_of.keys() & set(hosts):
                groups_of[name].append(group)
        self.nodes = [Node.of(name, groups_of[name], self._hosts[name]) for name in members]

    def value(self, host: str, name: str) -> t.Any:
        """Return the value of a variable, also of a host without any role."""
        if host not in self._hosts:
            self._hosts[host] = self._variables(host)
        return self._hosts[host].get(name)

    def of_fleet(self, name: str) -> t.Any:
        """Return a variable that is equal on all nodes."""
        return self.value(self.nodes[0].name, name) if self.nodes else None

    def other_tags(self) -> list[str]:
        """Return the tags that the inventory assigns to other parts of the playbook."""
        given = [self.value(name, "agent_other_tags") for name in self.groups.get("agents", [])[:1]]
        given += [self.value(name, "training_other_tags") for name in self.groups.get("training", [])]
        return [str(tag) for tags in given for tag in (tags if isinstance(tags, list) else str(tags or "").split(","))]

    def unknown_nodes(self) -> dict[str, str]:
        """Return why the adapters of nodes cannot be evaluated yet, by node."""
        unknown = {node.name: self._hosts[node.name].unknown for node in self.nodes}
        return {name: reasons["agent_adapters"] for name, reasons in unknown.items() if "agent_adapters" in reasons}

    def unplanned(self) -> list[Problem]:
        """Return why waves that the inventory asks for cannot be planned yet."""
        reasons = {node.name: self._hosts[node.name].unknown for node in self.nodes}
        return unplanned(reasons, lambda node, variable: self.value(node, variable) not in (None, STAY))

    def mistakes(self, training: bool, deploy: bool) -> list[Problem]:
        """Return all that is wrong with the inventory.

        ``training`` is whether group ``training`` is needed, ``deploy`` whether nodes need their
        training servers.
        """
        names = {name: variables.names() for name, variables in self._hosts.items()}
        problems = check_agents(self.groups, names)
        if training or (deploy and (not self.nodes or any(node.training_host == "" for node in self.nodes))):
            problems += check_training(self.groups, names)
        findings = Findings(self.groups)
        variable_checks = VariableChecks(findings)
        for name, variables in self._hosts.items():
            variable_checks.check(name, variables)
            for finding in findings_of(variables.overridden):
                findings.add(name, finding)
        agents = {agent for node in self.nodes for agent in node.agents}
        unknown = self.unknown_nodes()
        # Most nodes have the rows of others.
        checked: dict[str, list[Finding]] = {}
        for node in self.nodes:
            if node.name not in unknown:
                rows = [self.value(node.name, name) for name in ("agent_adapters", "agent_name")]
                key = json.dumps(rows)
                if key not in checked:
                    checked[key] = check_rows(*rows)
                for finding in checked[key]:
                    findings.add(node.name, finding)
            for finding in check_agent_names(node, agents):
                findings.add(node.name, finding)
            if deploy and node.training_host and node.training_host not in self._hostvars:
                findings.add(node.name, no_such_host(node.training_host))
        problems += [*findings.problems(), *self._hidden(), *prompts_of(self.nodes)[1]]
        if any(not node.rows and node.name not in unknown for node in self.nodes):
            problems += self._unread()
        return problems

    def _unread(self) -> list[Problem]:
        """Return where adapters may be declared that Ansible does not see."""
        beside_inventory = [source if os.path.isdir(source) else os.path.dirname(source) for source in self._sources]
        return unread_variables(context.CLIARGS.get("args", ()), [self._loader.get_basedir(), *beside_inventory])

    def _hidden(self) -> list[Problem]:
        """Return the problems of nodes that are in the groups of several agents."""
        alike: dict[tuple[str, ...], list[list[Node]]] = {}
        for node in self.nodes:
            if len(node.groups) > 1:
                same = alike.setdefault(node.groups, [])
                of_rows = next((nodes for nodes in same if nodes[0].rows == node.rows), None)
                if of_rows is None:
                    same.append([node])
                else:
                    of_rows.append(node)
        if not alike:
            return []
        declarations = GroupDeclarations(self._loader, self._sources, self._node_of)
        found = [hidden_agents(nodes, declarations) for same in alike.values() for nodes in same]
        return [problem for problem in found if problem]

    def _node_of(self, name: str, raw: dict[str, t.Any]) -> Node:
        return Node.of(name, (), self._evaluable({**raw, **self._play_vars}))

    def _variables(self, host: str) -> HostVariables:
        return self._evaluable({**self._hostvars.raw_get(host), **self._play_vars})

    def _evaluable(self, raw: dict[str, t.Any]) -> HostVariables:
        return HostVariables(raw, self._hostvars, self._templar, self._evaluated)
