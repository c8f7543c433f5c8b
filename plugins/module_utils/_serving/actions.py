# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What adapter_serve did with an adapter."""

from __future__ import annotations

SERVED_NOW, UNCHANGED, WENT_BACK, FAILED = "served", "unchanged", "went back", "failed"
ACTIONS = (SERVED_NOW, UNCHANGED, WENT_BACK, FAILED)
