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
    for host in ("node-10", "node-9"):
        progress.add(Event(host, WAITING))
    assert [line.split()[0] for line in progress.lines(79, 12)] == ["node-9", "node-10"]


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


def test_lines_fewer_than_busy_nodes_are_counts_and_the_slowest(progress: Progress, time: Time) -> None:
    for number in range(50):
        time.now += 1
        phase = SENDING if number % 5 == 0 else WAITING if number < 40 else "loading on cuda"
        progress.add(Event(f"node-{number:02}", phase))
    lines = progress.lines(90, 12)
    assert lines[0] == "50 busy: 32 waiting for a transfer slot, 10 sending, 8 loading on cuda"
    # None that waits, and the ones that have been in their phase for the longest time.
    assert [line.split()[0] for line in lines[1:]] == [
        f"node-{number:02}" for number in (0, 5, 10, 15, 20, 25, 30, 35, 40, 41, 42)
    ]
    # The next adapter is still the same phase, and the next phase is not.
    time.now += 1
    progress.add(Event("node-00", SENDING, NAME))
    progress.add(Event("node-05", VERIFYING))
    assert [line.split()[0] for line in progress.lines(90, 4)[1:]] == ["node-00", "node-10", "node-15"]
    assert len(progress.lines(90, 50)) == 50
    for rows in range(1, 60):
        assert len(progress.lines(90, rows)) <= rows


def test_lines_of_a_large_fleet_begin_with_counts(progress: Progress) -> None:
    nodes = [f"jw2-{number}" for number in range(1, 201)]
    progress.expect(nodes)
    assert progress.lines(79, 12) == []
    progress.add(Event("jw2-1", WAITING))
    assert progress.lines(79, 12)[0] == "199 to come, 1 busy: 1 waiting for a transfer slot"
    for node in nodes[:150]:
        progress.add(Event(node, "activating"))
        progress.end(node, finished=node != "jw2-7", failed=node == "jw2-7")
    for node in nodes[150:152]:
        progress.add(Event(node, SENDING, NAME))
    # Of the training server's failure, the nodes have their own.
    progress.end("sbs29", failed=True)
    assert progress.lines(79, 12) == [
        "149 done, 1 failed, 48 to come, 2 busy: 2 sending",
        f"jw2-151  {NAME}  sending  0:00",
        f"jw2-152  {NAME}  sending  0:00",
    ]
    # A later step of a node that had failed or was through: a rescue, or its engines.
    progress.add(Event("jw2-7", "activating"))
    assert progress.lines(79, 2)[0] == "149 done, 48 to come, 3 busy: 2 sending, 1 activating"
    # A fleet that fits has a line for each busy node, as always.
    assert len(progress.lines(79, 200)) == 3


def test_add_plainly_large_fleet_sums_up_from_time_to_time(progress: Progress, time: Time) -> None:
    progress.expect(f"jw2-{number}" for number in range(1, 201))
    assert progress.add_plainly(Event("jw2-1", "activating")) == ["199 to come, 1 busy: 1 activating", "jw2-1  activating  0:00"]
    time.now += 29
    assert progress.add_plainly(Event("jw2-2", "activating")) == []
    for number in range(3, 9):
        progress.add_plainly(Event(f"jw2-{number}", WAITING))
    time.now += 1
    assert progress.add_plainly(Event("jw2-9", WAITING)) == [
        "191 to come, 9 busy: 7 waiting for a transfer slot, 2 activating",
        "jw2-1  activating  0:30",
        "jw2-2  activating  0:01",
        "jw2-3  waiting for a transfer slot  0:01",
    ]


def test_add_plainly_small_fleet_has_a_line_for_each_phase(progress: Progress) -> None:
    progress.expect(["jw2-1", "jw2-2"])
    assert progress.add_plainly(Event("jw2-1", VERIFYING)) == ["jw2-1: verifying"]
    assert progress.add_plainly(Event("jw2-1", VERIFYING)) == []


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


def test_place_wave_of_a_node_is_in_its_lines(progress: Progress) -> None:
    progress.place("jw2-1", {"cleaner": [2, 3], "tagger": [1, 1]})
    progress.place("jw2-2", {"cleaner": [1, 1]})
    assert progress.add(Event("jw2-1", "activating")) == "jw2-1: wave 2 of 3: activating"
    assert progress.add(Event("jw2-2", "activating")) == "jw2-2: activating"
    assert [line.split("  ")[1] for line in progress.lines(79, 9)] == ["wave 2 of 3: activating", "activating"]


def test_add_control_characters_are_replaced(progress: Progress) -> None:
    event = Event("jw2\r-1", SENDING, "\x1b[2Jfirst\n\x9b")
    assert progress.add(event) == "jw2?-1: sending ?[2Jfirst??"
    assert progress.lines(79, 12) == ["jw2?-1  ?[2Jfirst??  sending  0:00"]
