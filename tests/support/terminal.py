# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A terminal that programs can write to, and what somebody before it would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios
import typing as t

import pyte


class Terminal:
    """A pseudo-terminal. C(program) is the descriptor of its end that is for a program, as its standard streams."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._user, self.program = pty.openpty()
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._user, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        lost = max(self._screen.lines - rows, 0)
        self._screen.resize(rows, columns)
        # The lines at the upper end go, and the cursor with the others, as on a terminal that people use.
        if lost:
            self._screen.cursor_up(lost)

    def type(self, text: str) -> None:
        os.write(self._user, text.encode())

    def read(self) -> bytes:
        """Wait until something is written, show and return it; nothing when nobody is there who could write."""
        data = b""
        # That nobody has the program's end open any more is an error to Linux.
        with contextlib.suppress(OSError):
            data = os.read(self._user, 1 << 16)
        self._stream.feed(data)
        return data

    def read_all(self) -> bytes:
        """Show and return what was written up to now."""
        data, mark = b"", b"\x1b]2;all\x07"
        # A title for the terminal, after it: there is a buffer between the two ends, emptied when the system likes.
        os.write(self.program, mark)
        while not data.endswith(mark):
            data += self.read()
        return data.removesuffix(mark)

    def close_program(self) -> None:
        """From now on only those have it who have inherited it."""
        os.close(self.program)

    def close(self) -> None:
        os.close(self._user)

    @property
    def visible(self) -> list[str]:
        """The lines on the screen, without the empty ones at its end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    @property
    def everything(self) -> list[str]:
        """The same after the lines that have left the screen at its upper end."""
        return [self._text(line) for line in self._screen.history.top] + self.visible

    def _text(self, line: t.Any) -> str:
        return "".join(line[column].data for column in range(self._screen.columns)).rstrip()
