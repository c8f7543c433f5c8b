# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A terminal for tests: programs write to it, and tests see what a user would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import time
import typing as t

import pyte

# Seconds.
_LIMIT = 300


class Terminal:
    """A pseudo-terminal. ``program`` is the descriptor of the end for a program's streams.

    It can be read for five minutes: a program that waits for a test may redraw a line forever.
    """

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._user, self.program = pty.openpty()
        # Each read then begins with a byte that tells, among others, of input thrown away.
        fcntl.ioctl(self._user, termios.TIOCPKT, struct.pack("i", 1))
        self._answer = b""
        self._deadline = time.monotonic() + _LIMIT
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._user, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        dropped = max(self._screen.lines - rows, 0)
        self._screen.resize(rows, columns)
        # As on a real terminal, the top lines leave and the cursor moves up with the others.
        if dropped:
            self._screen.cursor_up(dropped)

    def type(self, text: str) -> None:
        os.write(self._user, text.encode())

    def answer(self, text: str) -> None:
        """Type, and again whenever the program throws away unread input.

        Ansible does so between showing a prompt and reading the answer.
        """
        self._answer = text.encode()
        self.type(text)

    def read(self) -> bytes:
        """Wait for output, display and return it. Return nothing once no process can write.

        Raises AssertionError when the time is up.
        """
        packet = self._read_packet()
        while packet and packet[0] != termios.TIOCPKT_DATA:
            if packet[0] & termios.TIOCPKT_FLUSHREAD and self._answer:
                os.write(self._user, self._answer)
            packet = self._read_packet()
        self._stream.feed(packet[1:])
        return packet[1:]

    def _read_packet(self) -> bytes:
        left = self._deadline - time.monotonic()
        ready = left > 0 and select.select([self._user], [], [], left)[0]
        assert ready, "the program has not ended in time; it shows:\n" + "\n".join(self.visible)
        # On Linux, reading fails once no process has the program's end open.
        with contextlib.suppress(OSError):
            return os.read(self._user, 1 << 16)
        return b""

    def read_all(self) -> bytes:
        """Display and return all output up to now."""
        data, mark = b"", b"\x1b]2;all\x07"
        # Mark the end of the output by a window title: the kernel buffers between the two ends.
        os.write(self.program, mark)
        while not data.endswith(mark):
            data += self.read()
        return data.removesuffix(mark)

    def close_program(self) -> None:
        """Close this process's copy. Child processes that inherited the descriptor keep it."""
        os.close(self.program)

    def close(self) -> None:
        os.close(self._user)

    @property
    def visible(self) -> list[str]:
        """The lines on the screen, without trailing empty ones."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    @property
    def everything(self) -> list[str]:
        """The lines that have scrolled off the screen, and the visible ones."""
        return [self._text(line) for line in self._screen.history.top] + self.visible

    def _text(self, line: t.Any) -> str:
        return "".join(line[column].data for column in range(self._screen.columns)).rstrip()
