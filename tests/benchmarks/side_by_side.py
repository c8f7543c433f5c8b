# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure actions in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import time
import typing as t

# The results of `make bench`, one table per title:
# [{"title": ..., "rows": [{COLUMN: value, ...}, ...]}, ...].
RESULTS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "benchmarks.json"


class Cost(t.NamedTuple):
    """Wall-clock seconds, and CPU seconds of this process and its children on all cores."""

    wall: float
    cpu: float


@dataclasses.dataclass(frozen=True)
class Action:
    """What is measured, and a preparation before each turn, which is not."""

    run: t.Callable[[], object]
    before: t.Callable[[], object] = lambda: None


def _cost(action: Action) -> Cost:
    action.before()
    wall, before = time.monotonic(), os.times()
    action.run()
    after = os.times()
    return Cost(time.monotonic() - wall, sum(after[:4]) - sum(before[:4]))


def measure(title: str, actions: dict[str, Action], rounds: int) -> None:
    """Show the lowest cost of each action in ``rounds`` turns, and its ratio to the first one."""
    costs: dict[str, list[Cost]] = {name: [] for name in actions}
    for _round in range(rounds):
        for name, action in actions.items():
            costs[name].append(_cost(action))
    best = {name: Cost(min(one.wall for one in all_), min(one.cpu for one in all_)) for name, all_ in costs.items()}
    plain = next(iter(best.values()))
    show(
        title,
        [
            {
                "what": name,
                "seconds": cost.wall,
                "ratio": cost.wall / plain.wall,
                "CPU seconds": cost.cpu,
                "CPU ratio": cost.cpu / plain.cpu,
            }
            for name, cost in best.items()
        ],
    )


def show(title: str, rows: list[dict[str, t.Any]], record: bool = True) -> None:
    """Print rows with equal keys as a Markdown table, and add them to RESULTS if ``record``."""
    print(f"\n{title}\n\n| {' | '.join(rows[0])} |\n|{' --- |' * len(rows[0])}")
    for row in rows:
        cells = (f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value) for value in row.values())
        print(f"| {' | '.join(cells)} |", flush=True)
    if not record:
        return
    tables = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    tables = [table for table in tables if table["title"] != title] + [{"title": title, "rows": rows}]
    RESULTS.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
