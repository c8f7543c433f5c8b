# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of adapter_up_to_date_info: explains why it did not run.

Records that a node which is up to date has passed.
"""

from __future__ import annotations

import typing as t

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import NodeAction
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.record import record_passed


class ActionModule(NodeAction):
    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        if result.get("up_to_date") is True:
            record_passed((task_vars or {})["inventory_hostname"])
        return result
