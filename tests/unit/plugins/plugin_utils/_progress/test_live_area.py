# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The area on a real pseudo-terminal, and what an emulator makes of what came there."""

from __future__ import annotations

import os
import threading
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.live_area import LiveArea

from tests.support.terminal import Terminal


class Screen:
    """An area on a terminal, and the standard streams of the program that has it."""

    def __init__(self) -> None:
        self.terminal = Terminal(40, 8)
        # As Python opens the standard streams of a terminal: written at the end of each line.
        self.stdout = open(os.dup(self.terminal.program), "w", buffering=1, encoding="utf-8")  # noqa: SIM115
        self.stderr = open(os.dup(self.terminal.program), "w", buffering=1, encoding="utf-8")  # noqa: SIM115
        self.lock = threading.RLock()
        self.area = LiveArea((self.stdout, self.stderr), self.lock)

    def see(self) -> list[str]:
        self.terminal.read_all()
        return self.terminal.visible

    def close(self) -> None:
        self.area.close()
        self.stdout.close()
        self.stderr.close()
        self.terminal.close_program()
        self.terminal.close()


@pytest.fixture
def screen() -> t.Iterator[Screen]:
    made = Screen()
    yield made
    made.close()


def test_it_is_below_what_is_printed_and_leaves_nothing(screen: Screen) -> None:
    print("TASK one", file=screen.stdout)
    screen.area.draw(["jw2-1  sending  10%", "jw3-1  loading"])
    assert screen.see() == ["TASK one", "jw2-1  sending  10%", "jw3-1  loading"]
    # Shorter ones, and fewer.
    screen.area.draw(["jw2-1  ten"])
    assert screen.see() == ["TASK one", "jw2-1  ten"]
    screen.area.draw(["jw2-1  sending  90%", "jw3-1  loading"])
    print("ok: [jw3-1]", file=screen.stdout)
    assert screen.see() == ["TASK one", "ok: [jw3-1]"]
    screen.area.draw(["jw2-1  sending  95%"])
    print("[WARNING]: of something", file=screen.stderr)
    screen.area.draw(["jw2-1  sending  96%"])
    assert screen.see() == ["TASK one", "ok: [jw3-1]", "[WARNING]: of something", "jw2-1  sending  96%"]
    screen.area.close()
    screen.area.draw(["too late"])
    print("PLAY RECAP", file=screen.stdout)
    assert screen.see() == ["TASK one", "ok: [jw3-1]", "[WARNING]: of something", "PLAY RECAP"]


def test_at_the_lower_end_of_the_screen(screen: Screen) -> None:
    for number in range(20):
        print(f"ok: [{number}]", file=screen.stdout)
        screen.area.draw(["jw2-1", "jw3-1", "kcloud-1"])
        assert screen.see()[-4:] == [f"ok: [{number}]", "jw2-1", "jw3-1", "kcloud-1"]
    screen.area.draw([])
    screen.see()
    assert screen.terminal.everything == [f"ok: [{number}]" for number in range(20)]


def test_nothing_is_drawn_into_a_line_that_is_not_ended(screen: Screen) -> None:
    screen.area.draw(["jw2-1"])
    screen.stdout.write("Go on? ")
    screen.stdout.flush()
    screen.area.draw(["jw2-1"])
    assert screen.see() == ["Go on?"]
    print("yes", file=screen.stdout)
    screen.area.draw(["jw2-1"])
    assert screen.see() == ["Go on? yes", "jw2-1"]


def test_what_was_printed_but_not_sent_comes_first(screen: Screen) -> None:
    screen.stdout.buffer.write(b"TASK one\n")
    screen.area.draw(["jw2-1"])
    assert screen.see() == ["TASK one", "jw2-1"]


def test_who_types_leaves_nothing_of_it(screen: Screen) -> None:
    print("TASK one", file=screen.stdout)
    screen.area.draw(["jw2-1", "jw3-1", "kcloud-1"])
    screen.see()
    screen.terminal.type("\r\rab")
    while screen.terminal.visible != ["TASK one", "jw2-1", "jw3-1", "abloud-1"]:
        screen.terminal.read()
    screen.area.draw(["jw2-1", "jw3-1", "kcloud-2"])
    assert screen.see() == ["TASK one", "jw2-1", "jw3-1", "kcloud-2"]
    screen.terminal.type("\rx")
    while screen.terminal.visible != ["TASK one", "jw2-1", "xw3-1", "kcloud-2"]:
        screen.terminal.read()
    print("ok: [jw2-1]", file=screen.stdout)
    assert screen.see() == ["TASK one", "ok: [jw2-1]"]


