# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of adapter_info: what one task asks of one host for several nodes is asked once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import typing as t

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

# Stands where the answer will, for as long as there is none.
_ASKED = b"asked"


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        asked = self._task.delegate_to
        # Before Ansible looks for it in the network. That this needs no task of its own counts: each costs on every node.
        if asked is not None and asked not in (task_vars or {})["hostvars"]:
            problem = f"is {asked!r}, which is no host of the inventory."
            remedy = "Set it to the training server's name there, or put that host into the group training."
            error = DeliveryError.of("agent_training_host", problem, remedy)
            return {**result, "failed": True, "msg": str(error), "problems": error.to_json()}
        answer = None if asked is None else self._asked_once(task_vars)
        # Where the first one got no answer, each asks for itself, side by side: a host that is down costs all of them one wait.
        return {**result, **(answer or self._ask(task_vars))}

    def _asked_once(self, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any] | None:
        """The answer to whichever node asked first, for which the others wait; None where that one got none."""
        # Another task, also of the same words, asks anew. All workers of a run share that directory, which no other run has.
        asked = json.dumps([self._task._uuid, self._task.delegate_to, self._task.args], sort_keys=True)
        path = os.path.join(C.DEFAULT_LOCAL_TMP, f"adapter_info.{hashlib.sha256(asked.encode()).hexdigest()}")
        with open(path, "a+b") as file:
            # It ends with its process, however that ends.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known = file.read()
            if known:
                # What is not the mark was written below, and by nobody else.
                return None if known == _ASKED else t.cast("dict[str, t.Any]", pickle.loads(known))  # noqa: S301
            file.write(_ASKED)
            file.flush()
            found = self._ask(task_vars)
            if not found.get("failed"):
                file.truncate(0)
                pickle.dump(found, file)
        return found

    def _ask(self, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        found: dict[str, t.Any] = self._execute_module(module_name="lorafleet.delivery.adapter_info", task_vars=task_vars)
        return found
