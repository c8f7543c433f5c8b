# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The levels of the load test."""

from __future__ import annotations

# Each level includes all levels before it.
LEVELS = ("structure", "adapter", "model", "golden")


def reaches(level: str, required: str) -> bool:
    """Return whether ``level`` is ``required`` or includes it."""
    return LEVELS.index(level) >= LEVELS.index(required)
