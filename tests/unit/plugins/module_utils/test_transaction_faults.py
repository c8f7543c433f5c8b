# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's transaction under faults: strace kills it, or lets a system call fail, at every call that matters."""

from __future__ import annotations

import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.small_releases import WEIGHTS, release_of, stage, version_at, write_version
from tests.small_transactions import Node, Way

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

CHILD = """
import pathlib, sys
from tests.small_transactions import Node
base, scenario, way = sys.argv[1:]
node = Node(pathlib.Path(base))
node.roll_back(way) if scenario == "roll_back" else node.carry_out(2, way, keep=1)
"""
# Each of these changes what is on the disk, or makes it durable. A "?" is for those that a machine does not have.
CALLS = ("fsync", "renameat2", "?rename", "?renameat", "?mkdir", "?mkdirat", "?symlink", "?symlinkat", "unlinkat", "?rmdir")
UNKNOWN = b"made by hand"


def child(node: Node, scenario: str, way: Way, *strace: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", "-c", CHILD, str(node.base), scenario, way]
    if strace:
        command = ["strace", "-f", "--seccomp-bpf", "-qq", *strace, *command]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


# Each scenario: what is there before, which versions NAME may lead to, and which one a run again must reach.


def take_over(node: Node, way: Way) -> None:
    write_version(node.live, 7)
    (node.live / "unknown").write_bytes(UNKNOWN)
    stage(node.paths, 2)


def following(node: Node, way: Way) -> None:
    for version in (3, 1):
        node.deploy(version, way)
    stage(node.paths, 2)


def roll_back(node: Node, way: Way) -> None:
    for version in (2, 1):
        node.deploy(version, way)


def repair(node: Node, way: Way) -> None:
    node.deploy(2, way)
    (node.live / "unknown").write_bytes(UNKNOWN)
    if way == "exchange":
        (node.release(2) / WEIGHTS).write_bytes(b"damage")
    stage(node.paths, 2)


SCENARIOS = {"take_over": take_over, "following": following, "roll_back": roll_back, "repair": repair}


def weights_at(path: pathlib.Path) -> t.Optional[int]:
    """Which version is there, whatever was added by hand."""
    with_unknown = path / "unknown"
    if not with_unknown.exists():
        return version_at(path)
    copy = path.parent.parent / "without-unknown"
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns("unknown"))
    try:
        return version_at(copy)
    finally:
        shutil.rmtree(copy)


def assert_nothing_lost(node: Node, scenario: str) -> None:
    found = [path for path in node.base.rglob("unknown") if path.read_bytes() == UNKNOWN]
    assert bool(found) == (scenario in ("take_over", "repair"))
    if scenario == "take_over":
        assert any(weights_at(path.parent) == 7 for path in found)
    if scenario in ("following", "roll_back"):
        assert version_at(node.release(1)) == 1


