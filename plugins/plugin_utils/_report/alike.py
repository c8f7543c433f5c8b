# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""What many nodes of a report have in common, so that people read it once.

Nodes are alike if all that is shown about them is equal, and what is shown of them names each one.
So no node can hide another by an answer like that of others.
"""

from __future__ import annotations

import collections.abc as c
import textwrap
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._text import count

from .._node_names import listed
from .run import Data

# A report of up to this many nodes shows them one by one.
MOST_ONE_BY_ONE = 10
# A longer list of names does not fit into a column of a table.
_LONGEST_IN_COLUMN = 30

Item = t.TypeVar("Item")
Value = t.TypeVar("Value", int, float, str)


def is_large(report: Data) -> bool:
    """Return whether a report shows nodes that are alike together."""
    return len(report["nodes"]) > MOST_ONE_BY_ONE


def together(report: Data, items: c.Iterable[Item], key: c.Callable[[Item], c.Hashable]) -> list[list[Item]]:
    """Return the items in lists of those with the same key, in the order of their first ones.

    In a small report, each item is a list of its own.
    """
    if not is_large(report):
        return [[item] for item in items]
    found: dict[c.Hashable, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())


def span(values: c.Iterable[Value | None], words: c.Callable[[Value], str] = str) -> str:
    """Return the lowest and the highest value in words, or the only one, or nothing."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    lowest, highest = words(known[0]), words(known[-1])
    return lowest if lowest == highest else f"{lowest} to {highest}"


def cell_of(names: c.Collection[str], what: str) -> tuple[str, str]:
    """Return the text for a column of a table, and the list of names that belongs below its line.

    Unless the list is too long, it is in the column, and nothing is below the line. Otherwise the
    column has the number of names; ``what`` says of what.
    """
    text = listed(names)
    return (text, "") if len(names) == 1 or len(text) <= _LONGEST_IN_COLUMN else (count(len(names), what), text)


def wrapped(text: str, width: int | None) -> list[str]:
    """Return the lines of a list that is below the line of a table on a terminal of this width."""
    return textwrap.wrap(text, width or 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
