# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""A bound on the transfers that one source serves at the same time, held across Ansible's worker processes."""

from __future__ import annotations

import collections.abc as c
import contextlib
import fcntl
import os
import time
import typing as t
import urllib.parse

_PAUSE = 0.1


@contextlib.contextmanager
def stream(directory: str, source: str, bound: int, waiting: c.Callable[[], None] = lambda: None) -> c.Iterator[None]:
    """Wait until fewer than C(bound) streams from a source are open, and count as one of them.

    C(waiting) is called first where it has to be waited for. C(directory) is one that all workers of a run share. In it are a
    file for each stream, C(SOURCE.0) and so on, and C(SOURCE.next) for whoever gets the next one. A lock on a file ends with
    its process, however that ends.
    """
    with contextlib.ExitStack() as held:
        path = os.path.join(directory, urllib.parse.quote(source, safe=""))
        files = [held.enter_context(open(f"{path}.{number}", "wb")) for number in range(bound)]
        with open(f"{path}.next", "wb") as turn:
            if not _taken(turn) or not any(_taken(file) for file in files):
                waiting()
                fcntl.flock(turn, fcntl.LOCK_EX)
                while not any(_taken(file) for file in files):
                    time.sleep(_PAUSE)
        yield


def _taken(file: t.IO[bytes]) -> bool:
    """Take a lock, if nobody has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
