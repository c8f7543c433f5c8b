# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The live area on a pseudo-terminal, as a terminal emulator displays it."""

from __future__ import annotations

import os
import threading
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.live_area import LiveArea

from tests.support.terminal import Terminal


class Screen:
    """A live area on a terminal, and the standard streams of its program."""

    def __init__(self) -> None:
        self.terminal = Terminal(40, 8)
        # Line-buffered, as Python opens the standard streams of a terminal.
        self.stdout = open(os.dup(self.terminal.program), "w", buffering=1, encoding="utf-8")  # noqa: SIM115
        self.stderr = open(os.dup(self.terminal.program), "w", buffering=1, encoding="utf-8")  # noqa: SIM115
        self.lock = threading.RLock()
        self.area = LiveArea((self.stdout, self.stderr), self.lock)

    def read(self) -> list[str]:
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


def test_draw_between_prints_stays_below_and_leaves_nothing(screen: Screen) -> None:
    print("TASK one", file=screen.stdout)
    screen.area.draw(["jw2-1  sending  10%", "jw3-1  loading"])
    assert screen.read() == ["TASK one", "jw2-1  sending  10%", "jw3-1  loading"]
    # Shorter lines, and fewer.
    screen.area.draw(["jw2-1  ten"])
    assert screen.read() == ["TASK one", "jw2-1  ten"]
    screen.area.draw(["jw2-1  sending  90%", "jw3-1  loading"])
    print("ok: [jw3-1]", file=screen.stdout)
    assert screen.read() == ["TASK one", "ok: [jw3-1]"]
    screen.area.draw(["jw2-1  sending  95%"])
    print("[WARNING]: something", file=screen.stderr)
    screen.area.draw(["jw2-1  sending  96%"])
    assert screen.read() == ["TASK one", "ok: [jw3-1]", "[WARNING]: something", "jw2-1  sending  96%"]
    screen.area.close()
    screen.area.draw(["too late"])
    print("PLAY RECAP", file=screen.stdout)
    assert screen.read() == ["TASK one", "ok: [jw3-1]", "[WARNING]: something", "PLAY RECAP"]


def test_draw_at_the_bottom_of_the_screen_scrolls(screen: Screen) -> None:
    for number in range(20):
        print(f"ok: [{number}]", file=screen.stdout)
        screen.area.draw(["jw2-1", "jw3-1", "kcloud-1"])
        assert screen.read()[-4:] == [f"ok: [{number}]", "jw2-1", "jw3-1", "kcloud-1"]
    screen.area.draw([])
    screen.read()
    assert screen.terminal.everything == [f"ok: [{number}]" for number in range(20)]


def test_draw_after_unfinished_line_waits_for_its_end(screen: Screen) -> None:
    screen.area.draw(["jw2-1"])
    screen.stdout.write("Go on? ")
    screen.stdout.flush()
    screen.area.draw(["jw2-1"])
    assert screen.read() == ["Go on?"]
    print("yes", file=screen.stdout)
    screen.area.draw(["jw2-1"])
    assert screen.read() == ["Go on? yes", "jw2-1"]


def test_draw_flushes_buffered_output_first(screen: Screen) -> None:
    screen.stdout.buffer.write(b"TASK one\n")
    screen.area.draw(["jw2-1"])
    assert screen.read() == ["TASK one", "jw2-1"]


def test_draw_after_typed_input_removes_it(screen: Screen) -> None:
    print("TASK one", file=screen.stdout)
    screen.area.draw(["jw2-1", "jw3-1", "kcloud-1"])
    screen.read()
    screen.terminal.type("\r\rab")
    while screen.terminal.visible != ["TASK one", "jw2-1", "jw3-1", "abloud-1"]:
        screen.terminal.read()
    screen.area.draw(["jw2-1", "jw3-1", "kcloud-2"])
    assert screen.read() == ["TASK one", "jw2-1", "jw3-1", "kcloud-2"]
    screen.terminal.type("\rx")
    while screen.terminal.visible != ["TASK one", "jw2-1", "xw3-1", "kcloud-2"]:
        screen.terminal.read()
    print("ok: [jw2-1]", file=screen.stdout)
    assert screen.read() == ["TASK one", "ok: [jw2-1]"]


def test_draw_long_lines_do_not_wrap(screen: Screen) -> None:
    # The first line has letters that are two columns wide.
    screen.area.draw(["노드" * 20, "jw3-1" * 20])
    assert len(screen.read()) == 2
    screen.area.draw(["jw2-1", "jw3-1"])
    assert screen.read() == ["jw2-1", "jw3-1"]
    print("wrapped again " * 3, file=screen.stdout)
    assert screen.read() == ["wrapped again wrapped again wrapped agai", "n"]


def test_draw_after_resize_redraws(screen: Screen) -> None:
    print("TASK one", file=screen.stdout)
    screen.area.draw(["jw2-1", "jw3-1"])
    screen.read()
    screen.terminal.resize(30, 8)
    assert screen.area.size == (30, 8)
    # Even the same lines are drawn again, because the terminal may have rewrapped them.
    screen.area.draw(["jw2-1", "jw3-1"])
    assert screen.terminal.read_all()
    assert screen.read() == ["TASK one", "jw2-1", "jw3-1"]
    screen.terminal.resize(20, 8)
    screen.area.close()
    assert screen.read() == ["TASK one"]


def test_draw_on_shrunken_terminal_follows_the_area(screen: Screen) -> None:
    for number in range(6):
        print(f"ok: [{number}]", file=screen.stdout)
    screen.area.draw(["jw2-1", "jw3-1"])
    screen.read()
    screen.terminal.resize(40, 5)
    assert screen.read() == ["ok: [3]", "ok: [4]", "ok: [5]", "jw2-1", "jw3-1"]
    print("ok: [6]", file=screen.stdout)
    screen.area.draw(["jw2-2", "jw3-2"])
    assert screen.read() == ["ok: [4]", "ok: [5]", "ok: [6]", "jw2-2", "jw3-2"]


def test_draw_same_lines_writes_nothing(screen: Screen) -> None:
    screen.area.draw(["jw2-1"])
    screen.read()
    screen.area.draw(["jw2-1"])
    assert screen.terminal.read_all() == b""


def test_live_area_redirected_stream_is_unchanged(tmp_path: t.Any) -> None:
    terminal = Terminal(40, 8)
    with open(terminal.program, "w", buffering=1) as stdout, open(tmp_path / "log", "w", buffering=1) as stderr:
        area = LiveArea((stdout, stderr), threading.RLock())
        area.draw(["jw2-1"])
        terminal.read_all()
        print("[WARNING]: something", file=stderr)
        assert terminal.read_all() == b""
        area.close()
        assert (tmp_path / "log").read_text() == "[WARNING]: something\n"
        terminal.read_all()
        assert terminal.visible == [""]
    terminal.close()


def test_draw_on_closed_terminal_does_not_fail() -> None:
    terminal = Terminal()
    with open(terminal.program, "w", buffering=1) as stdout:
        area = LiveArea((stdout,), threading.RLock())
        area.draw(["jw2-1"])
        terminal.close()
        area.draw(["jw3-1"])
        assert area.size == (80, 24)
        area.close()


def test_draw_and_print_in_two_threads_share_the_lock(screen: Screen) -> None:
    """One thread prints with the lock held, as Ansible does, while another one draws."""
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
