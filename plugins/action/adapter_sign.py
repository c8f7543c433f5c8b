# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signs statements about described releases on the controller. Contacts no host."""

from __future__ import annotations

import datetime
import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_signatures import check_version
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import time_text
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.words import RENEW_DAYS
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import failed
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._kept_manifests import text_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.controller_check import trust_in
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.signing import UNCHANGED, Proposal, propose, sign

_OPTIONS: dict[str, t.Any] = {
    "manifests": {"type": "list", "elements": "str", "required": True},
    "signatures": {"type": "str", "required": True},
    "trust": {"type": "str", "required": True},
    "key": {"type": "str", "required": True, "no_log": False},
    "openssf_key": {"type": "str", "default": "", "no_log": False},
    "days": {"type": "int", "default": 90},
    "renew_days": {"type": "int", "default": RENEW_DAYS},
}


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(_OPTIONS)
        try:
            return {**result, **_sign_all(options, self._task.check_mode)}
        except DeliveryError as exc:
            return {**result, **failed(*exc.problems)}


def _sign_all(options: dict[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Sign what is not signed. In check mode, only say what would be. Raises DeliveryError."""
    _check(options)
    check_version()
    directory, trust = os.path.expanduser(options["signatures"]), trust_in(options["trust"])
    now = datetime.datetime.now(tz=datetime.timezone.utc).replace(microsecond=0)
    manifests = [Manifest.from_text(text_of(manifest)) for manifest in options["manifests"]]
    # All of them before the first one is signed.
    times = now, options["days"], options["renew_days"]
    proposals = [propose(manifest, directory, trust, *times, options["key"], options["openssf_key"]) for manifest in manifests]
    adapters = []
    for proposal in proposals:
        signs = proposal.action != UNCHANGED and not check_mode
        signer = sign(proposal, options["key"], trust, now, options["openssf_key"]) if signs else None
        adapters.append({**_entry(proposal), "signer": signer})
    return {
        "changed": any(proposal.action != UNCHANGED for proposal in proposals),
        "adapters": adapters,
        "summary": [line for proposal in proposals for line in proposal.summary()],
    }


def _check(options: dict[str, t.Any]) -> None:
    for name in ("signatures", "trust", "key"):
        if not options[name]:
            raise DeliveryError.of(name, "is empty.", "Set it as docs/signing.md shows.")
    if not 0 <= options["renew_days"] < options["days"] <= 3650:
        problem = f"is {options['days']}, with {options['renew_days']} as renew_days."
        raise DeliveryError.of("days", problem, "Set it to at most 3650, and to more than renew_days.")


def _entry(proposal: Proposal) -> dict[str, t.Any]:
    statement = proposal.statement
    return {
        "name": statement.adapter,
        "release": statement.release,
        "action": proposal.action,
        "serial": statement.serial,
        "expires": time_text(statement.expires),
        "path": proposal.files.text,
    }
