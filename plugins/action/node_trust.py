# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of node_trust: reads the files that go to the node."""

from __future__ import annotations

import base64
import os
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import (
    POLICY_FILE,
    REVOKED_FILE,
    ROOTS_FILE,
    SIGNERS_FILE,
    SNAPSHOT_SIGNERS_FILE,
    read_trust,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import Place
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import ContactAction, failed

# The signatures of roots.
_SIGNATURE = ".sig"


class ActionModule(ContactAction):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        try:
            arguments = {**self._task.args, **_contents(os.path.expanduser(str(self._task.args.get("source") or "")))}
        except DeliveryError as exc:
            return {**result, **failed(*exc.problems)}
        module = "lorafleet.delivery.node_trust"
        return {**result, **self._execute_module(module_name=module, module_args=arguments, task_vars=task_vars)}


def _contents(directory: str) -> dict[str, t.Any]:
    """Return the files as the module takes them.

    Raises DeliveryError if no node would read them.
    """
    if not directory or read_trust(Place(directory, None)) is None:
        problem = f"is {directory!r}, which is no directory on the controller."
        raise DeliveryError.of("source", problem, "Make it as docs/signing.md shows.")
    found: dict[str, t.Any] = {
        "policy": _read(directory, POLICY_FILE).decode(),
        "allowed_signers": _read(directory, SIGNERS_FILE).decode(),
    }
    if os.path.exists(os.path.join(directory, REVOKED_FILE)):
        found["revoked_keys"] = base64.b64encode(_read(directory, REVOKED_FILE)).decode()
    for name in (ROOTS_FILE, SNAPSHOT_SIGNERS_FILE):
        if os.path.exists(os.path.join(directory, name)):
            found[name] = _read(directory, name).decode()
    # A version without roots may need those of the version before.
    names = [name for name in sorted(os.listdir(directory)) if name.endswith(_SIGNATURE)]
    found["signatures"] = {name: _read(directory, name).decode("ascii", "replace") for name in names}
    return found


def _read(directory: str, name: str) -> bytes:
    with open(os.path.join(directory, name), "rb") as stream:
        return stream.read()
