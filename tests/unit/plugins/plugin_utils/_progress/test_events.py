# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What forked processes tell, and that emitting an event never waits and never fails."""

from __future__ import annotations

import os
import threading
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress import events
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.events import (
    SENDING,
    WAITING,
    Event,
    Listener,
    Meter,
    emit,
)


@pytest.fixture
def listener() -> t.Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


def test_forked_processes_are_heard(listener: Listener) -> None:
    children = []
    for number in range(10):
        child = os.fork()
        if child == 0:
            emit(Event(f"node-{number}", SENDING, "grammar_lora", 5 * number, 100))
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    listener.wait()
    heard = sorted(listener.events(), key=lambda event: event.bytes)
    assert heard == [Event(f"node-{number}", SENDING, "grammar_lora", 5 * number, 100) for number in range(10)]
    assert list(listener.events()) == []


def test_where_nobody_listens_nothing_happens() -> None:
    emit(Event("jw2-1", WAITING))
    listener = Listener()
    listener.close()
    emit(Event("jw2-1", WAITING))
    Meter("jw2-1", "grammar_lora", 100)(50)


def test_a_worker_that_outlives_the_listener_is_not_troubled(listener: Listener) -> None:
    # As in a worker: it has its own copy of both ends, and the process that listened is gone.
    listener._receiver.close()
    emit(Event("jw2-1", WAITING))


def test_what_nobody_takes_is_lost_and_waits_for_nobody(listener: Listener) -> None:
    for number in range(20_000):
        emit(Event("jw2-1", SENDING, "grammar_lora", number, 20_000))
    listener.wake()
    heard = list(listener.events())
    assert [event.bytes for event in heard] == list(range(len(heard)))
    assert 50 < len(heard) < 20_000
    emit(Event("jw2-1", WAITING))
    assert list(listener.events()) == [Event("jw2-1", WAITING)]


def test_who_waits_can_be_woken(listener: Listener) -> None:
    waiting = threading.Thread(target=listener.wait)
    waiting.start()
    listener.wake()
    waiting.join()
    assert list(listener.events()) == []


def test_a_meter_tells_a_few_times_a_second(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0.05, 0.15, 0.25, 0.3, 0.5, 0.9, 0.95]
    clock = iter([0.0, *times])
    monkeypatch.setattr(events.time, "monotonic", lambda: next(clock))
    meter = Meter("jw2-1", "grammar_lora", 1000)
    for _time in times:
        meter(100)
    meter.done()
    heard = list(listener.events())
    assert {(event.host, event.phase, event.adapter, event.total) for event in heard} == {
        ("jw2-1", SENDING, "grammar_lora", 1000)
    }
    assert [event.bytes for event in heard] == [0, 300, 500, 600, 1000]


@pytest.mark.parametrize(("total", "expected"), [(100, [0, 60, 99, 99, 100]), (0, [0, 60, 110, 120, 120])])
def test_all_has_come_only_when_all_has_come(
    total: int, expected: list[int], listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty, then fifty in another try, as what was on the way was lost, and then what rsync has to say."""
    monkeypatch.setattr(events, "_INTERVAL", 0)
    meter = Meter("jw2-1", "grammar_lora", total)
    for count in (60, 50, 10):
        meter(count)
    meter.done()
    assert [event.bytes for event in listener.events()] == expected
