# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events of forked processes. Emitting one never waits and never fails."""

from __future__ import annotations

import os
import threading
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress import events
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.events import Event, Listener, Meter, emit
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import SENDING, WAITING


@pytest.fixture
def listener() -> t.Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


def test_emit_in_forked_processes_arrives(listener: Listener) -> None:
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
    received = sorted(listener.events(), key=lambda event: event.bytes)
    assert received == [Event(f"node-{number}", SENDING, "grammar_lora", 5 * number, 100) for number in range(10)]
    assert list(listener.events()) == []


def test_emit_without_listener_does_nothing() -> None:
    emit(Event("jw2-1", WAITING))
    listener = Listener()
    listener.close()
    emit(Event("jw2-1", WAITING))
    Meter("jw2-1", "grammar_lora", 100)(50)


def test_emit_after_listener_process_ended_does_not_fail(listener: Listener) -> None:
    # As in a worker, which has its own copy of both ends.
    listener._receiver.close()
    emit(Event("jw2-1", WAITING))


def test_emit_with_full_buffer_drops_events_without_waiting(listener: Listener) -> None:
    for number in range(20_000):
        emit(Event("jw2-1", SENDING, "grammar_lora", number, 20_000))
    listener.wake()
    received = list(listener.events())
    assert [event.bytes for event in received] == list(range(len(received)))
    assert 50 < len(received) < 20_000
    emit(Event("jw2-1", WAITING))
    assert list(listener.events()) == [Event("jw2-1", WAITING)]


def test_wait_ends_when_woken(listener: Listener) -> None:
    waiting = threading.Thread(target=listener.wait)
    waiting.start()
    listener.wake()
    waiting.join()
    assert list(listener.events()) == []


def test_meter_emits_a_few_times_a_second(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0.05, 0.15, 0.25, 0.3, 0.5, 0.9, 0.95]
    clock = iter([0.0, *times])
    monkeypatch.setattr(events.time, "monotonic", lambda: next(clock))
    meter = Meter("jw2-1", "grammar_lora", 1000)
    for _time in times:
        meter(100)
    meter.done()
    received = list(listener.events())
    assert {(event.host, event.phase, event.adapter, event.total) for event in received} == {
        ("jw2-1", SENDING, "grammar_lora", 1000)
    }
    assert [event.bytes for event in received] == [0, 300, 500, 600, 1000]


@pytest.mark.parametrize(("total", "expected"), [(100, [0, 60, 99, 99, 100]), (0, [0, 60, 110, 120, 120])])
def test_meter_reaches_total_only_when_done(
    total: int, expected: list[int], listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 bytes, 50 in another try that resends lost ones, and 10 of rsync's protocol."""
    monkeypatch.setattr(events, "_INTERVAL", 0)
    meter = Meter("jw2-1", "grammar_lora", total)
    for count in (60, 50, 10):
        meter(count)
    meter.done()
    assert [event.bytes for event in listener.events()] == expected
