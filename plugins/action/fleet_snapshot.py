# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signs the snapshot of the fleet on the controller. Contacts no host."""

from __future__ import annotations

import datetime
import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import SHORT
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_signatures import check_version
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import time_text
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import failed
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.controller_check import trust_in
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.snapshots import sign_snapshot, snapshot_of

_OPTIONS: dict[str, t.Any] = {
    "signatures": {"type": "str", "required": True},
    "trust": {"type": "str", "required": True},
    "key": {"type": "str", "required": True, "no_log": False},
}


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(_OPTIONS)
        try:
            return {**result, **_sign(options, self._task.check_mode)}
        except DeliveryError as exc:
            return {**result, **failed(*exc.problems)}


def _sign(options: dict[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Make the snapshot and sign it, in check mode only make it. Raises DeliveryError."""
    for name, value in options.items():
        if not value:
            raise DeliveryError.of(name, "is empty.", "Set it as docs/signing.md shows.")
    check_version()
    directory, trust = os.path.expanduser(options["signatures"]), trust_in(options["trust"])
    if not os.path.isdir(directory):
        raise DeliveryError.of("signatures", f"is {directory}, which is no directory.", "Sign releases with playbooks/sign.yml.")
    if not trust.snapshot_signers:
        problem = f"is {options['trust']}, which names no snapshot_signers."
        raise DeliveryError.of("trust", problem, "Add them as docs/signing.md shows.")
    now = datetime.datetime.now(tz=datetime.timezone.utc).replace(microsecond=0)
    snapshot = snapshot_of(directory, trust, now)
    return {
        "changed": True,
        "adapters": [
            {"name": name, "release": digest[:SHORT], "serial": serial}
            for name, (serial, digest) in sorted(snapshot.adapters.items())
        ],
        "issued": time_text(snapshot.issued),
        "signer": None if check_mode else sign_snapshot(snapshot, directory, options["key"], trust),
    }
