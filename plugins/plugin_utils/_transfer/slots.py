# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""A limit on the transfers that one source serves at a time, across Ansible's worker processes.

Ansible's ``throttle:`` on the task cannot do this. It counts by the task's uuid, and
``include_role`` and ``include_tasks`` make a new one for every group of hosts, so the limit is
exceeded. With strategy ``free``, a task whose throttle is full stops the whole loop: nodes that
have their files wait to be verified and loaded. And it would count planning and hashing on the
nodes too, not the transfers alone.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import fcntl
import os
import time
import typing as t
import urllib.parse

_POLL_INTERVAL = 0.1


@contextlib.contextmanager
def transfer_slot(directory: str, source: str, slots: int, on_wait: c.Callable[[], None] = lambda: None) -> c.Iterator[None]:
    """Hold one of the source's slots; wait while all of them are taken.

    ``on_wait`` is called once before waiting. ``directory`` is shared by all workers of a run. It
    holds a file for each slot (``SOURCE.0`` and so on), and ``SOURCE.next`` for the worker that is
    next in line. A slot is a lock on its file, which the kernel releases when the process ends for
    whatever reason.
    """
    with contextlib.ExitStack() as held:
        path = os.path.join(directory, urllib.parse.quote(source, safe=""))
        files = [held.enter_context(open(f"{path}.{number}", "wb")) for number in range(slots)]
        with open(f"{path}.next", "wb") as turn:
            if not try_lock(turn) or not any(try_lock(file) for file in files):
                on_wait()
                fcntl.flock(turn, fcntl.LOCK_EX)
                while not any(try_lock(file) for file in files):
                    time.sleep(_POLL_INTERVAL)
        yield


def try_lock(file: t.IO[bytes]) -> bool:
    """Lock a file unless another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
