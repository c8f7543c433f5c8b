# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""What is going on, told by Ansible's worker processes to its main process while it goes on.

A worker has no terminal, and what it prints comes late. So a callback plugin opens a pair of datagram sockets before the workers
are forked from its process, and these inherit the end to send to. Where nobody listens, or not fast enough, an event is lost:
emitting one never waits and never fails, and each says all that is known, so that the next one makes good for it.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import json
import select
import socket
import time

# Phases of adapter_sync that it tells of itself; which module runs on a node is known to the main process anyway.
WAITING = "waiting for a stream"
SENDING = "sending"
VERIFYING = "hashing what arrived"

# Seconds between two events of a transfer.
_INTERVAL = 0.2

_sender: socket.socket | None = None


@dataclasses.dataclass(frozen=True)
class Event:
    """What a host is doing. C(total) is 0 where it is not known, C(bytes) are never more than it."""

    host: str
    phase: str
    adapter: str = ""
    bytes: int = 0
    total: int = 0


class Listener:
    """The main process's end. What is told from now on, by this process and those forked from it, comes in here."""

    def __init__(self) -> None:
        global _sender
        self._receiver, self._sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        _sender = self._sender

    def wait(self) -> None:
        """Return when something was told, or C(wake) was called."""
        select.select([self._receiver], [], [])

    def wake(self) -> None:
        """Let C(wait) return."""
        with contextlib.suppress(OSError):
            self._sender.send(b"")

    def close(self) -> None:
        global _sender
        _sender = None
        self._receiver.close()
        self._sender.close()

    def events(self) -> c.Iterator[Event]:
        """What was told and not yet taken; waits for nothing."""
        with contextlib.suppress(BlockingIOError):
            while True:
                told = self._receiver.recv(1 << 16)
                if told:
                    yield Event(**json.loads(told))


def emit(event: Event) -> None:
    """Tell the main process, if it listens."""
    if _sender is not None:
        with contextlib.suppress(OSError):
            _sender.send(json.dumps(dataclasses.asdict(event)).encode())


class Meter:
    """Counts the bytes of an adapter on their way to a host, in all tries together, and tells of them a few times a second.

    C(total) is what is expected. A little more comes: rsync's own words, and what was on the way when a connection broke. So
    the last byte counts only when C(done) is called.
    """

    def __init__(self, host: str, adapter: str, total: int) -> None:
        self._event = Event(host, SENDING, adapter, total=total)
        self._count = 0
        self._next = time.monotonic() + _INTERVAL
        emit(self._event)

    def __call__(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _INTERVAL
            total = self._event.total
            emit(dataclasses.replace(self._event, bytes=min(self._count, total - 1) if total else self._count))

    def done(self) -> None:
        emit(dataclasses.replace(self._event, bytes=self._event.total or self._count))
