# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""A few lines at the end of a terminal, redrawn in place below all other output.

All output of this process passes through the buffers of its standard streams. A write there first
erases the area, and the next drawing restores it below, once the output ends with a newline. So no
other code needs to know about the area.

Why not ``rich.live``? rich 15.0 was tried with the tests of this file and failed these
requirements:

- Other output stays as it is. rich renders it again: it wraps long lines at words and turns tabs
  into spaces.
- Prompts work (``pause``, ``vars_prompt``, the debugger). rich ends the line of a prompt and
  redraws below it.
- Forks are safe. Ansible forks while another thread draws. A child that prints then waits
  forever for the lock that rich's thread held at the fork. The only lock here is the one that
  Ansible itself holds when it forks.
- Keys that the user types leave no traces. rich moves relative to the cursor, which a typed Enter
  has moved.
- A killed run leaves the terminal usable. rich hides the cursor until the end.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import functools
import os
import threading
import typing as t

# Control sequences that practically every terminal supports.
_SAVE, _RESTORE = "\x1b7", "\x1b8"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"

# The size to assume for a terminal that does not report one.
_UNKNOWN = os.terminal_size((80, 24))


class LiveArea:
    """The lines below the output of ``streams``. The first stream is a terminal, the others may be.

    ``lock`` is the lock that Ansible holds while it prints and while it forks. A second lock here
    could deadlock with it, so there is none, and callers compute the lines before they call
    ``draw``.
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
        """The current size of the terminal."""
        try:
            found = os.get_terminal_size(self._terminal)
        except OSError:
            # The terminal was closed.
            found = _UNKNOWN
        return found if all(found) else _UNKNOWN

    def draw(self, lines: c.Sequence[str]) -> None:
        """Show these lines in place of the previous ones."""
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
            # Leave the cursor at the start of the area. When the terminal gets narrower it rewraps
            # the lines and moves the cursor, and the area is still what is below it. The next
            # drawing removes what the user typed there.
            self._write(f"{self._back()}{_NO_WRAP}{text}{_CLEAR_BELOW}{up}\r{_WRAP}{_SAVE}")
            self._drawn, self._size = text, self.size

    def close(self) -> None:
        """Erase the area for good."""
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
        """Return the sequence that moves to the start of the area.

        Enter moves the cursor; a resize moves the area.
        """
        return f"{_RESTORE}\r" if self._drawn and self.size == self._size else "\r"

    def _in_foreground(self) -> bool:
        """Return whether this process may draw, which it may not as a background job of a shell."""
        try:
            return os.tcgetpgrp(self._terminal) == os.getpgrp()
        except OSError:
            # Not the controlling terminal of a session.
            return True

    def _write(self, text: str) -> None:
        os.write(self._terminal, text.encode(errors="replace"))
