# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The report as plain text at the end of a run: a table, notes, and a sentence for each failure."""

from __future__ import annotations

import collections
import collections.abc as c

from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules.form import RIGHT
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.words import line_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import count, first

from .model import NOT_SELECTED, adapters_of
from .run import Data
from .words import device, grouped, sentence, state_words

_HEADER = ("agent", "node", "adapter", "release", "result", "level and device", "seconds")
# More failures of one adapter would bury those of the others. The files list all of them.
_MOST_OF_ONE = 5
_MOST_NOTES = 10


def as_table(report: Data, width: int | None = None) -> list[tuple[str, str]]:
    """Return the lines of the table, each with the state of its adapter.

    The state of the header is empty. When the table does not fit ``width``, the terminal's, each
    adapter gets a few short lines instead.
    """
    rows: list[tuple[str, tuple[str, ...]]] = []
    timed: set[str] = set()
    for node, adapter in adapters_of(report):
        if adapter["state"] == NOT_SELECTED:
            continue
        # The steps handle all adapters of a node together, so the seconds belong to the node.
        seconds = f"{sum(node['seconds'].values()):.1f}" if node["seconds"] and node["node"] not in timed else ""
        timed.add(node["node"])
        rows.append(
            (
                adapter["state"],
                (
                    adapter["agent"],
                    node["node"],
                    adapter["name"],
                    adapter["release"] or "",
                    state_words(adapter["state"], report["check_mode"]),
                    " on ".join(filter(None, ((adapter["test"] or {}).get("level"), device(adapter)))),
                    seconds,
                ),
            )
        )
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(_HEADER, *(cells for _state, cells in rows))]
    if width is not None and sum(widths) + 2 * len(widths) - 2 > width:
        return [line for state, cells in rows for line in _stacked(state, cells)]
    return [(_aligned(cells, widths), state) for state, cells in [("", _HEADER), *rows]]


def _aligned(cells: c.Sequence[str], widths: c.Sequence[int]) -> str:
    *texts, seconds = (cell.ljust(width) for cell, width in zip(cells, widths))
    return "  ".join([*texts, seconds.strip().rjust(widths[-1])]).rstrip()


def _stacked(state: str, cells: c.Sequence[str]) -> list[tuple[str, str]]:
    """Return the lines of an adapter on a narrow terminal: node, adapter, and the rest."""
    agent, node, adapter, *rest = cells
    seconds = rest.pop()
    lines = [f"{agent} {node}", f"  {adapter}", "    " + ", ".join(filter(None, [*rest, seconds and f"{seconds} s"]))]
    return [(line, state) for line in lines]


def note_lines(report: Data) -> list[str]:
    """Return the notes of load tests and about engines, each once for all nodes that have it.

    What holds an adapter back is among the failures.
    """
    nodes: dict[str, dict[str, None]] = {}
    for node, adapter in adapters_of(report):
        test = adapter["test"] or {}
        notes = [] if test.get("from_receipt") else list(test.get("notes") or ())
        notes += [
            f"{line_of(verdict)} {verdict['remedy']}".rstrip()
            for verdict in adapter["engines"]
            if verdict["state"] != RIGHT and not (verdict["held_back"] and report["kind"] == "deploy")
        ]
        for note in (*notes, *adapter["engine_notes"]):
            nodes.setdefault(f"adapter {adapter['name']}: {note}", {})[node["node"]] = None
    lines = [f"note: {first(names)}: {words}" for words, names in nodes.items()]
    more = len(lines) - _MOST_NOTES
    return [*lines[:_MOST_NOTES], *([f"note: {count(more, 'more note')} in report.json."] if more > 0 else [])]


def failure_lines(report: Data) -> list[str]:
    """Return a sentence for each failure, with the remedy."""
    counts: collections.Counter[tuple[str | None, str | None, str]] = collections.Counter()
    shown = []
    for failure in report["failures"]:
        about = (failure["node"], failure["adapter"], failure["step"])
        counts[about] += 1
        if counts[about] <= _MOST_OF_ONE or failure["node"] is None:
            shown.append(failure)
    # Only a line of this report begins in the first column.
    lines = [": ".join(filter(None, (place, sentence(failure)))).replace("\n", "\n  ") for place, failure in grouped(shown)]
    lines += [
        f"{node}: {adapter or step}: {number - _MOST_OF_ONE} more of this kind, all in report.json."
        for (node, adapter, step), number in counts.items()
        if number > _MOST_OF_ONE and node is not None
    ]
    return lines
