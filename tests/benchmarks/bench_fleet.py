# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deploy with nothing to do on growing fleets, compared with an earlier revision."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / ".collections"), str(CHECKOUT)]

from tests.benchmarks.side_by_side import show  # noqa: E402
from tests.support import tiny_adapters  # noqa: E402
from tests.support.fleet import CLEANER_3B, Fleet, row  # noqa: E402
from tests.support.playbooks import PLAYBOOK, recording  # noqa: E402

# The last revision that read the variables of the whole fleet once for each node and task.
BASELINE = "ba8135f"
SIZES = (20, 80, 200, 500)
EMPTY = "- {hosts: agents, gather_facts: false}\n"
# A fleet with fewer nodes is measured this often, a larger one once.
ROUNDS, LARGE = 3, 300


@dataclasses.dataclass(frozen=True)
class Cost:
    """Wall-clock and CPU seconds of a run, and the largest size of Ansible's main process in kB."""

    wall: float
    cpu: float
    memory: int

    def lowest(self, other: Cost) -> Cost:
        return Cost(min(self.wall, other.wall), min(self.cpu, other.cpu), min(self.memory, other.memory))


class Deployed:
    """A fleet below ``root``: each node has an adapter that playbooks of ``checkout`` delivered."""

    def __init__(self, root: pathlib.Path, checkout: pathlib.Path, number: int) -> None:
        self._checkout = checkout
        self._number = number
        self._fleet = Fleet(root, tiny_adapters.cached())
        self._fleet.members.update({"jw2": [], "jw3": []})
        self._fleet.groups["jw2"]["agent_adapters"] = [row(CLEANER_3B, "3b", 16)]
        self._fleet.add_node("jw2", "node-000")
        self._inventory = self._fleet.write_inventory()
        self._reports = root / "report"
        self._empty = root / "empty.yml"
        self._empty.write_text(EMPTY, encoding="utf-8")
        self._play(checkout / "playbooks" / "deploy.yml")
        # As good as a delivery to each of them.
        self._fleet.add_copies("jw2", "node-000", [f"node-{one:03}" for one in range(1, number)])
        self._fleet.write_inventory()

    def nothing_to_do(self) -> Cost:
        """Deploy again, and check that every byte was hashed and nothing changed."""
        cost = self._play(self._checkout / "playbooks" / "deploy.yml")
        report = json.loads((self._reports / "report.json").read_text(encoding="utf-8"))
        adapters = [adapter for node in report["nodes"] for adapter in node["adapters"]]
        unchanged = [adapter for adapter in adapters if adapter["state"] == "unchanged" and adapter["verified"]]
        if len(unchanged) != self._number:
            sys.exit(f"{self._checkout}: {len(unchanged)} of {self._number} nodes were verified and unchanged")
        return cost

    def empty_play(self) -> Cost:
        return self._play(self._empty)

    def _play(self, playbook: pathlib.Path, *arguments: str) -> Cost:
        environment = recording(self._fleet.root / "unused")
        environment["ANSIBLE_CONFIG"] = str(self._checkout / "ansible.cfg")
        environment["LORAFLEET_REPORT_DIR"] = str(self._reports)
        # As ansible.cfg has them. A recording of all results would be measured too.
        del environment["ANSIBLE_CALLBACKS_ENABLED"], environment["ANSIBLE_CALLBACK_PLUGINS"]
        output = self._fleet.root / "output"
        began, before = time.monotonic(), os.times()
        with output.open("w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [str(PLAYBOOK), "-i", str(self._inventory), *arguments, str(playbook)],
                env=environment,
                cwd=self._fleet.root,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        memory = 0
        while process.poll() is None:
            memory = max(memory, _peak(process.pid))
            time.sleep(0.05)
        wall, after = time.monotonic() - began, os.times()
        if process.returncode:
            sys.exit(output.read_text(encoding="utf-8"))
        return Cost(wall, sum(after[2:4]) - sum(before[2:4]), memory)


def _peak(pid: int) -> int:
    """Return the largest resident size of a process so far in kB, or 0 when it has ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found else 0


def check_out(revision: str, into: pathlib.Path) -> pathlib.Path:
    """Check out a revision, with the symlink that ``make setup`` creates."""
    into.mkdir()
    archive = subprocess.run(["git", "-C", str(CHECKOUT), "archive", revision], stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", str(into)], input=archive.stdout, check=True)
    collection = into / ".collections" / "ansible_collections" / "lorafleet" / "delivery"
    collection.parent.mkdir(parents=True)
    collection.symlink_to(into)
    return into


def measure(number: int, root: pathlib.Path, checkouts: dict[str, pathlib.Path], rounds: int) -> dict[str, Cost]:
    """Return the lowest costs of each checkout and of an empty play, measured in turns."""
    fleets: dict[str, Deployed] = {}
    for name, checkout in checkouts.items():
        (root / name).mkdir(parents=True)
        fleets[name] = Deployed(root / name, checkout, number)
    actions = {name: fleet.nothing_to_do for name, fleet in fleets.items()}
    actions["empty"] = fleets["new"].empty_play
    costs: dict[str, Cost] = {}
    for _round in range(rounds):
        for name, action in actions.items():
            cost = action()
            costs[name] = cost.lowest(costs.get(name, cost))
    return costs


def tables(costs: dict[int, dict[str, Cost]]) -> dict[str, list[dict[str, t.Any]]]:
    """Return the rows for ``show`` by title: one table of costs, and one of what a node adds."""
    smallest = min(costs)
    names = [name for name in costs[smallest] if name != "empty"]
    cost_rows, growth_rows = [], []
    for number, of in costs.items():
        row: dict[str, t.Any] = {"nodes": number}
        growth: dict[str, t.Any] = {"nodes": number}
        for name in names:
            row[f"{name}: elapsed"] = of[name].wall
            row[f"{name}: CPU seconds"] = of[name].cpu
            growth[f"{name}: CPU seconds a node"] = of[name].cpu / number
            growth[f"{name}: to {smallest} nodes"] = of[name].cpu / number / (costs[smallest][name].cpu / smallest)
            growth[f"{name}: main process in MB"] = of[name].memory / 1e3
            growth[f"{name}: kB a node"] = _kilobytes_a_node(costs, number, name)
        if "old" in names:
            row["elapsed, new to old"] = of["new"].wall / of["old"].wall
            row["CPU, new to old"] = of["new"].cpu / of["old"].cpu
        cost_rows.append(row)
        growth_rows.append(growth)
    return {"A deploy with nothing to do": cost_rows, "What a node adds to a deploy with nothing to do": growth_rows}


def _kilobytes_a_node(costs: dict[int, dict[str, Cost]], number: int, name: str) -> float:
    """Return by how much each node enlarges the main process more than in an empty play.

    The smallest fleet is subtracted: the collection's code and its output are in that too.
    """
    smallest = min(costs)
    beyond = {size: costs[size][name].memory - costs[size]["empty"].memory for size in (smallest, number)}
    return (beyond[number] - beyond[smallest]) / max(number - smallest, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES, help="numbers of nodes")
    parser.add_argument("--baseline", default=BASELINE, help="the revision to compare with; empty: none")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"turns of fleets of up to {LARGE} nodes; larger ones have one"
    )
    options = parser.parse_args()
    costs = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        checkouts = {"old": check_out(options.baseline, root / "baseline")} if options.baseline else {}
        checkouts["new"] = CHECKOUT
        for number in sorted(options.sizes):
            costs[number] = measure(number, root / str(number), checkouts, options.rounds if number <= LARGE else 1)
            shutil.rmtree(root / str(number))
    for title, rows in tables(costs).items():
        show(title, rows, record=options.sizes is SIZES)


if __name__ == "__main__":
    main()
