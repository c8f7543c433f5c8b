# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""What the programs of this room have in common: the controller at the other end of the pipes.

The programs are sent to the interpreter of a host, see ``plugin_utils/_transfer/program``. They
import only each other.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import threading
import typing as t

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
# The exit status of a program whose controller is gone.
ABANDONED = 3

_writing = threading.Lock()


def tell(**answer: t.Any) -> None:
    """Send an answer to the controller. Raises OSError when it is gone."""
    with _writing:
        left = (json.dumps(answer) + "\n").encode()
        while left:
            left = left[os.write(1, left) :]


def end_with_controller(
    lease: float, end: t.Callable[[], None], hear: t.Callable[[dict[str, t.Any]], None] = lambda message: None
) -> None:
    """End this process when the controller is gone, or silent for ``lease`` seconds.

    ``end`` is called before, in another thread. ``hear`` is called there with each message of the
    controller, a line of JSON.
    """

    def watch() -> None:
        said = select.poll()
        said.register(0, select.POLLIN)
        line = b""
        try:
            while said.poll(1000 * lease) and (block := os.read(0, 1 << 16)):
                *lines, line = (line + block).split(b"\n")
                for message in filter(None, lines):
                    hear(json.loads(message))
            end()
        finally:
            os._exit(ABANDONED)

    threading.Thread(target=watch, daemon=True).start()


def die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends, however it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forbid_attaching() -> None:
    """Keep other processes of this user from reading the memory of this one, keys for instance.

    It cannot get new privileges from now on, either.
    """
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
