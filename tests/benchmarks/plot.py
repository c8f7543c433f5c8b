# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Draw the figures of docs/benchmarks.json.

docs/benchmarks.svg has durations relative to the first row of a table, docs/ways.svg has how the
ways of transfer grow with the number of nodes.
"""

from __future__ import annotations

import json
import pathlib
import textwrap
import typing as t

import matplotlib

matplotlib.use("svg")
# Reproducible output, and text that can be searched.
matplotlib.rcParams.update({"svg.hashsalt": "lorafleet", "svg.fonttype": "none", "font.size": 9})
from matplotlib import pyplot  # noqa: E402

# The title of the table that bench_ways.py writes, and the lines of its ways.
WAYS = "Ways of transfer"
_LINES = (("o--", "#9aa5b1"), ("s-", "#2563eb"), ("^:", "#7c3aed"), ("D-", "#d97706"), ("v-", "#059669"))

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    tables = json.loads((DOCS / "benchmarks.json").read_text(encoding="utf-8"))
    _durations([table for table in tables if "seconds" in table["rows"][0]])
    for table in tables:
        if table["title"] == WAYS:
            _ways(table["rows"])


def _durations(timed: list[dict[str, t.Any]]) -> None:
    rows = [len(table["rows"]) for table in timed]
    figure, axes = pyplot.subplots(len(timed), figsize=(9, sum(rows) * 0.45 + len(rows) * 0.8), height_ratios=rows, squeeze=False)
    for table, (axis,) in zip(timed, axes):
        names = [textwrap.fill(row["what"], 44) for row in table["rows"]]
        ratios = [row["ratio"] for row in table["rows"]]
        bars = axis.barh(names, ratios, color=["#9aa5b1", *["#2563eb"] * (len(names) - 1)])
        labels = [f"{row['ratio']:.2f} ({row['seconds']:.1f} s)" for row in table["rows"]]
        axis.bar_label(bars, labels, padding=3)
        axis.set_xlim(0, max(ratios) * 1.3)
        axis.set_title(textwrap.fill(table["title"], 70), loc="left", fontsize=9, fontweight="bold")
        axis.invert_yaxis()
        axis.xaxis.set_visible(False)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(DOCS / "benchmarks.svg", metadata={"Date": None})


def _ways(rows: list[dict[str, t.Any]]) -> None:
    figure, axis = pyplot.subplots(figsize=(7, 4.5))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    for way, (style, colour) in zip(ways, _LINES):
        points = [(row["nodes"], row["to all"]) for row in rows if row["way"] == way]
        axis.plot(*zip(*points), style, color=colour, label=way)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter("{x:g}")
    axis.set_xticks(sorted({row["nodes"] for row in rows}))
    axis.set_xlabel("nodes")
    axis.set_ylabel("time until all nodes have the adapter, in copies over a link")
    axis.grid(color="#e5e7eb")
    axis.legend(frameon=False, loc="upper left")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(DOCS / "ways.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
