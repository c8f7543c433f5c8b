# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Progress events, sent by Ansible's worker processes to its main process while a task runs.

A worker has no terminal, and its output arrives late. So a callback plugin opens a pair of datagram
sockets before Ansible forks the workers, and these inherit the sending end. Sending never waits and
never fails: an event is dropped when there is no listener or its buffer is full. Each event carries
the complete state, so the next one replaces a lost one.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import json
import select
import socket
import time

from .._steps import SENDING

# Seconds between two events of a transfer.
_INTERVAL = 0.2

_sender: socket.socket | None = None


@dataclasses.dataclass(frozen=True)
class Event:
    """The current activity of a host.

    ``total`` is 0 when it is unknown; ``bytes`` never exceeds it otherwise.
    """

    host: str
    phase: str
    adapter: str = ""
    bytes: int = 0
    total: int = 0


class Listener:
    """The receiving end, for this process and for those forked from it later."""

    def __init__(self) -> None:
        global _sender
        self._receiver, self._sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        _sender = self._sender

    def wait(self) -> None:
        """Wait for an event, or for a call of ``wake``."""
        select.select([self._receiver], [], [])

    def wake(self) -> None:
        """Let ``wait`` return."""
        with contextlib.suppress(OSError):
            self._sender.send(b"")

    def close(self) -> None:
        global _sender
        _sender = None
        self._receiver.close()
        self._sender.close()

    def events(self) -> c.Iterator[Event]:
        """Yield the events that have arrived, without waiting."""
        with contextlib.suppress(BlockingIOError):
            while True:
                datagram = self._receiver.recv(1 << 16)
                if datagram:
                    yield Event(**json.loads(datagram))


def emit(event: Event) -> None:
    """Send an event to the main process, if it listens."""
    if _sender is not None:
        with contextlib.suppress(OSError):
            _sender.send(json.dumps(dataclasses.asdict(event)).encode())


class Meter:
    """Counts the bytes of an adapter on their way to a host and emits a few events a second.

    The count covers all tries together. ``total`` is the number of bytes to expect. A few more
    arrive: rsync's protocol, and bytes that were in flight when a connection broke. So the last
    byte counts only when ``done`` is called.
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
