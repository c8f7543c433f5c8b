# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of adapter_info: one call of the module serves all nodes of a task."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import typing as t

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

# Ansible displays these for the node that called the module. They are objects, which JSON lacks.
_NOT_SHARED = ("warnings", "deprecations")


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        source = self._task.delegate_to
        # Checked before Ansible tries to connect. A separate task for this check would take time on
        # every node.
        if source is not None and source not in (task_vars or {})["hostvars"]:
            problem = f"is {source!r}, which is not a host in the inventory."
            remedy = "Set it to the training server's name there, or put that host into the group training."
            error = DeliveryError.of("agent_training_host", problem, remedy)
            return {**result, "failed": True, "msg": str(error), "problems": error.to_json()}
        shared = None if source is None else self._shared_result(task_vars)
        # If the first call failed, the other nodes call the module themselves, all at the same
        # time. So they wait only once for a host that is down.
        return {**result, **(shared or self._call(task_vars))}

    def _shared_result(self, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any] | None:
        """The result for the first node, which the others wait for. None if that call failed."""
        # Each task calls the module again, even with equal arguments. The directory is private to
        # the run and shared by its workers.
        call = json.dumps([self._task._uuid, self._task.delegate_to, self._task.args], sort_keys=True)
        path = os.path.join(C.DEFAULT_LOCAL_TMP, f"adapter_info.{hashlib.sha256(call.encode()).hexdigest()}")
        with open(path, "a+", encoding="utf-8") as file:
            # The lock ends with the process, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            recorded = file.read()
            if recorded:
                return t.cast("dict[str, t.Any] | None", json.loads(recorded))
            # Stays if the call fails or this process is killed.
            file.write("null")
            file.flush()
            result = self._call(task_vars)
            if not result.get("failed"):
                shared = json.dumps({key: value for key, value in result.items() if key not in _NOT_SHARED})
                file.truncate(0)
                file.write(shared)
        return result

    def _call(self, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = self._execute_module(module_name="lorafleet.delivery.adapter_info", task_vars=task_vars)
        return result
