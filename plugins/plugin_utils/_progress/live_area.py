# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""A few lines at the end of a terminal that are drawn anew in place, below all that is printed to it by anybody else.

Whatever this process prints passes through the buffers of its standard streams. There the area is taken away first, and it is
drawn again later, where what was printed ended with a line: so nothing that is printed needs to know of it.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import functools
import os
import threading
import typing as t

# Of a terminal's control sequences, those that every one of the last decades knows.
_SAVE, _RESTORE = "\x1b7", "\x1b8"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"

# What a terminal that does not say it is taken for.
_UNKNOWN = os.terminal_size((80, 24))


class LiveArea:
    """The lines below what is written to C(streams), of which the first one is a terminal, the others perhaps that too.

    C(lock) is the one that Ansible holds while it prints and while it forks. There is no other here, and what asks for the
    area's lines is called without it: two locks, taken in turns by the two who print, are what a deadlock needs.
    """

    def __init__(self, streams: c.Sequence[t.TextIO], lock: threading.RLock) -> None:
        self._buffers = [stream.buffer for stream in streams if stream.isatty()]
        self._terminal = streams[0].fileno()
        self._lock = lock
        self._drawn = ""
        self._size = _UNKNOWN
        self._at_line_start = True
        self._closed = False
        self._originals = [buffer.write for buffer in self._buffers]
        for buffer, write in zip(self._buffers, self._originals):
            buffer.write = functools.partial(self._print, write)  # type: ignore[method-assign]

    @property
    def size(self) -> os.terminal_size:
        """How large the terminal is now."""
        try:
            found = os.get_terminal_size(self._terminal)
        except OSError:
            # It was closed.
            found = _UNKNOWN
        return found if all(found) else _UNKNOWN

    def draw(self, lines: c.Sequence[str]) -> None:
        """Show these lines, in place of those that are shown."""
        with self._lock, contextlib.suppress(OSError):
            if self._closed or not self._at_line_start or not self._in_foreground():
                return
            if not lines:
                self._erase()
                return
            text = "\r\n".join(f"{_CLEAR_LINE}{line}" for line in lines)
            if (text, self.size) == (self._drawn, self._size):
                return
            for buffer in self._buffers:
                buffer.flush()
            up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
            # The cursor is left at the area's beginning: wherever the terminal moves it when it is made narrower and breaks the
            # lines anew, the area is what is below. What is typed there is gone the next time.
            self._write(f"{self._back()}{_NO_WRAP}{text}{_CLEAR_BELOW}{up}\r{_WRAP}{_SAVE}")
            self._drawn, self._size = text, self.size

    def close(self) -> None:
        """Take the area away for good."""
        with self._lock:
            if not self._closed:
                self._erase()
                self._closed = True
                for buffer, write in zip(self._buffers, self._originals):
                    buffer.write = write  # type: ignore[method-assign]

    def _print(self, write: t.Callable[[bytes], int], data: bytes) -> int:
        with self._lock:
            self._erase()
            if data:
                self._at_line_start = bytes(data[-1:]) == b"\n"
            return write(data)

    def _erase(self) -> None:
        if self._drawn:
            with contextlib.suppress(OSError):
                self._write(f"{self._back()}{_CLEAR_BELOW}")
            self._drawn = ""

    def _back(self) -> str:
        """To the beginning of the area. Who types Enter has moved the cursor; a terminal of another size has moved the area."""
        return f"{_RESTORE}\r" if self._drawn and self.size == self._size else "\r"

    def _in_foreground(self) -> bool:
        """Whether the terminal is ours to draw on, and not the shell's that started us in the background."""
        try:
            return os.tcgetpgrp(self._terminal) == os.getpgrp()
        except OSError:
            # It controls nobody's jobs.
            return True

    def _write(self, text: str) -> None:
        os.write(self._terminal, text.encode(errors="replace"))
