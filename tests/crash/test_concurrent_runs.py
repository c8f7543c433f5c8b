# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Concurrent runs, killed at random while a server reads, and a run during a stopped one."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import pathlib
import random
import signal
import time
import typing as t

import pytest

from tests.crash.conftest import Count
from tests.crash.scenarios import BY_HAND, content_sums, second_run, sha256, wrong_content
from tests.crash.traced import attempt
from tests.support import invariants
from tests.support.releases import release_of, stage, write_version
from tests.support.transactions import Method, Node

ROUNDS = 40
VERSIONS = (1, 2, 3, 4, 5, 6)


@pytest.mark.usefixtures("strace")
def test_second_run_is_refused_at_any_step(directory: pathlib.Path) -> None:
    found = list(second_run(directory))
    assert len(found) > 5
    assert [what for each in found for what in each] == []


def test_wrong_staged_content_is_refused(directory: pathlib.Path) -> None:
    assert [what for each in wrong_content(directory) for what in each] == []


def fork(work: t.Callable[[], object]) -> int:
    """Start ``work`` in a new process, which exits with 0, or with 1 after a DeliveryError."""
    process = os.fork()
    if process == 0:
        status = 2
        with contextlib.suppress(BaseException):
            status = attempt(lambda: bool(work())).code or 0
        os._exit(status)
    return process


@contextlib.contextmanager
def reader(node: Node, directory: pathlib.Path) -> t.Iterator[None]:
    """A server that keeps opening NAME in the block and must always find a complete version."""
    stop, seen = directory / "stop", directory / "seen"
    by_hand = invariants.content_of(str(node.served))
    complete = [by_hand, *map(content_sums, VERSIONS)]

    def read() -> None:
        found: collections.Counter[str] = collections.Counter()
        while not stop.exists():
            try:
                content = invariants.content_of(str(node.served))
                found[f"version {complete.index(content)}" if content in complete else "torn"] += 1
            except OSError as exc:
                found[str(exc)] += 1
        seen.write_text(json.dumps(found))

    process = fork(read)
    try:
        yield
    finally:
        stop.touch()
        os.waitpid(process, 0)
    found = json.loads(seen.read_text())
    assert all(what.startswith("version ") for what in found), found
    assert sum(found.values()) > ROUNDS
    # The reader saw swaps, not one version all the time.
    assert len(found) > 2


@pytest.mark.parametrize("method", ["exchange", "symlink"])
def test_concurrent_runs_killed_at_random_keep_invariants(directory: pathlib.Path, method: Method, count: Count) -> None:
    node = Node(directory)
    write_version(node.served, 7, mode=0o644)
    (node.served / "unknown").write_bytes(BY_HAND)
    by_hand = invariants.content_of(str(node.served))
    chance = random.Random(7)  # noqa: S311
    ended: collections.Counter[int] = collections.Counter()

    def carry_out(version: int) -> bool:
        node.carry_out(version, method, lock_timeout=10)
        return node.changed

    def violations(wanted: int, code: t.Optional[int], **more: t.Any) -> list[str]:
        adapter = {
            "releases": {release_of(version): content_sums(version) for version in VERSIONS},
            "wanted": release_of(wanted),
            "before": by_hand,
            "survives": [{"unknown": sha256(BY_HAND), **content_sums(7)}],
            "method": method,
        }
        places = {"models_dir": str(node.models), "store": str(node.store)}
        return invariants.violations({**places, "code": code, "adapters": {node.paths.name: adapter}, **more})

    with reader(node, directory.parent):
        for number in range(ROUNDS):
            pair = chance.sample(VERSIONS, 2)
            for version in pair:
                stage_if_absent(node, version)
            runs = [fork(functools.partial(carry_out, version)) for version in pair]
            # A random delay kills them at a different point in each round.
            time.sleep(chance.uniform(0, 0.08))
            for run in runs:
                if chance.random() < 0.6:
                    os.kill(run, signal.SIGKILL)
            ended.update(os.waitstatus_to_exitcode(os.waitpid(run, 0)[1]) for run in runs)
            found = [violations(version, None) for version in VERSIONS]
            assert [] in found, f"after round {number}: {found}"
    stage_if_absent(node, 2)
    carry_out(2)
    assert violations(2, 0, again={"code": 0, "changed": carry_out(2)}) == []
    count("concurrent runs killed", ended[-signal.SIGKILL])
    assert ended[-signal.SIGKILL] > ROUNDS / 4
    assert ended[0] > ROUNDS / 10


def stage_if_absent(node: Node, version: int) -> None:
    """Stage a release as adapter_sync does, which transfers nothing that is present."""
    if not node.release(version).exists() and not os.path.exists(node.paths.staged(release_of(version))):
        stage(node.paths, version)
