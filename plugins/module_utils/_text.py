# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Formatting values of any length and origin for messages. Part of the load test's program, too."""

from __future__ import annotations

import json
import typing as t


def cut(text: str, length: int = 160) -> str:
    """Return ``text``, or its beginning when it is longer than ``length``."""
    return text if len(text) <= length else f"{text[:length]}..."


def shown(value: t.Any) -> str:
    """Return a value from a file or an inventory as JSON on one line, cut to a readable length."""
    return cut(json.dumps(value, default=str))


def printable(text: str) -> str:
    """Return ``text`` if a terminal can show it, otherwise an ASCII form of it.

    The name of a file can be any bytes, which Python decodes to text that UTF-8 cannot encode.
    """
    return text if text.isprintable() else ascii(text)


def escaped(text: str, kept: str = "\n\t") -> str:
    """Return ``text`` with escapes for all that could control a terminal or hide text in a report.

    The control characters in ``kept`` stay.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in kept else ascii(one)[1:-1] for one in text)


def first(items: t.Iterable[str]) -> str:
    """Return the first three items and the number of the others."""
    known = list(items)
    return ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")


def count(number: int, what: str) -> str:
    """Return ``1 tensor``, ``2 tensors`` and so on."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def human_bytes(size: float) -> str:
    """Return a number of bytes in the largest decimal unit that fits: ``512 B``, ``97.3 MB``."""
    if size < 999.5:
        return f"{size:.0f} B"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"
