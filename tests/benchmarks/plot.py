# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Draw docs/benchmarks.json as docs/benchmarks.svg: durations relative to the first row."""

from __future__ import annotations

import json
import pathlib
import textwrap

import matplotlib

matplotlib.use("svg")
# Reproducible output, and text that can be searched.
matplotlib.rcParams.update({"svg.hashsalt": "lorafleet", "svg.fonttype": "none", "font.size": 9})
from matplotlib import pyplot  # noqa: E402

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    tables = json.loads((DOCS / "benchmarks.json").read_text(encoding="utf-8"))
    timed = [table for table in tables if "seconds" in table["rows"][0]]
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


if __name__ == "__main__":
    main()
