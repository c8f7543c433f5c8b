# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Timestamps in the files and results of the collection."""

from __future__ import annotations

import datetime


def now() -> str:
    """Return the current time in ISO 8601, in UTC and whole seconds."""
    return datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds")
