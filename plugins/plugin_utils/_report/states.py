# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The states of an adapter in a report: the actions of adapter_release, and others."""

from __future__ import annotations

from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import (
    ACTIVATED,
    REPAIRED,
    ROLLED_BACK,
    UNCHANGED,
)

ACTIONS = (ACTIVATED, ROLLED_BACK, REPAIRED, UNCHANGED)
# An engine got the release, which was active already.
LOADED = "loaded"
DONE = (*ACTIONS, LOADED)
# What an audit or a status found.
AS_VERIFIED = "as_verified"
DIFFERS = "differs"
ACTIVE = "active"
MISSING = "missing"
# No module returned an adapter in these states.
FAILED = "failed"
SKIPPED = "skipped"
UNREACHABLE = "unreachable"
NOT_REACHED = "not_reached"
NOT_STARTED = "not_started"
NOT_SELECTED = "not_selected"
