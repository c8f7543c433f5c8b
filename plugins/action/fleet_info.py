# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the fleet from the inventory and checks it. Contacts no host."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet import prompts_of, variants_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.inventory import Inventory
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.rollout_plan import plan_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.rows import Row, adapters_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.selection import SPECIAL_TAGS, check_selected, select
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._node_names import listed
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._once import once_a_run
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.plan import Plan
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.record import keep_plan
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.serial import NotSerial

_OPTIONS: dict[str, t.Any] = {
    "hosts": {"type": "list", "elements": "str"},
    "runs_on": {"type": "str", "choices": ["agents", "training", "both"], "default": "agents"},
    "training": {"type": "bool", "default": False},
    "tags": {"type": "bool", "default": True},
    "rollout": {"type": "bool", "default": False},
    "other_tags": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(_OPTIONS)
        variables = task_vars or {}
        run_tags, skip_tags = (list(variables.get(name) or ()) for name in ("ansible_run_tags", "ansible_skip_tags"))
        # Tags of the role, the play and its blocks are also tags of this task.
        tags = (run_tags, skip_tags, list(self._task.tags), options["other_tags"])
        play_vars = {
            # Variables of the command line override those of the play.
            name: variables[name]
            for name in self._task.play.get_vars()
            # How this task itself runs is no matter of the nodes.
            if not name.startswith("ansible_")
        }
        host = variables["inventory_hostname"]
        server = host if host in variables["groups"].get("training", ()) else ""
        # Hosts may be added during the run. A value may have no form in JSON.
        key = [options, tags, repr(play_vars), len(variables["groups"]["all"]), server]

        def read() -> dict[str, t.Any]:
            try:
                inventory = Inventory(self._loader, self._templar, variables, play_vars)
                fleet = {"changed": False, **_fleet(inventory, options, tags, server)}
                self._warn(inventory.unknown_nodes())
                return fleet
            except DeliveryError as exc:
                return {"failed": True, "msg": str(exc), "problems": exc.to_json()}

        fleet = once_a_run("fleet_info", key, read) or read()
        if "rollout" in fleet:
            keep_plan(Plan.from_json(fleet["rollout"]))
        return {**result, **fleet}

    def _warn(self, unknown: dict[str, str]) -> None:
        """Name nodes whose adapters the role evaluates. A misspelt variable looks like a fact."""
        nodes: dict[str, list[str]] = {}
        for node, reason in unknown.items():
            nodes.setdefault(reason, []).append(node)
        for reason, names in nodes.items():
            problem = f"cannot be evaluated yet, so only role agent checks it: {reason}"
            self._display.warning(f"{listed(names)}, agent_adapters: {problem}")


def _fleet(inventory: Inventory, options: dict[str, t.Any], tags: tuple[list[str], ...], server: str) -> dict[str, t.Any]:
    """The result of the module. Raises DeliveryError with all mistakes.

    ``tags`` are those of ``select``. ``server`` is the training server on which the task runs, if
    it does.
    """
    nodes, limit, on_nodes = inventory.nodes, options["hosts"], options["runs_on"] != "training"
    agents = variants_of(node.rows for node in nodes)
    servers = inventory.groups.get("training", [])
    problems = inventory.mistakes(training=not on_nodes, deploy=options["training"])
    selected: dict[str, list[Row]] = {node.name: [] for node in nodes}
    unknown = inventory.unknown_nodes()
    other_tags = {*tags[3], *inventory.other_tags()}
    tags = (*tags[:3], sorted(other_tags))
    if not unknown:
        # For role agent. With facts, it can evaluate more.
        once_a_run("agents", None, lambda: agents)
    # Without nodes, every tag would be wrong. Otherwise a tag may name what is not known yet.
    if nodes and not unknown:
        try:
            selected = {node.name: select(node.rows, agents, *(tags if options["tags"] else ([], []))) for node in nodes}
        except DeliveryError as exc:
            problems += exc.problems
    wanted = set(tags[0]) - SPECIAL_TAGS
    if not options["tags"] and wanted - other_tags:
        problems.append(Problem("--tags", "select nothing in this playbook.", "Select nodes with --limit instead."))
    if not problems and not (wanted and wanted <= other_tags):
        # A limit to the training server alone leaves no node, but something to do.
        without_nodes = not on_nodes or (options["runs_on"] == "both" and limit is not None and set(limit) & set(servers))
        problems = check_selected(selected, None if without_nodes else limit, tags[0], tags[1], unknown)
    if not problems and not on_nodes and limit is not None and not set(limit) & set(servers):
        problems = [Problem("--limit", "does not hold the training server.", f"Name it: {', '.join(servers)}.")]
    covered = {name: rows if limit is None or name in limit else [] for name, rows in selected.items()}
    rollout = {}
    if options["rollout"]:
        problems += inventory.unplanned()
        try:
            rollout = {"rollout": plan_of(nodes, covered).to_json()}
        except DeliveryError as exc:
            problems += exc.problems
        except NotSerial:
            # The checks of all variables have found it.
            pass
    if problems:
        raise DeliveryError(*problems)
    # Nodes may have different training servers, each with its own adapters.
    offered = [node.name for node in nodes if server and node.training_host in (server, None)] or list(selected)
    first_server = next(iter(servers), "")
    return {
        "nodes": [node.entry(covered[node.name]) for node in nodes],
        "agents": agents,
        "adapters": adapters_of(row for name in offered for row in selected[name]),
        "prompts": prompts_of(nodes)[0],
        "training_server": {
            "name": first_server,
            "address": str((first_server and inventory.value(first_server, "ansible_host")) or first_server),
        },
        "training": inventory.of_fleet("lorafleet_training") or {},
        "notes": inventory.of_fleet("lorafleet_notes") or [],
        **rollout,
    }
