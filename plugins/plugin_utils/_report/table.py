# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The report as plain text at the end of a run: a table, notes, and a sentence for each failure."""

from __future__ import annotations

import collections
import collections.abc as c
import datetime
import statistics

from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules.form import RIGHT
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.words import line_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.desired import SERVED
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.words import expiry_note
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import UNCHANGED
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import count

from .._node_names import listed
from .alike import cell_of, is_large, span, together, wrapped
from .model import adapters_of
from .run import Data
from .states import NOT_SELECTED
from .waves import PASSED, wave_words
from .words import device, grouped, sentence, state_words

_HEADER = ("agent", "node", "adapter", "release", "result", "level and device", "seconds")
# How many of the slowest nodes are named.
_SLOWEST = 5
# More failures of one adapter would bury those of the others. The files list all of them.
_MOST_OF_ONE = 5
_MOST_NOTES = 10


def as_table(report: Data, width: int | None = None) -> list[tuple[str, str]]:
    """Return the lines of the table, each with the state of its adapter.

    The state of the header is empty. When the table does not fit ``width``, the terminal's, each
    adapter gets a few short lines instead. Nodes with equal lines share one, and a long list of
    them is below it.
    """

    def shown(pair: tuple[Data, Data]) -> tuple[str, ...]:
        _node, adapter = pair
        result = state_words(adapter["state"], report["check_mode"])
        tested = " on ".join(filter(None, ((adapter["test"] or {}).get("level"), device(adapter))))
        return adapter["agent"], adapter["name"], adapter["release"] or "", result, tested

    covered = [pair for pair in adapters_of(report) if pair[1]["state"] != NOT_SELECTED]
    rows: list[tuple[str, tuple[str, ...], str]] = []
    timed: set[str] = set()
    for alike in together(report, covered, shown):
        names = [node["node"] for node, _adapter in alike]
        # The steps handle all adapters of a node together, so the seconds belong to the node.
        untimed = {node["node"]: node for node, _adapter in alike if node["seconds"] and node["node"] not in timed}
        timed.update(untimed)
        seconds = span((sum(node["seconds"].values()) for node in untimed.values()), "{:.1f}".format)
        agent, *rest = shown(alike[0])
        place, below = cell_of(names, "node")
        rows.append((alike[0][1]["state"], (agent, place, *rest, seconds), below))
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(_HEADER, *(cells for _state, cells, _below in rows))]
    fits = width is None or sum(widths) + 2 * len(widths) - 2 <= width
    lines = [(_aligned(_HEADER, widths), "")] if fits else []
    for state, cells, below in rows:
        texts = [_aligned(cells, widths)] if fits else _stacked(cells)
        lines += [(text, state) for text in (*texts, *wrapped(below, width))]
    return lines


def duration_lines(report: Data) -> list[str]:
    """Return a line about the slowest nodes of a large report."""
    seconds = {node["node"]: sum(node["seconds"].values()) for node in report["nodes"] if node["seconds"]}
    if not is_large(report) or not seconds:
        return []
    usual = statistics.median_high(seconds.values())
    slowest = [f"{node} {seconds[node]:.1f} s" for node in sorted(seconds, key=lambda node: -seconds[node])[:_SLOWEST]]
    return [f"Half of {len(seconds)} nodes took at most {usual:.1f} s. The slowest: {', '.join(slowest)}."]


def _aligned(cells: c.Sequence[str], widths: c.Sequence[int]) -> str:
    *texts, seconds = (cell.ljust(width) for cell, width in zip(cells, widths))
    return "  ".join([*texts, seconds.strip().rjust(widths[-1])]).rstrip()


def _stacked(cells: c.Sequence[str]) -> list[str]:
    """Return the lines of an adapter on a narrow terminal: node, adapter, and the rest."""
    agent, node, adapter, *rest = cells
    seconds = rest.pop()
    return [f"{agent} {node}", f"  {adapter}", "    " + ", ".join(filter(None, [*rest, seconds and f"{seconds} s"]))]


def note_lines(report: Data) -> list[str]:
    """Return the notes of load tests and about engines, and on statements that are about to expire.

    Each is there once for all nodes that have it. What blocks an adapter is among the failures.
    """
    nodes: dict[str, dict[str, None]] = {}
    # How many notes a node has before this one.
    places: dict[str, int] = {}
    numbers: collections.Counter[str] = collections.Counter()
    for node, adapter in adapters_of(report):
        test = adapter["test"] or {}
        notes = [] if test.get("from_receipt") else list(test.get("notes") or ())
        notes += [
            f"{line_of(verdict)} {verdict['remedy']}".rstrip()
            for verdict in adapter["engines"]
            if verdict["state"] != RIGHT and not (verdict["held_back"] and report["kind"] == "deploy")
        ]
        notes += [
            f"engine {one['engine']} at {one['url']}: {one['state']}: {one['why']}".rstrip(": ")
            for one in adapter["serving"]
            if one["state"] != SERVED
        ]
        expiry = expiry_note(adapter.get("signed"), datetime.datetime.fromisoformat(report["started"]))
        for note in (*notes, *adapter["engine_notes"], *([expiry] if expiry else [])):
            words = f"adapter {adapter['name']}: {note}"
            nodes.setdefault(words, {})[node["node"]] = None
            places[words] = min(numbers[node["node"]], places.get(words, numbers[node["node"]]))
            numbers[node["node"]] += 1
    more = len(nodes) - _MOST_NOTES
    # Of too many, the first ones of each node: a node must not crowd out what others say.
    chosen = sorted(nodes, key=lambda words: places[words]) if more > 0 else list(nodes)
    lines = [f"note: {listed(nodes[words])}: {words}" for words in chosen]
    return [*lines[:_MOST_NOTES], *([f"note: {count(more, 'more note')} in report.json."] if more > 0 else [])]


def wave_lines(report: Data) -> list[tuple[str, str]]:
    """Return a line for each wave of a rollout, each with a state of the same colour."""
    header = ("agent", "wave", "nodes", "result")
    rows = [
        (entry["agent"], f"{entry['wave']}/{entry['waves']}", listed(entry["nodes"]), wave_words(entry))
        for entry in report.get("rollout") or ()
    ]
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    states = ["", *(UNCHANGED if entry["result"] == PASSED else entry["result"] for entry in report["rollout"])]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip() for cells in (header, *rows)]
    return list(zip(lines, states))


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
    hidden: dict[tuple[str, int], list[str]] = {}
    for (node, adapter, step), number in counts.items():
        if number > _MOST_OF_ONE and node is not None:
            hidden.setdefault((adapter or step, number - _MOST_OF_ONE), []).append(node)
    lines += [
        f"{listed(nodes)}: {what}: {number} more of this kind{' each' if len(nodes) > 1 else ''}, all in report.json."
        for (what, number), nodes in hidden.items()
    ]
    return lines
