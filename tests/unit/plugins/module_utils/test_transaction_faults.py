# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's transaction under faults: strace kills it, or lets a system call fail, at every call that matters."""

from __future__ import annotations

import collections
import ctypes
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.small_releases import WEIGHTS, content, release_of, stage, version_at, write_version
from tests.small_transactions import Node, Way

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

# Each of these changes what is on the disk, or makes it durable. A "?" is for those that a machine does not have.
CALLS = (
    "openat",
    "fsync",
    "renameat2",
    "?rename",
    "?renameat",
    "?mkdir",
    "?mkdirat",
    "?symlink",
    "?symlinkat",
    "unlinkat",
    "?rmdir",
)
UNKNOWN = b"made by hand"


# From the kernel's prctl.h: lets a process that is no ancestor trace this one, where that is restricted.
PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)


def child(node: Node, scenario: str, way: Way, *strace: str) -> int:
    """Run the transaction in a process of its own under strace; return its exit status, negative for a signal.

    A fork, because hundreds of starts of Python would take minutes. What it has to say goes to standard error.
    """
    go_read, go_write = os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)
            os.close(go_write)
            os.read(go_read, 1)
            if scenario == "roll_back":
                node.roll_back(way)
            else:
                node.carry_out(2, way, keep=1)
            status = 0
        except (DeliveryError, OSError) as exc:
            os.write(2, str(exc).encode())
        finally:
            os._exit(status)
    os.close(go_read)
    with subprocess.Popen(["strace", "-f", *strace, "-p", str(process)], stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        os.close(go_write)
        tracer.stderr.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert "attached" in attached
    return status


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

    def keep_as_template(self) -> None:
        """Let every fault from now on find the node as it is."""
        shutil.rmtree(self.template)
        self.directory.rename(self.template)

    def points(self) -> list[tuple[str, int, bool]]:
        """Each system call to strike at, which one of its kind it is in its thread, and whether it finds the disk changed.

        Opening a file is a point where it creates one.
        """
        node = self.fresh()
        log = self.directory.parent / "strace"
        status = child(node, self.scenario, self.way, "-o", str(log), "-e", f"trace={','.join(CALLS)}")
        assert status == 0
        self.check(node, status)
        # strace counts for each thread on its own.
        counts: collections.Counter[tuple[str, str]] = collections.Counter()
        points: dict[tuple[str, int], bool] = {}
        changed = True
        for thread, call, arguments in re.findall(r"^(\d+) +(\w+)\((.*)", log.read_text(), flags=re.MULTILINE):
            counts[thread, call] += 1
            if call != "openat" or "O_CREAT" in arguments:
                points.setdefault((call, counts[thread, call]), changed)
                changed = call != "fsync"
        return [(*point, changed) for point, changed in points.items()]

    def strike(self, call: str, number: int, fault: str) -> tuple[Node, int]:
        node = self.fresh()
        inject = f"inject={call}:{fault}:when={number}"
        return node, child(node, self.scenario, self.way, "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)

    def check(self, node: Node, status: int) -> None:
        allowed = {"take_over": (7, 2), "repair": (2,)}.get(self.scenario, (1, 2))
        assert weights_at(node.live) in allowed
        if status == 0:
            assert version_at(node.live) == 2
        if status == 1:
            # What was half made is removed at once: a full disk needs its space back.
            assert not list(node.root.glob("incoming-*"))
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

    def strike_at(self, fault: str, points: t.Sequence[tuple[str, int]]) -> None:
        """Let C(fault) happen at each point, and check after each."""
        assert points
        for call, number in points:
            node, status = self.strike(call, number, fault)
            try:
                assert status != 0
                self.check(node, status)
                self.check_again(node)
            except (AssertionError, DeliveryError, OSError) as exc:
                raise AssertionError(f"{fault} at {call} number {number}") from exc


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """In memory where that can be: a killed process leaves the same there, and hundreds of fsyncs take no time."""
    memory = pathlib.Path("/dev/shm")  # noqa: S108
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield pathlib.Path(name)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("way", ["exchange", "symlink"])
def test_killed_at_every_step(directory: pathlib.Path, way: Way, scenario: str) -> None:
    faults = Faults(directory, scenario, way)
    # A second fsync in a row finds the disk as the first one did.
    faults.strike_at("signal=KILL", [(call, number) for call, number, changed in faults.points() if changed])


def test_killed_again_while_bringing_it_in_order(directory: pathlib.Path) -> None:
    """After a kill between the exchange and its bookkeeping, the next run is killed too, at every step."""
    faults = Faults(directory, "take_over", "exchange")
    rename = max(number for call, number, _changed in faults.points() if call == "rename")
    # What came out is set aside by a rename, and recorded by another one.
    node, _status = faults.strike("rename", rename - 1, "signal=KILL")
    assert weights_at(node.live) == 2
    assert list(node.root.glob("incoming-*"))
    faults.keep_as_template()
    faults.strike_at("signal=KILL", [(call, number) for call, number, changed in faults.points() if changed])


@pytest.mark.parametrize(("way", "scenario"), [("exchange", "following"), ("symlink", "take_over")])
def test_failed_fsync_is_never_a_success(directory: pathlib.Path, way: Way, scenario: str) -> None:
    faults = Faults(directory, scenario, way)
    faults.strike_at("error=EIO", [(call, number) for call, number, _changed in faults.points() if call == "fsync"])


def test_every_byte_is_on_the_disk_before_it_is_put_in_place(directory: pathlib.Path) -> None:
    """A kill does not show this: after a power cut, a file that was not flushed is empty."""
    node = Node(directory)
    take_over(node, "exchange")
    log = directory / "strace"
    assert child(node, "take_over", "exchange", "-y", "-o", str(log), "-e", "trace=fsync,renameat2") == 0
    calls = log.read_text().splitlines()
    # The first one is the probe.
    swap = max(number for number, line in enumerate(calls) if "renameat2(" in line)
    flushed = {path for line in calls[:swap] for path in re.findall(r"fsync\(\d+<([^>]*)>", line)}
    for made in (node.paths.staged(release_of(2)), str(node.root / f"incoming-{release_of(2)}")):
        assert {made, *(f"{made}/{name}" for name in content(2))} <= flushed
    assert {str(node.root), node.paths.releases, node.paths.manifests} <= flushed
    assert str(node.models) in {path for line in calls[swap:] for path in re.findall(r"fsync\(\d+<([^>]*)>", line)}


def test_full_disk(directory: pathlib.Path) -> None:
    faults = Faults(directory, "take_over", "exchange")
    faults.strike_at("error=ENOSPC", [(call, number) for call, number, _changed in faults.points() if call == "openat"])


WITHOUT_EXCHANGE = ("-o", "/dev/null", "-e", "trace=renameat2", "-e", "inject=renameat2:error=EINVAL")


def test_file_system_without_exchange_uses_links(directory: pathlib.Path) -> None:
    node = Node(directory)
    node.deploy(1, "symlink")
    stage(node.paths, 2)
    assert child(node, "following", "auto", *WITHOUT_EXCHANGE) == 0
    assert os.readlink(node.live).endswith(release_of(2))
    assert version_at(node.live) == 2
    assert node.junk() == []


def test_first_link_and_repair_on_a_file_system_without_exchange(directory: pathlib.Path) -> None:
    node = Node(directory)
    stage(node.paths, 2)
    assert child(node, "first", "auto", *WITHOUT_EXCHANGE) == 0
    assert node.live.is_symlink()
    assert version_at(node.live) == 2
    (node.live / "unknown").write_bytes(UNKNOWN)
    stage(node.paths, 2)
    assert child(node, "repair", "auto", *WITHOUT_EXCHANGE) == 0
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
def test_take_over_on_a_file_system_without_exchange(
    directory: pathlib.Path, capfd: pytest.CaptureFixture[str], way: Way, message: str
) -> None:
    node = Node(directory)
    take_over(node, way)
    assert child(node, "take_over", way, *WITHOUT_EXCHANGE) == 1
    assert message in capfd.readouterr().err
    assert weights_at(node.live) == 7
    assert node.junk() == [release_of(2)]
