# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The levels of the load test, in the order of what contains what."""

from __future__ import annotations

# Each level contains the ones before it.
LEVELS = ("structure", "adapter", "model", "golden")


def reaches(level: str, required: str) -> bool:
    """True when C(level) is C(required) or contains it."""
    return LEVELS.index(level) >= LEVELS.index(required)
