# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults that a test sets in a fake engine, and calls that it holds."""

from __future__ import annotations

import dataclasses
import fnmatch
import threading
import time
import typing as t

# Instead of the work, or after it if `after` is set:
STATUS = "status"  # answer with `status` and `body`
RESET = "reset"  # reset the connection
WAIT = "wait"  # go on after `seconds`
HOLD = "hold"  # go on when the test releases all calls
DIES = "dies"  # the process is gone: this connection and all later ones are reset
STOPS = "stops"  # the same, but later connections are refused, and not counted
DEAD = "dead"  # the HTTP server goes on without its engine
# Changes of what the engine does. Each personality asks for those that it has.
UNLISTED = "unlisted"  # it loads the adapter, but does not list it
OTHER_ROOT = "other root"  # it lists `directory` as the adapter's
OTHER_WEIGHTS = "other weights"  # it answers from `directory`
BASE_ANSWERS = "base answers"  # the adapter has no effect
NOT_FINITE = "not finite"  # NaN; with `spoils`, everybody's answers are NaN from the first one on
EMPTY_TEXT = "empty text"
INCOMPLETE = "incomplete"  # SGLang: the load fails half-way

INSTEAD = frozenset({STATUS, RESET, WAIT, HOLD, DIES, STOPS, DEAD})
CHANGES = frozenset({UNLISTED, OTHER_ROOT, OTHER_WEIGHTS, BASE_ANSWERS, NOT_FINITE, EMPTY_TEXT, INCOMPLETE})


@dataclasses.dataclass
class Fault:
    """A fault of the calls of a kind that concern an adapter of this name (both are patterns).

    It happens ``times`` times, or always, after ``skip`` calls without it.
    """

    does: str
    on: str = "*"
    name: str = "*"
    skip: int = 0
    times: int | None = None
    after: bool = False
    status: int = 500
    body: t.Any = None
    seconds: float = 0.0
    directory: str = ""
    spoils: bool = False

    def __post_init__(self) -> None:
        if self.does not in INSTEAD | CHANGES:
            raise ValueError(f"no fault is called {self.does!r}")

    def happens(self, kind: str, name: str) -> bool:
        """Return whether it happens to this call, and count the call."""
        if not (fnmatch.fnmatchcase(kind, self.on) and fnmatch.fnmatchcase(name, self.name)):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class Faults:
    """The faults of an engine."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._changed = threading.Condition()
        self._held = 0
        self._releases = 0

    def add(self, fault: Fault) -> None:
        with self._changed:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._changed:
            self._faults.clear()

    def instead(self, kind: str, name: str, after: bool) -> Fault | None:
        """Return the fault that happens instead of (or after) the work of a call."""
        with self._changed:
            candidates = [one for one in self._faults if one.does in INSTEAD and one.after == after]
            return next((one for one in candidates if one.happens(kind, name)), None)

    def change(self, does: str, name: str, kind: str = "") -> Fault | None:
        """Return the fault ``does`` of the adapter, if there is one."""
        with self._changed:
            return next((one for one in self._faults if one.does == does and one.happens(kind, name)), None)

    def pause(self, fault: Fault) -> None:
        """Hold the call, or let it wait."""
        if fault.does == WAIT:
            time.sleep(fault.seconds)
            return
        with self._changed:
            release = self._releases
            self._held += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._releases > release)
            self._held -= 1

    def wait_until_held(self, calls: int, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._held >= calls, seconds)

    def release(self) -> None:
        """Let all held calls go on."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()
