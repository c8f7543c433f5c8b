# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import signal
import threading

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.slots import transfer_slot

LIMIT = 60


def test_transfer_slot_concurrent_workers_reach_limit_only(tmp_path: pathlib.Path) -> None:
    slots, rounds = 3, 4
    # Only a full group passes the barrier, so the limit is reached each time.
    together = threading.Barrier(slots, timeout=LIMIT)
    lock, inside, most = threading.Lock(), 0, 0

    def pass_through() -> None:
        nonlocal inside, most
        with transfer_slot(str(tmp_path), "sbs29", slots):
            with lock:
                inside += 1
                most = max(most, inside)
            together.wait()
            with lock:
                inside -= 1

    with concurrent.futures.ThreadPoolExecutor(slots * rounds) as pool:
        for running in [pool.submit(pass_through) for _round in range(slots * rounds)]:
            running.result(LIMIT)
    assert most == slots


def test_transfer_slot_sources_are_independent(tmp_path: pathlib.Path) -> None:
    with transfer_slot(str(tmp_path), "sbs29", 1), transfer_slot(str(tmp_path), "sbs30", 1), transfer_slot(
        str(tmp_path), "../odd/name", 1
    ):
        assert sorted(os.listdir(tmp_path)) == sorted(
            f"{name}.{part}" for name in ("sbs29", "sbs30", "..%2Fodd%2Fname") for part in ("0", "next")
        )


def test_transfer_slot_killed_worker_frees_slot(tmp_path: pathlib.Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with transfer_slot(str(tmp_path), "sbs29", 1):
            os.write(writing, b"inside")
            signal.pause()
    assert os.read(reading, 6) == b"inside"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    with transfer_slot(str(tmp_path), "sbs29", 1):
        pass


def test_transfer_slot_on_wait_is_called_once(tmp_path: pathlib.Path) -> None:
    calls, waiting, passed = [], threading.Event(), []

    def on_wait() -> None:
        calls.append("waiting")
        waiting.set()

    def pass_through() -> None:
        with transfer_slot(str(tmp_path), "sbs29", 1, on_wait):
            passed.append(len(calls))

    pass_through()
    assert passed == [0]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with transfer_slot(str(tmp_path), "sbs29", 1, on_wait):
            running = pool.submit(pass_through)
            assert waiting.wait(LIMIT)
            assert passed == [0]
        running.result(LIMIT)
    assert passed == [0, 1]
