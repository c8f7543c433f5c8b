# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files some code opens, also those that it reads through libraries of Python."""

from __future__ import annotations

import sys
import typing as t

_recordings: list[list[str]] = []


def _record(event: str, arguments: tuple[t.Any, ...]) -> None:
    # A number is a file that is open already.
    if event == "open" and _recordings and not isinstance(arguments[0], int):
        _recordings[-1].append(str(arguments[0]))


# Python has no way to remove a hook again.
sys.addaudithook(_record)


def opened_by(call: t.Callable[[], object]) -> list[str]:
    """Call a function, and return the paths that it opened, sorted."""
    _recordings.append([])
    try:
        call()
    finally:
        opened = _recordings.pop()
    return sorted(opened)
