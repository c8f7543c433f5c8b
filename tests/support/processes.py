# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits for what other processes do, and tells whether they have ended."""

from __future__ import annotations

import pathlib
import time
import typing as t

# Seconds.
_LIMIT = 30


def wait_for(what: t.Callable[[], bool]) -> None:
    """Wait until ``what`` is true. Raises AssertionError after half a minute."""
    deadline = time.monotonic() + _LIMIT
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether a process has not ended, whether or not somebody has waited for it."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
