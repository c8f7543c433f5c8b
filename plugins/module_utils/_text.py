# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Values of any length as they may stand in a message."""

from __future__ import annotations

import typing as t


def cut(text: str, length: int = 160) -> str:
    """C(text), or its beginning when it is longer than C(length)."""
    return text if len(text) <= length else f"{text[:length]}..."


def first(items: t.Iterable[str]) -> str:
    """The first three items, and how many more there are."""
    known = list(items)
    return ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")


def count(number: int, what: str) -> str:
    """C(1 tensor), C(2 tensors)."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
