# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import subprocess
import sys

from tests.support.terminal import Terminal

# Shows a prompt, and throws away what was typed before it reads, as Ansible does.
PROGRAM = """
import select, termios
print("Sure?", flush=True)
select.select([0], [], [])
termios.tcflush(0, termios.TCIFLUSH)
print("It was", repr(input()))
"""


def test_answer_is_typed_again_after_input_was_thrown_away() -> None:
    with contextlib.closing(Terminal()) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=terminal.program,
            stdout=terminal.program,
            stderr=terminal.program,
        )
        terminal.close_program()
        while "Sure?" not in terminal.visible:
            assert terminal.read()
        terminal.answer("yes\r")
        while terminal.read():
            pass
        assert process.wait(timeout=60) == 0
        assert "It was 'yes'" in terminal.visible
