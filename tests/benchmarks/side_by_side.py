# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure things in turns, so that whatever else the machine does hits all of them, and print their ratios as a table."""

from __future__ import annotations

import os
import time
import typing as t


class Cost(t.NamedTuple):
    """Seconds on the clock, and of all cores together, this process and its children."""

    wall: float
    cpu: float


def _cost(action: t.Callable[[], object]) -> Cost:
    wall, before = time.monotonic(), os.times()
    action()
    after = os.times()
    return Cost(time.monotonic() - wall, sum(after[:4]) - sum(before[:4]))


def measure(title: str, actions: dict[str, t.Callable[[], object]], rounds: int) -> None:
    """Print the least cost of each action over C(rounds) turns, and its ratio to the first one, as Markdown."""
    costs: dict[str, list[Cost]] = {name: [] for name in actions}
    for _round in range(rounds):
        for name, action in actions.items():
            costs[name].append(_cost(action))
    best = {name: Cost(min(one.wall for one in all_), min(one.cpu for one in all_)) for name, all_ in costs.items()}
    plain = next(iter(best.values()))
    print(f"\n{title}\n\n| what | seconds | ratio | CPU seconds | ratio |\n| --- | --- | --- | --- | --- |")
    for name, cost in best.items():
        ratios = (cost.wall / plain.wall, cost.cpu / plain.cpu)
        print(f"| {name} | {cost.wall:.2f} | {ratios[0]:.2f} | {cost.cpu:.2f} | {ratios[1]:.2f} |", flush=True)
