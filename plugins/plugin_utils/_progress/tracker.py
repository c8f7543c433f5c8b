# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The current activity of each host of a run, collected from events, and the lines that show it."""

from __future__ import annotations

import collections
import collections.abc as c
import dataclasses
import math
import time
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._text import human_bytes

from .._node_names import by_number
from .._steps import WAITING
from .events import Event

# The transfer rate is the mean over this many seconds.
_WINDOW = 5.0
# With more nodes, plain lines are a summary from time to time, which has so many lines at most.
_MOST_PLAIN, _PLAIN_ROWS = 20, 4
# Seconds between two summaries.
_PAUSE = 30.0
# Names of adapters are cut to this length at least. Where even that does not fit, the line is cut.
_NAME = 12


@dataclasses.dataclass
class _Doing:
    """The activity of a host, which began at ``since``, its phase at ``entered``.

    ``samples`` are times with the number of bytes received by then.
    """

    event: Event
    since: float
    entered: float
    samples: collections.deque[tuple[float, int]]


class Progress:
    """The current activity of each host. ``clock`` returns seconds."""

    def __init__(self, clock: t.Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hosts: dict[str, _Doing] = {}
        # The wave of each host that is delivered in waves, in words.
        self._waves: dict[str, str] = {}
        # The nodes of the run, and whether those that have ended their last step have failed.
        self._nodes: frozenset[str] = frozenset()
        self._ended: dict[str, bool] = {}
        self._next_summary = 0.0

    def expect(self, nodes: c.Iterable[str]) -> None:
        """Set the nodes that the run covers."""
        self._nodes = frozenset(nodes)

    def place(self, host: str, waves: c.Mapping[str, c.Sequence[int]]) -> None:
        """Set the waves of a host: by agent, the number of its wave and that of all waves."""
        places = {f"wave {wave} of {number}": None for wave, number in waves.values() if number > 1}
        self._waves[host] = ", ".join(places)

    def add(self, event: Event) -> str:
        """Add an event.

        Return a line of text if it begins a phase or an adapter, otherwise nothing.
        """
        now, doing = self._clock(), self._hosts.get(event.host)
        if doing is None or (event.phase, event.adapter) != (doing.event.phase, doing.event.adapter):
            entered = now if doing is None or event.phase != doing.event.phase else doing.entered
            self._hosts[event.host] = _Doing(event, now, entered, collections.deque([(now, event.bytes)]))
            self._ended.pop(event.host, None)
            total = f", {human_bytes(event.total)}" if event.total else ""
            return _printable(f"{event.host}: {self._phase(event)}" + (f" {event.adapter}{total}" if event.adapter else ""))
        doing.event = event
        doing.samples.append((now, event.bytes))
        while doing.samples[1][0] <= now - _WINDOW:
            doing.samples.popleft()
        return ""

    def add_plainly(self, event: Event) -> list[str]:
        """Add an event, and return the lines of text that an output without redrawing shows for it.

        For a large fleet, these are a summary from time to time.
        """
        begins = self.add(event)
        if len(self._nodes) <= _MOST_PLAIN:
            return [begins] if begins else []
        if not begins or self._clock() < self._next_summary:
            return []
        self._next_summary = self._clock() + _PAUSE
        return self.lines(100, _PLAIN_ROWS)

    def end(self, host: str, finished: bool = False, failed: bool = False) -> None:
        """Remove a host whose task has ended, which may be the last one or a failure."""
        self._hosts.pop(host, None)
        if (finished or failed) and (host in self._nodes or not self._nodes):
            self._ended[host] = failed

    def lines(self, columns: int, rows: int) -> list[str]:
        """Return a line of at most ``columns`` for each busy host, and at most ``rows`` lines.

        If the run has more nodes than that, the first line sums them up, and the others are those
        of the hosts that have been in their phase for the longest time.
        """
        shown = sorted(self._hosts.values(), key=lambda one: by_number(one.event.host))
        first = []
        if shown and max(len(shown), len(self._nodes)) > rows:
            first = [self._summary()]
            # Waiting hosts are the least interesting.
            shown = sorted(shown, key=lambda one: (one.event.phase == WAITING, one.entered))[: rows - 1]
        states = [self._state(one) for one in shown]
        hosts = max((len(one.event.host) for one in shown), default=0)
        room = columns - hosts - max(map(len, states), default=0) - 4
        names = min(max((len(one.event.adapter) for one in shown), default=0), max(room, _NAME))
        lines = first
        for one, state in zip(shown, states):
            adapter = f"{_cut(one.event.adapter, names):{names}}  " if names else ""
            lines.append(f"{one.event.host:{hosts}}  {adapter}{state}")
        return [_printable(line[:columns]) for line in lines]

    def _summary(self) -> str:
        failed = sum(self._ended.values())
        counts = {
            "done": len(self._ended) - failed,
            "failed": failed,
            "to come": len(self._nodes - self._ended.keys() - self._hosts.keys()),
            "busy": len(self._hosts),
        }
        phases = collections.Counter(one.event.phase for one in self._hosts.values()).most_common()
        words = [f"{count} {what}" for what, count in counts.items() if count]
        return f"{', '.join(words)}: {', '.join(f'{count} {phase}' for phase, count in phases)}"

    def _phase(self, event: Event) -> str:
        return ": ".join(filter(None, (self._waves.get(event.host), event.phase)))

    def _state(self, doing: _Doing) -> str:
        event, now = doing.event, self._clock()
        if not doing.samples[-1][1]:
            return f"{self._phase(event)}  {_clock(now - doing.since)}"
        # Up to now, not up to the last sample: the rate of a stalled transfer falls.
        start, before = next(sample for sample in reversed(doing.samples) if sample[0] <= max(now - _WINDOW, doing.samples[0][0]))
        rate = (event.bytes - before) / (now - start) if now > start else 0.0
        share = f"{100 * event.bytes // event.total:3}%" if event.total else f"{human_bytes(event.bytes):>8}"
        left = f"  {_clock(math.ceil((event.total - event.bytes) / rate)):>5} left" if event.total and rate else ""
        return f"{self._phase(event)}  {share}  {human_bytes(rate):>8}/s{left}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 2]}.."


def _printable(text: str) -> str:
    """Replace control characters, which a terminal would interpret. Names come from other hosts."""
    return "".join(character if character.isprintable() else "?" for character in text)