class Faults:
    """A node brought before each fault, from a copy made once."""

    def __init__(self, directory: pathlib.Path, scenario: str, way: Way) -> None:
        self.scenario, self.way = scenario, way
        self.template = directory / "template"
        self.template.mkdir()
        SCENARIOS[scenario](Node(self.template), way)
        self.directory = directory / "node"

    def fresh(self) -> Node:
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(self.template, self.directory, symlinks=True)
        return Node(self.directory)

    def counts(self) -> dict[str, int]:
        """How often each of the calls is made when nothing fails."""
        node = self.fresh()
        log = self.directory.parent / "strace"
        done = child(node, self.scenario, self.way, "-o", str(log), "-e", f"trace={','.join(CALLS)}")
        assert done.returncode == 0, done.stderr
        self.check(node, done.returncode)
        calls = re.findall(r"^\d+ +(\w+)\(", log.read_text(), flags=re.MULTILINE)
        return collections.Counter(calls)

    def strike(self, call: str, number: int, fault: str) -> tuple[Node, int]:
        node = self.fresh()
        inject = f"inject={call}:{fault}:when={number}"
        done = child(node, self.scenario, self.way, "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        return node, done.returncode

    def check(self, node: Node, returncode: int) -> None:
        allowed = {"take_over": (7, 2), "repair": (2,)}.get(self.scenario, (1, 2))
        assert weights_at(node.live) in allowed
        if returncode == 0:
            assert version_at(node.live) == 2
        assert_nothing_lost(node, self.scenario)

    def check_again(self, node: Node) -> None:
        """A run again reaches what was wanted and leaves no junk; one more has nothing to do."""
        if self.scenario == "roll_back":
            # An interrupted one is finished; a finished one would return, and is told apart by the recorded state.
            if '"active": "' + release_of(2) not in pathlib.Path(node.paths.state).read_text():
                node.roll_back(self.way)
            outcome = node.roll_back(self.way, release=release_of(2))
        else:
            node.carry_out(2, self.way, keep=1)
            outcome = node.carry_out(2, self.way, keep=1)
        assert outcome["action"] == "unchanged"
        assert version_at(node.live) == version_at(node.release(2)) == 2
        assert_nothing_lost(node, self.scenario)
        assert node.junk() == []


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("way", ["exchange", "symlink"])
def test_killed_at_every_step(tmp_path: pathlib.Path, way: Way, scenario: str) -> None:
    faults = Faults(tmp_path, scenario, way)
    for call, count in faults.counts().items():
        for number in range(1, count + 1):
            node, returncode = faults.strike(call, number, "signal=KILL")
            try:
                faults.check(node, returncode)
                faults.check_again(node)
            except (AssertionError, DeliveryError, OSError) as exc:
                raise AssertionError(f"killed at {call} number {number} of {count}") from exc


@pytest.mark.parametrize("scenario", ["take_over", "following"])
@pytest.mark.parametrize("way", ["exchange", "symlink"])
def test_failed_fsync_is_never_a_success(tmp_path: pathlib.Path, way: Way, scenario: str) -> None:
    faults = Faults(tmp_path, scenario, way)
    count = faults.counts()["fsync"]
    for number in range(1, count + 1):
        node, returncode = faults.strike("fsync", number, "error=EIO")
        try:
            assert returncode != 0
            faults.check(node, returncode)
            faults.check_again(node)
        except (AssertionError, DeliveryError, OSError) as exc:
            raise AssertionError(f"fsync number {number} of {count} failed") from exc


def test_full_disk(tmp_path: pathlib.Path) -> None:
    """What was half made is removed at once, so that the disk is not fuller than before."""
    faults = Faults(tmp_path, "following", "exchange")
    node, returncode = faults.strike("mkdir", faults.counts()["mkdir"], "error=ENOSPC")
    assert returncode != 0
    assert version_at(node.live) == 1
    assert not list(node.root.glob("incoming-*"))
    faults.check_again(node)


WITHOUT_EXCHANGE = ("-o", "/dev/null", "-e", "trace=renameat2", "-e", "inject=renameat2:error=EINVAL")


def test_file_system_without_exchange_uses_links(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path)
    for version in (1, 2):
        stage(node.paths, version)
        done = child(node, "following", "auto", *WITHOUT_EXCHANGE) if version == 2 else node.deploy(1, "symlink")
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.returncode == 0, done.stderr
    assert node.live.is_symlink()
    assert version_at(node.live) == 2
    assert node.junk() == []


def test_first_link_on_a_file_system_without_exchange(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path)
    stage(node.paths, 2)
    assert child(node, "first", "auto", *WITHOUT_EXCHANGE).returncode == 0
    assert node.live.is_symlink()
    assert version_at(node.live) == 2
    (node.live / "unknown").write_bytes(UNKNOWN)
    stage(node.paths, 2)
    assert child(node, "repair", "auto", *WITHOUT_EXCHANGE).returncode == 0
    assert version_at(node.live) == 2
    assert_nothing_lost(node, "repair")


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("auto", "is a plain directory, and this file system cannot exchange it"),
        ("symlink", "is a plain directory, and this file system cannot exchange it"),
        ("exchange", "cannot be exchanged in one step"),
    ],
)
def test_take_over_on_a_file_system_without_exchange(tmp_path: pathlib.Path, way: Way, message: str) -> None:
    node = Node(tmp_path)
    take_over(node, way)
    done = child(node, "take_over", way, *WITHOUT_EXCHANGE)
    assert done.returncode != 0
    assert message in done.stderr
    assert weights_at(node.live) == 7
    assert node.junk() == [release_of(2)]
