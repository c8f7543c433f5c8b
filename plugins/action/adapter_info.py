# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of adapter_info: one call of the module serves all nodes of a task."""

from __future__ import annotations

import typing as t

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import ContactAction, failed, host_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.offers import check_offers
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._kept_manifests import keep, record_source
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._once import once_a_run

# Ansible displays them for the node that called the module.
_NOT_SHARED = ("warnings",)


class ActionModule(ContactAction):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        source = self._task.delegate_to
        # Checked before Ansible tries to connect. A separate task for this check would take time on
        # every node.
        if source is not None and source not in (task_vars or {})["hostvars"]:
            problem = f"is {source!r}, which is not a host in the inventory."
            remedy = "Set it to the training server's name there (agent_training_host, or the group training)."
            return {**result, **failed(Problem("delegate_to", problem, remedy))}
        if source is None:
            return {**result, **self._call(task_vars)}
        own: dict[str, t.Any] = {}

        def call() -> dict[str, t.Any] | None:
            own.update(self._call(task_vars))
            return None if own.get("failed") else {key: value for key, value in own.items() if key not in _NOT_SHARED}

        # Each task calls the module again, even with equal arguments.
        shared = once_a_run("adapter_info", [self._task._uuid, source, self._task.args], call)
        # If the first call failed, the other nodes call the module themselves, all at the same
        # time. So they wait only once for a host that is down.
        return {**result, **(own or shared or self._call(task_vars))}

    def _call(self, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        result = self._execute_module(module_name="lorafleet.delivery.adapter_info", task_vars=task_vars)
        host, manifests = host_of(self, task_vars or {}), result.get("manifests", ())
        try:
            check_offers(host, self._task.args, manifests)
        except DeliveryError as exc:
            return failed(*exc.problems)
        record_source(manifests, host)
        if boolean(self._task.args.get("by_reference", False), strict=False) and "manifests" in result:
            result["manifests"] = [keep(text) for text in manifests]
        return result
