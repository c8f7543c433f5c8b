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


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        if self._task.delegate_to is None:
            return {**result, **self._ask(task_vars)}
        # Another task, also of the same words, asks anew. All workers of a run share that directory, which no other run has.
        asked = json.dumps([self._task._uuid, self._task.delegate_to, self._task.args], sort_keys=True)
        answer = os.path.join(C.DEFAULT_LOCAL_TMP, f"adapter_info.{hashlib.sha256(asked.encode()).hexdigest()}")
        with open(answer, "a+b") as file:
            # Whoever comes second waits for the first one's answer.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if os.fstat(file.fileno()).st_size:
                # It was written below, and by nobody else.
                return {**result, **pickle.load(file)}  # noqa: S301
            found = self._ask(task_vars)
            if not found.get("failed"):
                pickle.dump(found, file)
        return {**result, **found}

    def _ask(self, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        found: dict[str, t.Any] = self._execute_module(module_name="lorafleet.delivery.adapter_info", task_vars=task_vars)
        return found
