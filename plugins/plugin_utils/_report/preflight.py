# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The checks of a preflight as plain text: one table, and a sentence for each problem."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import FAILED, OK, WARNING
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import count, cut

from .._node_names import listed
from .alike import MOST_ONE_BY_ONE, cell_of, wrapped
from .run import Data

_HEADER = ("host", "check", "state", "found")


class Preflight:
    """The checks of all hosts, as they arrive."""

    def __init__(self) -> None:
        self.hosts: dict[str, list[Data]] = {}

    def add(self, host: str, checks: c.Sequence[Data]) -> None:
        """Add the checks of a host. A later one replaces an earlier one that found no problem.

        Several nodes ask the same training server, each for its own adapters.
        """
        known = self.hosts.get(host, [])
        problems = [check for check in known if check["state"] in (FAILED, WARNING) and check not in checks]
        found = {check["check"] for check in problems}
        new = [check for check in checks if check["state"] in (FAILED, WARNING) or check["check"] not in found]
        again = {check["check"] for check in (*problems, *new)}
        self.hosts[host] = [*problems, *(check for check in known if check["check"] not in again), *new]

    def fail(self, host: str, message: str, unreachable: bool) -> None:
        """Add a host that could not be checked."""
        check, remedy = ("connection", "Restore it and run again.") if unreachable else ("preflight", "")
        self.add(host, [{"check": check, "state": FAILED, "found": message, "remedy": remedy}])

    def failed(self, host: str) -> bool:
        return any(check["state"] == FAILED for check in self.hosts.get(host, ()))

    def in_order(self, nodes: c.Sequence[str]) -> dict[str, list[Data]]:
        """Return the hosts that are no nodes, the training server, and then the nodes in order."""
        places = {name: number for number, name in enumerate(nodes)}
        return dict(sorted(self.hosts.items(), key=lambda entry: places.get(entry[0], -1)))


def as_preflight(hosts: c.Mapping[str, c.Sequence[Data]], width: int | None = None) -> list[tuple[str, str]]:
    """Return the lines of the table, each with its state, which is empty for the header.

    ``width``, that of a terminal, cuts the last column. The sentences below the table have all of
    its text. Of many hosts, those with equal lines share them.
    """
    alike: dict[t.Any, list[str]] = {}
    for host, checks in hosts.items():
        many = len(hosts) > MOST_ONE_BY_ONE
        shown = [
            (check["check"], check["state"], " ".join(check["found"].split()))
            for check in (_shortened(checks) if many else checks)
        ]
        alike.setdefault((tuple(shown), "" if many else host), []).append(host)
    rows, below = [_HEADER], [""]
    for (shown, _host), names in alike.items():
        place, rest = cell_of(names, "host")
        rows += [(place, *cells) for cells in shown]
        below += [*[""] * (len(shown) - 1), rest]
    widths = [max(map(len, column)) for column in zip(*rows)][:-1]
    lines = []
    for row, rest in zip(rows, below):
        state = "" if row is _HEADER else row[2]
        start = "  ".join([*(cell.ljust(size) for cell, size in zip(row, widths)), ""])
        found = row[-1] if width is None else cut(row[-1], max(width - len(start) - 3, 20))
        lines += [(text, state) for text in ((start + found).rstrip(), *wrapped(rest, width))]
    return lines


def preflight_lines(hosts: c.Mapping[str, c.Sequence[Data]]) -> list[tuple[str, str]]:
    """Return a sentence for each problem, with the remedy, and one about which hosts are ready."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for state in (FAILED, WARNING):
        for host, checks in hosts.items():
            for check in checks:
                if check["state"] == state:
                    text = f"{check['check']}: {' '.join(check['found'].split())} {check['remedy']}".rstrip()
                    found.setdefault((state, check["check"], text), []).append(host)
    lines = [
        # Only a line of this report begins in the first column.
        (f"{'Warning: ' if state == WARNING else ''}{listed(on)}: {text}".replace("\n", "\n  "), state)
        for (state, _check, text), on in found.items()
    ]
    unready = [host for host, checks in hosts.items() if any(check["state"] == FAILED for check in checks)]
    verdict = f"Ready for a delivery: {len(hosts) - len(unready)} of {count(len(hosts), 'host')}."
    return [*lines, (f"{verdict} Not ready: {listed(unready)}.", FAILED) if unready else (verdict, OK)]


def _shortened(checks: c.Sequence[Data]) -> list[Data]:
    """Return one line instead of those that passed."""
    others = [check for check in checks if check["state"] != OK]
    passed = count(len(checks) - len(others), "other check" if others else "check")
    return [*others, {"check": passed, "state": OK, "found": ""}] if len(others) < len(checks) else others
