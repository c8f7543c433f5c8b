# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of adapter_sync: asks the node what it lacks, moves that, and has the node judge what arrived."""

from __future__ import annotations

import os
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._relay import End, Outcome, transfer, why
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._ssh import OPTIONS

display = Display()

_MODULE = "lorafleet.delivery.adapter_sync"


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        plan = self._phase("plan", variables)
        if plan.get("failed") or self._task.check_mode:
            return {**result, **_public(plan)}
        outcomes: list[Outcome] = []
        try:
            for adapter in plan["adapters"]:
                if adapter["sent"]:
                    outcomes.append(self._send(adapter, variables))
        except DeliveryError as exc:
            return {**result, "failed": True, "msg": str(exc), "problems": exc.to_json()}
        # Also where nothing was lacking: an earlier run may have ended between the transfer and this.
        if not all(adapter["stored"] for adapter in plan["adapters"]):
            settled = self._phase("settle", variables)
            if settled.get("failed"):
                return {**result, **_public(settled)}
        result.update(_public(plan))
        if outcomes:
            result["wire_bytes"] = sum(outcome.received for outcome in outcomes)
            result["commands"] = [command for outcome in outcomes for command in outcome.commands]
        return result

    def _phase(self, phase: str, variables: dict[str, t.Any]) -> dict[str, t.Any]:
        """Run the module of the same name on the node."""
        arguments = {**self._task.args, "phase": phase, "transfer_uid": self._transfer_uid()}
        found: dict[str, t.Any] = self._execute_module(
            module_name=_MODULE, module_args=arguments, task_vars=variables
        )
        return found

    def _transfer_uid(self) -> int | None:
        """The user that Ansible connects to the node as, where that is not the one that modules run as."""
        if not self._play_context.become:
            return None
        answer = self._low_level_execute_command("id -u", sudoable=False)
        return int(answer["stdout"].split()[-1])

    def _send(self, adapter: dict[str, t.Any], variables: dict[str, t.Any]) -> Outcome:
        """Move one adapter's missing files, going on after a broken connection. Raises DeliveryError when it cannot be done."""
        source = str(self._task.args["source"])
        node = variables["inventory_hostname"]
        timeout = int(self._task.args.get("transfer_timeout", 60))
        directory = os.path.join(str(self._task.args["source_models_dir"]), adapter["name"])
        ends = (self._source_end(source, variables), _end(node, self._connection))
        failed: list[Outcome] = []
        for _try in range(int(self._task.args.get("transfer_tries", 3))):
            display.vv(f"{adapter['name']}: {adapter['sent_bytes']} bytes from {source}", host=node)
            outcome = transfer(*ends, adapter["sent"], ends[0].path(directory), adapter["staging"], timeout)
            if outcome.returncode == 0:
                return outcome
            failed.append(outcome)
            display.v(f"{adapter['name']}: {outcome.reason(timeout)}", host=node)
            if not outcome.passing:
                break
        raise DeliveryError.of(
            adapter["name"],
            f"could not be brought from {source}:{directory} to {node}: {why(failed, timeout)}.",
            "What had arrived is kept; run again to go on from there. What is served was not touched.",
        )

    def _source_end(self, source: str, variables: dict[str, t.Any]) -> End:
        """The end at the source, with its connection's options as Ansible would have them for a task on that host."""
        if source not in variables["hostvars"]:
            raise AnsibleActionFail(f"source {source!r} is no host of the inventory")
        of_source = variables["hostvars"][source]
        connection = connection_loader.get(
            of_source.get("ansible_connection", C.DEFAULT_TRANSPORT), self._play_context, os.devnull
        )
        if connection is None:
            raise AnsibleActionFail(f"{source}: connection plugin {of_source.get('ansible_connection')} does not exist")
        names = C.config.get_plugin_vars("connection", connection._load_name)
        connection.set_options(var_options={name: of_source[name] for name in names if name in of_source})
        return _end(source, connection)


def _end(host: str, connection: t.Any) -> End:
    """The end of a transfer at a host. Raises AnsibleActionFail for a connection that no rsync can pass through."""
    if connection.transport == "local":
        return End(None)
    if connection.transport != "ssh":
        raise AnsibleActionFail(
            f"{host}: adapters cannot be sent over connection {connection.transport!r}; use ssh or local"
        )
    return End({option: connection.get_option(option) for option in OPTIONS})


def _public(found: dict[str, t.Any]) -> dict[str, t.Any]:
    """A module's result without what only this action needs."""
    adapters = [
        {key: value for key, value in adapter.items() if key != "staging"} for adapter in found.get("adapters", ())
    ]
    public = {key: value for key, value in found.items() if key not in ("invocation", "adapters")}
    return {**public, "adapters": adapters} if "adapters" in found else public
