# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import signal
import threading

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.slots import stream

LIMIT = 60


def test_as_many_as_the_bound_and_no_more(tmp_path: pathlib.Path) -> None:
    bound, rounds = 3, 4
    # Nobody gets past it alone, so the bound is reached each time.
    together = threading.Barrier(bound, timeout=LIMIT)
    lock, inside, most = threading.Lock(), 0, 0

    def pass_through() -> None:
        nonlocal inside, most
        with stream(str(tmp_path), "sbs29", bound):
            with lock:
                inside += 1
                most = max(most, inside)
            together.wait()
            with lock:
                inside -= 1

    with concurrent.futures.ThreadPoolExecutor(bound * rounds) as pool:
        for running in [pool.submit(pass_through) for _round in range(bound * rounds)]:
            running.result(LIMIT)
    assert most == bound


def test_each_source_has_streams_of_its_own(tmp_path: pathlib.Path) -> None:
    with stream(str(tmp_path), "sbs29", 1), stream(str(tmp_path), "sbs30", 1), stream(str(tmp_path), "../odd/name", 1):
        assert sorted(os.listdir(tmp_path)) == sorted(
            f"{name}.{part}" for name in ("sbs29", "sbs30", "..%2Fodd%2Fname") for part in ("0", "next")
        )


def test_a_killed_worker_holds_nothing(tmp_path: pathlib.Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with stream(str(tmp_path), "sbs29", 1):
            os.write(writing, b"inside")
            signal.pause()
    assert os.read(reading, 6) == b"inside"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    with stream(str(tmp_path), "sbs29", 1):
        pass


def test_who_has_to_wait_says_so_once(tmp_path: pathlib.Path) -> None:
    said, waiting, passed = [], threading.Event(), []

    def say() -> None:
        said.append("waiting")
        waiting.set()

    def pass_through() -> None:
        with stream(str(tmp_path), "sbs29", 1, say):
            passed.append(len(said))

    pass_through()
    assert passed == [0]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with stream(str(tmp_path), "sbs29", 1, say):
            running = pool.submit(pass_through)
            assert waiting.wait(LIMIT)
            assert passed == [0]
        running.result(LIMIT)
    assert passed == [0, 1]
