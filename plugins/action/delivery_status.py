# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes the delivery status on the controller, from what the nodes' tasks have registered so far."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import tempfile
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._status import (
    NOT_REACHED,
    STEPS,
    as_json,
    as_markdown,
    collect,
    with_written,
)


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, arguments = self.validate_argument_spec(
            argument_spec={
                "directory": {"type": "path", "required": True},
                "training_host": {"type": "str", "required": True},
            }
        )
        variables = task_vars or {}
        hostvars, training_host = variables["hostvars"], arguments["training_host"]
        if training_host not in hostvars:
            # The role asks this first of all, so that no later step has to say it less well.
            raise AnsibleActionFail(
                f"agent_training_host: is {training_host!r}, which is no host of the inventory."
                " Set it to the training server's name there, or put that host into the group training."
            )
        directory = os.path.abspath(arguments["directory"])
        files = [os.path.join(directory, name) for name in ("STATUS.md", "status.json")]
        # A report about the nodes is no change of them, so that a run with nothing to do still says changed=0.
        result.update(changed=False, files=files)
        if self._task.check_mode:
            return result
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, ".lock"), "w", encoding="utf-8") as lock:
            # Every node's task writes the whole.
            fcntl.flock(lock, fcntl.LOCK_EX)
            # All workers of a run share that directory, which no other run has.
            run = os.path.basename(C.DEFAULT_LOCAL_TMP)
            written = _written(files[1], run)
            if written and not any(step in variables for step in STEPS):
                # The first node to begin has emptied the boxes of all.
                return result
            told = {row["node"] for row in written if row["result"] != NOT_REACHED} - {variables["inventory_hostname"]}
            nodes = [node for node in variables["groups"]["agents"] if node not in told]
            rows = with_written(collect(hostvars, nodes, training_host), written)
            generated = datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds")
            address = str(hostvars[training_host].get("ansible_host", training_host))
            _replace(files[0], as_markdown(rows, generated, training_host, address))
            _replace(files[1], json.dumps(as_json(rows, run, generated, training_host), indent=1) + "\n")
        return result


def _written(path: str, run: str) -> list[dict[str, t.Any]]:
    """What other tasks of the same run have written already."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return []
    return found["adapters"] if isinstance(found, dict) and found.get("run") == run else []


def _replace(path: str, text: str) -> None:
    """Replace a file in one step, so that whoever reads it sees the old or the new one whole."""
    with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False, encoding="utf-8") as stream:
        stream.write(text)
        os.fchmod(stream.fileno(), 0o644)
    os.replace(stream.name, path)
