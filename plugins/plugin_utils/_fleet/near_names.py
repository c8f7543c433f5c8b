# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Finds the known variable that somebody meant who wrote another name."""

from __future__ import annotations

import collections.abc as c

# Up to this length of a variable's name after its prefix, one edit is a near miss, above it two.
_SHORT = 7


def meant_variable(name: str, known: c.Collection[str], is_set: c.Collection[str]) -> str | None:
    """Return the known variable that an unknown one is a near miss of, if any.

    The same letters and digits are always a near miss. One or two edits are one only if the known
    variable is not among those that are set: people's own variables may have similar names.
    """
    if name in known:
        return None
    same = next((other for other in sorted(known) if _letters(other) == _letters(name)), None)
    if same:
        return same
    near = [
        (edits(name, other), other)
        for other in sorted(known)
        if other not in is_set and abs(len(other) - len(name)) <= 2 and edits(name, other) <= _most_edits(other)
    ]
    return min(near)[1] if near else None


def edits(one: str, other: str) -> int:
    """Return how many letters to insert, delete, replace or swap with their neighbour."""
    above: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, above, row = above, row, [i]
        for j, wanted in enumerate(other, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != wanted)))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                row[j] = min(row[j], before[j - 2] + 1)
    return row[-1]


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _most_edits(name: str) -> int:
    return 1 if len(name.partition("_")[2]) <= _SHORT else 2
