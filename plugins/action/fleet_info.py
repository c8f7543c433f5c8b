# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the fleet from the inventory and checks it. Contacts no host."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet import Node, prompts_of, variants_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.host_variables import HostVariables
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.rows import Row, adapters_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.selection import select
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._once import once_a_run


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(
            {
                "hosts": {"type": "list", "elements": "str"},
                "runs_on": {"type": "str", "choices": ["agents", "training"], "default": "agents"},
                "training": {"type": "bool", "default": False},
            }
        )

        def read() -> dict[str, t.Any]:
            try:
                return {"changed": False, **self._fleet(options, task_vars or {})}
            except DeliveryError as exc:
                return {"failed": True, "msg": str(exc), "problems": exc.to_json()}

        return {**result, **(once_a_run("fleet_info", options, read) or read())}

    def _fleet(self, options: dict[str, t.Any], variables: dict[str, t.Any]) -> dict[str, t.Any]:
        groups, hostvars = variables["groups"], variables["hostvars"]
        names = groups.get("agents", [])
        own_groups: dict[str, list[str]] = {name: [] for name in names}
        for group, hosts in groups.items():
            for name in own_groups.keys() & set(hosts):
                own_groups[name].append(group)
        nodes = [Node.of(name, own_groups[name], HostVariables.read(name, hostvars, self._templar)) for name in names]
        problems: list[Problem] = []
        agents = once_a_run("agents", None, lambda: variants_of(node.rows for node in nodes))
        tags = [list(variables.get(name) or ()) for name in ("ansible_run_tags", "ansible_skip_tags")]
        selected = {node.name: select(node.rows, agents, *tags) for node in nodes}
        prompts = prompts_of(nodes, problems)
        if problems:
            raise DeliveryError(*problems)
        rows: list[Row] = [row for node in nodes for row in selected[node.name]]
        limit = set(names if options["hosts"] is None else options["hosts"])
        server = next(iter(groups.get("training", [])), None)
        of_server = HostVariables.read(server, hostvars, self._templar) if server else None
        first = HostVariables.read(names[0], hostvars, self._templar) if names else None
        return {
            "nodes": [node.entry(selected[node.name] if node.name in limit else []) for node in nodes],
            "agents": agents,
            "adapters": adapters_of(rows),
            "prompts": prompts,
            "training_server": {"name": server, "address": str((of_server and of_server.get("ansible_host")) or server or "")},
            "training": (first and first.get("lorafleet_training")) or {},
            "notes": (first and first.get("lorafleet_notes")) or [],
        }
