# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.events import Event
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.tracker import Progress
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import SENDING, VERIFYING, WAITING

NAME = "llama32_3b_wikipedia_only_lora"
MB = 1_000_000


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def progress(time: Time) -> Progress:
    return Progress(time)


def test_lines_show_each_busy_node(progress: Progress, time: Time) -> None:
    progress.add(Event("jw2-1", SENDING, NAME, 0, 97 * MB))
    progress.add(Event("kcloud-1", "loading on cuda:0"))
    time.now += 2
    progress.add(Event("jw2-1", SENDING, NAME, 24 * MB, 97 * MB))
    # The width of a terminal, less one column.
    assert progress.lines(79, 12) == [
        f"jw2-1     {NAME}  sending   24%   12.0 MB/s   0:07 left",
        f"kcloud-1  {'':30}  loading on cuda:0  0:02",
    ]
    progress.end("jw2-1")
    assert progress.lines(79, 12) == ["kcloud-1  loading on cuda:0  0:02"]
    progress.add(Event("jw2-1", VERIFYING))
    time.now += 3600
    assert progress.lines(79, 12) == ["jw2-1     verifying  1:00:00", "kcloud-1  loading on cuda:0  1:00:02"]
    progress.end("jw2-1")
    progress.end("kcloud-1")
    progress.end("unknown")
    assert progress.lines(79, 12) == []


def test_lines_sort_nodes_by_number(progress: Progress) -> None:
    for host in ("node-10", "node-9", "192.0.2.11", "node", "٣-1", "node-1b", "192.0.2.2"):
        progress.add(Event(host, WAITING))
    assert [line.split()[0] for line in progress.lines(79, 12)] == [
        *("٣-1", "192.0.2.2", "192.0.2.11", "node", "node-1b", "node-9", "node-10")
    ]


def test_lines_rate_covers_the_last_seconds(progress: Progress, time: Time) -> None:
    def line() -> str:
        [shown] = progress.lines(79, 12)
        return shown.partition("sending")[2]

    came = 0
    progress.add(Event("jw2-1", SENDING, NAME, 0, 100 * MB))
    assert line() == "  0:00"
    for second in range(20):
        time.now += 1
        came += 2 * MB if second < 10 else MB
        progress.add(Event("jw2-1", SENDING, NAME, came, 100 * MB))
        if second == 9:
            assert line() == "   20%    2.0 MB/s   0:40 left"
    assert line() == "   30%    1.0 MB/s   1:10 left"
    # The rate of a stalled transfer falls to 0, and the remaining time disappears.
    time.now += 2.5
    assert line() == "   30%  545.5 kB/s   2:09 left"
    time.now += 10
    assert line() == "   30%       0 B/s"


def test_lines_rate_restarts_with_each_adapter(progress: Progress, time: Time) -> None:
    progress.add(Event("jw2-1", SENDING, "first", 0, 100 * MB))
    time.now += 1
    progress.add(Event("jw2-1", SENDING, "first", 100 * MB, 100 * MB))
    assert progress.lines(79, 12) == ["jw2-1  first  sending  100%  100.0 MB/s   0:00 left"]
    progress.add(Event("jw2-1", SENDING, "second", 0, 100 * MB))
    assert progress.lines(79, 12) == ["jw2-1  second  sending  0:00"]


def test_lines_without_total_have_no_percentage(progress: Progress, time: Time) -> None:
    progress.add(Event("jw2-1", SENDING, "first"))
    time.now += 2
    progress.add(Event("jw2-1", SENDING, "first", 5_400_000))
    assert progress.lines(79, 12) == ["jw2-1  first  sending    5.4 MB    2.7 MB/s"]


def test_lines_on_narrow_terminal_are_cut(progress: Progress, time: Time) -> None:
    progress.add(Event("jw2-1", SENDING, NAME, 0, 97 * MB))
    time.now += 2
    progress.add(Event("jw2-1", SENDING, NAME, 24 * MB, 97 * MB))
    assert progress.lines(60, 12) == ["jw2-1  llama32_3b_w..  sending   24%   12.0 MB/s   0:07 left"]
    for columns in range(60):
        [line] = progress.lines(columns, 12)
        assert len(line) <= columns


def test_lines_fewer_than_nodes_count_the_rest(progress: Progress) -> None:
    for number in range(50):
        phase = SENDING if number % 5 == 0 else WAITING if number < 40 else "loading on cuda"
        progress.add(Event(f"node-{number:02}", phase))
    lines = progress.lines(79, 12)
    assert len(lines) == 12
    shown = [line.split()[0] for line in lines[:-1]]
    # None that waits.
    assert shown == [f"node-{number:02}" for number in (0, 5, 10, 15, 20, 25, 30, 35, 40, 41, 42)]
    assert lines[-1] == "and 39 more: 6 loading on cuda, 1 sending, 32 waiting for a transfer slot"
    assert len(progress.lines(79, 50)) == 50


def test_add_new_phase_returns_a_line(progress: Progress) -> None:
    events = [
        Event("jw2-1", "describing the adapters"),
        Event("jw2-1", WAITING),
        Event("jw2-1", WAITING),
        Event("jw2-1", SENDING, "first", 0, 97_308_719),
        Event("jw3-1", SENDING, "first", 0, 950),
        Event("jw2-1", SENDING, "first", 80_000_000, 97_308_719),
        Event("jw2-1", SENDING, "second"),
        Event("jw2-1", VERIFYING),
    ]
    assert [line for line in map(progress.add, events) if line] == [
        "jw2-1: describing the adapters",
        "jw2-1: waiting for a transfer slot",
        "jw2-1: sending first, 97.3 MB",
        "jw3-1: sending first, 950 B",
        "jw2-1: sending second",
        "jw2-1: verifying",
    ]
    progress.end("jw2-1")
    # For example in another play.
    assert progress.add(Event("jw2-1", VERIFYING)) == "jw2-1: verifying"


def test_add_control_characters_are_replaced(progress: Progress) -> None:
    event = Event("jw2\r-1", SENDING, "\x1b[2Jfirst\n\x9b")
    assert progress.add(event) == "jw2?-1: sending ?[2Jfirst??"
    assert progress.lines(79, 12) == ["jw2?-1  ?[2Jfirst??  sending  0:00"]
