# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The current activity of each host of a run, collected from events, and the lines that show it."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
import time
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._text import human_bytes

from .._steps import WAITING
from .events import Event

# The transfer rate is the mean over this many seconds.
_WINDOW = 5.0
# Names of adapters are cut to this length at least. Where even that does not fit, the line is cut.
_NAME = 12


@dataclasses.dataclass
class _Doing:
    """The activity of a host, and since when.

    ``samples`` are times with the number of bytes received by then.
    """

    event: Event
    since: float
    samples: collections.deque[tuple[float, int]]


class Progress:
    """The current activity of each host. ``clock`` returns seconds."""

    def __init__(self, clock: t.Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hosts: dict[str, _Doing] = {}

    def add(self, event: Event) -> str:
        """Add an event.

        Return a line of text if it begins a phase or an adapter, otherwise nothing.
        """
        now, doing = self._clock(), self._hosts.get(event.host)
        if doing is None or (event.phase, event.adapter) != (doing.event.phase, doing.event.adapter):
            self._hosts[event.host] = _Doing(event, now, collections.deque([(now, event.bytes)]))
            total = f", {human_bytes(event.total)}" if event.total else ""
            return _printable(f"{event.host}: {event.phase}" + (f" {event.adapter}{total}" if event.adapter else ""))
        doing.event = event
        doing.samples.append((now, event.bytes))
        while doing.samples[1][0] <= now - _WINDOW:
            doing.samples.popleft()
        return ""

    def end(self, host: str) -> None:
        """Remove a host whose task has ended."""
        self._hosts.pop(host, None)

    def lines(self, columns: int, rows: int) -> list[str]:
        """Return a line of at most ``columns`` for each busy host, and at most ``rows`` lines."""
        doing = sorted(self._hosts.values(), key=lambda one: _by_number(one.event.host))
        shown, rest = doing, []
        if len(doing) > rows:
            # Waiting hosts are the least interesting.
            doing.sort(key=lambda one: one.event.phase == WAITING)
            shown, rest = doing[: rows - 1], doing[rows - 1 :]
        states = [self._state(one) for one in shown]
        hosts = max((len(one.event.host) for one in shown), default=0)
        room = columns - hosts - max(map(len, states), default=0) - 4
        names = min(max((len(one.event.adapter) for one in shown), default=0), max(room, _NAME))
        lines = []
        for one, state in zip(shown, states):
            adapter = f"{_cut(one.event.adapter, names):{names}}  " if names else ""
            lines.append(f"{one.event.host:{hosts}}  {adapter}{state}")
        if rest:
            phases = collections.Counter(one.event.phase for one in rest)
            lines.append(f"and {len(rest)} more: " + ", ".join(f"{count} {phase}" for phase, count in phases.items()))
        return [_printable(line[:columns]) for line in lines]

    def _state(self, doing: _Doing) -> str:
        event, now = doing.event, self._clock()
        if not doing.samples[-1][1]:
            return f"{event.phase}  {_clock(now - doing.since)}"
        # Up to now, not up to the last sample: the rate of a stalled transfer falls.
        start, before = next(sample for sample in reversed(doing.samples) if sample[0] <= max(now - _WINDOW, doing.samples[0][0]))
        rate = (event.bytes - before) / (now - start) if now > start else 0.0
        share = f"{100 * event.bytes // event.total:3}%" if event.total else f"{human_bytes(event.bytes):>8}"
        left = f"  {_clock(math.ceil((event.total - event.bytes) / rate)):>5} left" if event.total and rate else ""
        return f"{event.phase}  {share}  {human_bytes(rate):>8}/s{left}"


def _by_number(host: str) -> list[str | int]:
    """Return a sort key that puts node-2 before node-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", host)]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 2]}.."


def _printable(text: str) -> str:
    """Replace control characters, which a terminal would interpret. Names come from other hosts."""
    return "".join(character if character.isprintable() else "?" for character in text)