def test_lines_that_are_too_long_take_no_second_one(screen: Screen) -> None:
    # Of a script whose letters are two columns wide, too.
    screen.area.draw(["노드" * 20, "jw3-1" * 20])
    assert len(screen.see()) == 2
    screen.area.draw(["jw2-1", "jw3-1"])
    assert screen.see() == ["jw2-1", "jw3-1"]
    print("wrapped again " * 3, file=screen.stdout)
    assert screen.see() == ["wrapped again wrapped again wrapped agai", "n"]


def test_a_terminal_of_another_size(screen: Screen) -> None:
    print("TASK one", file=screen.stdout)
    screen.area.draw(["jw2-1", "jw3-1"])
    screen.see()
    screen.terminal.resize(30, 8)
    assert screen.area.size == (30, 8)
    # Although the lines are the same: nobody knows what the terminal has made of them.
    screen.area.draw(["jw2-1", "jw3-1"])
    assert screen.terminal.read_all()
    assert screen.see() == ["TASK one", "jw2-1", "jw3-1"]
    screen.terminal.resize(20, 8)
    screen.area.close()
    assert screen.see() == ["TASK one"]


def test_a_terminal_that_is_made_smaller_moves_the_area(screen: Screen) -> None:
    for number in range(6):
        print(f"ok: [{number}]", file=screen.stdout)
    screen.area.draw(["jw2-1", "jw3-1"])
    screen.see()
    screen.terminal.resize(40, 5)
    assert screen.see() == ["ok: [3]", "ok: [4]", "ok: [5]", "jw2-1", "jw3-1"]
    print("ok: [6]", file=screen.stdout)
    screen.area.draw(["jw2-2", "jw3-2"])
    assert screen.see() == ["ok: [4]", "ok: [5]", "ok: [6]", "jw2-2", "jw3-2"]


def test_what_is_shown_already_is_not_written_again(screen: Screen) -> None:
    screen.area.draw(["jw2-1"])
    screen.see()
    screen.area.draw(["jw2-1"])
    assert screen.terminal.read_all() == b""


def test_a_stream_that_goes_elsewhere_is_left_alone(tmp_path: t.Any) -> None:
    terminal = Terminal(40, 8)
    with open(terminal.program, "w", buffering=1) as stdout, open(tmp_path / "log", "w", buffering=1) as stderr:
        area = LiveArea((stdout, stderr), threading.RLock())
        area.draw(["jw2-1"])
        terminal.read_all()
        print("[WARNING]: of something", file=stderr)
        assert terminal.read_all() == b""
        area.close()
        assert (tmp_path / "log").read_text() == "[WARNING]: of something\n"
        terminal.read_all()
        assert terminal.visible == [""]
    terminal.close()


def test_a_terminal_that_was_closed_is_no_error() -> None:
    terminal = Terminal()
    with open(terminal.program, "w", buffering=1) as stdout:
        area = LiveArea((stdout,), threading.RLock())
        area.draw(["jw2-1"])
        terminal.close()
        area.draw(["jw3-1"])
        assert area.size == (80, 24)
        area.close()


def test_two_threads_and_a_lock_that_a_fork_needs(screen: Screen) -> None:
    """What prints holds the lock, as Ansible's display does; what draws does not get in its way, nor the other way round."""
    lines = [f"ok: [{number}]" for number in range(200)]

    def draw() -> None:
        for number in range(200):
            screen.area.draw([f"jw2-1  {number}%", "jw3-1"])

    def watch() -> None:
        while screen.terminal.visible[-1] != "the end":
            screen.terminal.read()

    threads = [threading.Thread(target=draw), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    for line in lines:
        with screen.lock:
            print(line, file=screen.stdout)
    threads[0].join()
    screen.area.close()
    print("the end", file=screen.stdout)
    threads[1].join()
    assert screen.terminal.everything == [*lines, "the end"]
