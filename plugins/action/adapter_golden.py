# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of adapter_golden: explains why it did not run."""

from __future__ import annotations

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import NodeAction


class ActionModule(NodeAction):
    pass
