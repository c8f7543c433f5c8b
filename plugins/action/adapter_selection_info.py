# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Selects the adapters of one node by the tags of the run. Contacts no host."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleUndefinedVariable
from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._forms import AS_TRAINED, FORMS
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import failed
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fact_checks import findings_of, overriding_facts
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.findings import Finding, Findings
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet import BACK, Node, variants_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.host_variables import HostVariables, as_json
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.node_checks import check_rows, no_such_host
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.rows import adapters_of, agents_of, rows_with_agents
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.selection import select
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._once import once_a_run
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.part import part_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.record import kept_plan

_OPTIONS: dict[str, t.Any] = {
    "agent": {"type": "str"},
    "adapters": {"type": "list", "elements": "dict", "required": True},
    "form": {"type": "str", "choices": list(FORMS), "default": AS_TRAINED},
    "other_tags": {"type": "list", "elements": "str", "default": []},
    "purpose": {"type": "raw"},
    "notes": {"type": "raw"},
    "address": {"type": "str"},
    "training": {"type": "bool", "default": False},
    "training_host": {"type": "str"},
    "models_dir": {"type": "str"},
    "source_models_dir": {"type": "str"},
    "turn": {"type": "int"},
    "going_back": {"type": "bool", "default": False},
}

# Variables of the host, with the options that override them. Ansible would compile a template for
# each option on each node.
_FROM_VARIABLES = {
    "ansible_host": "address",
    "agent_purpose": "purpose",
    "agent_notes": "notes",
    "agent_models_dir": "models_dir",
    "agent_source_models_dir": "source_models_dir",
    "agent_engine": "",
}


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _validated, given = self.validate_argument_spec(_OPTIONS)
        options = as_json(given)
        role_variables = {
            "agent_name": options["agent"],
            "agent_adapters": options["adapters"],
            "agent_form": options["form"],
            "agent_training_host": options["training_host"],
            **{
                name: self._variable(name, variables) if options.get(option) is None else options[option]
                for name, option in _FROM_VARIABLES.items()
            },
        }
        node = Node.of(variables["inventory_hostname"], variables["group_names"], role_variables)
        findings = Findings({})
        for finding in findings_of(overriding_facts(variables)):
            findings.add(node.name, finding)
        for finding in self._check_rows(options["adapters"], options["agent"]):
            findings.add(node.name, finding)
        if options["training"] and node.training_host not in variables["hostvars"]:
            findings.add(node.name, no_such_host(node.training_host or ""))
        try:
            if findings.problems():
                raise DeliveryError(*findings.problems())
            rows = select(
                node.rows,
                self._agents(node, variables),
                list(variables.get("ansible_run_tags") or ()),
                list(variables.get("ansible_skip_tags") or ()),
                # Tags of the role, the play and its blocks are also tags of this task.
                self._task.tags,
                options["other_tags"],
            )
        except DeliveryError as exc:
            return {**result, "failed": True, "msg": str(exc), "problems": exc.to_json()}
        adapters = adapters_of(rows)
        if options["turn"] is None and not options["going_back"]:
            return {**result, "changed": False, "node": node.entry(rows), "adapters": adapters, "serves": node.serves}
        try:
            plan = kept_plan()
        except FileNotFoundError:
            if variables.get("agent_serial") is not None or variables.get("agent_on_failure") == BACK:
                remedy = "Run the whole playbook, without --start-at-task."
                return {
                    **result,
                    **failed(Problem("the rollout", "cannot be planned without the check of the inventory.", remedy)),
                }
            plan = None
        names: dict[str, set[str]] = {}
        for row in rows:
            names.setdefault(row["agent"], set()).add(row["name"])
        part = part_of(node.name, names, plan, options["turn"], variables["ansible_play_hosts"])
        if part.problems:
            return {**result, **failed(*part.problems), "held_back": True}
        adapters = [adapter for adapter in adapters if adapter["name"] in part.adapters]
        found = {"node": node.entry(rows), "adapters": adapters, "serves": node.serves, "rollout": part.rollout}
        return {**result, "changed": False, **found}

    def _variable(self, name: str, variables: dict[str, t.Any]) -> t.Any:
        """Return a variable of the host, None if it is not set."""
        try:
            return as_json(self._templar.template(variables.get(name)))
        except AnsibleUndefinedVariable:
            return None

    @staticmethod
    def _check_rows(adapters: list[t.Any], agent: str | None) -> list[Finding]:
        """What is wrong with the rows of this node. Most nodes have the rows of others."""
        found = once_a_run("rows", [adapters, agent], lambda: [vars(finding) for finding in check_rows(adapters, agent)])
        return check_rows(adapters, agent) if found is None else [Finding(**finding) for finding in found]

    def _agents(self, node: Node, variables: dict[str, t.Any]) -> dict[str, list[str]]:
        """The variants of all agents, of the inventory and of this node."""

        def of_inventory() -> dict[str, list[str]]:
            evaluated: dict[str, t.Any] = {}
            names = variables["groups"]["all"]
            hosts = (HostVariables.of(name, variables["hostvars"], self._templar, evaluated) for name in names)
            return variants_of(rows_with_agents(host.get("agent_adapters"), host.get("agent_name")) for host in hosts)

        agents = {agent: list(variants) for agent, variants in (once_a_run("agents", None, of_inventory) or {}).items()}
        for agent, variants in agents_of(node.rows).items():
            agents.setdefault(agent, []).extend(variants)
        return agents
