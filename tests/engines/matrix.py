# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judges the answers of engines by PEFT's, prints the matrix, and compares it with the rules."""

from __future__ import annotations

import dataclasses
import math
import typing as t

# The largest difference from PEFT of a right answer. The drivers let their engines compute in
# float32, where right ones are within 3e-4.
BOUND = 1e-3
RIGHT, REFUSED, WRONG = "right", "refused", "wrong"


@dataclasses.dataclass(frozen=True)
class Cell:
    """What an engine made of one question. ``distance`` is the largest difference from PEFT."""

    state: str
    distance: float | None = None
    message: str = ""

    def __str__(self) -> str:
        if self.state == REFUSED:
            return "refused"
        return f"{'WRONG' if self.state == WRONG else 'right'} {self.distance:.2g}"


def judged(line: dict[str, t.Any], expected: t.Callable[[int, int], float]) -> Cell:
    """Judge a line of ``drive``. ``expected`` is PEFT's log-probability of (position, token)."""
    if "refused" in line:
        return Cell(REFUSED, message=line["refused"])
    differences = [abs(value - expected(position, token)) for position, token, value in line["answers"]]
    # NaN is not within the bound, but max() may skip it.
    right = bool(differences) and all(difference <= BOUND for difference in differences)
    return Cell(RIGHT if right else WRONG, max(differences, default=math.nan))


def contradiction(cell: Cell, verdict: t.Any) -> str:
    """Return how a cell contradicts the verdict of the rules, otherwise nothing."""
    if verdict.state not in (RIGHT, REFUSED, WRONG) or verdict.state == cell.state:
        return ""
    return f"the rule says {verdict.state} ({verdict.message}), found {cell} {cell.message}".rstrip()


def stale(cell: Cell, answer: t.Any) -> str:
    """Return how the answer after a change of adapters contradicts the rule about it, or nothing.

    Rules about stale answers name conditions, so that a right one does not contradict them.
    """
    if answer.state not in (RIGHT, REFUSED) or cell.state == answer.state:
        return ""
    return f"the rule says {answer.state}, found {cell} {cell.message}".rstrip()


def table(columns: list[str], rows: dict[str, list[str]]) -> str:
    """Return a Markdown table, aligned."""
    lines = [["kind", *columns], *([name, *cells] for name, cells in rows.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)
