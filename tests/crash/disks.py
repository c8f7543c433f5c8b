# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power cuts: a copy of the image file of a file system is the disk after a power cut."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import typing as t

from tests.crash.scenarios import Scenario, Stage
from tests.crash.traced import Ended, traced
from tests.support.transactions import Method

# How to create each kind of file system, and its minimum size.
_MAKE = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-J", "size=1"], 8 << 20),
    "xfs": (["mkfs.xfs", "-q"], 300 << 20),
    "btrfs": (["mkfs.btrfs", "-q", "--mixed"], 109 << 20),
}
KINDS = tuple(_MAKE)
# The calls that may change the disk.
_CALLS = (
    *("fsync", "fdatasync", "write", "ftruncate", "ioctl", "copy_file_range", "?sendfile"),
    *("fchmod", "fchown", "?chmod", "?mkdir", "mkdirat", "?symlink", "symlinkat"),
    *("?rename", "?renameat", "renameat2", "?unlink", "unlinkat", "?rmdir"),
)
_BLOCK = 1 << 16


def why_not(kind: str) -> t.Optional[str]:
    """Return why no such file system can be mounted here, or None."""
    make, _size = _MAKE[kind]
    if os.geteuid() != 0:
        return "only root can mount file systems"
    if shutil.which(make[0]) is None:
        return f"{make[0]} is not installed"
    done = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    return f"no loop device: {done.stderr.strip()}" if done.returncode else None


def violations(directory: pathlib.Path, kind: str, scenario: Scenario, method: Method, neighbour: bool) -> t.Iterator[list[str]]:
    """Yield the violations after each power cut.

    The power is cut after each call that changed the disk, and after the end.

    With ``neighbour``, another program flushes a file of its own before each cut. That makes names
    durable, but not the content of files that were not flushed.
    """
    disk, mounted_at = directory / "disk", directory / "mounted"
    mounted_at.mkdir()
    _make(kind, disk)
    with _mounted(disk, mounted_at):
        (mounted_at / "node").mkdir()
        stage = Stage(mounted_at / "node", scenario, method)
    with _mounted(disk, mounted_at):
        cuts = list(_cuts(stage, disk, directory, mounted_at / "neighbour" if neighbour else None))
    for cut, ended in cuts:
        with _mounted(cut, mounted_at):
            found = stage.violations(ended) + stage.violations_after_another_run()
        yield [f"power cut {cut.name.partition('-')[2]} on {kind}: {what}" for what in found]
        cut.unlink()


def _cuts(
    stage: Stage, disk: pathlib.Path, directory: pathlib.Path, neighbour: t.Optional[pathlib.Path]
) -> t.Iterator[tuple[pathlib.Path, Ended]]:
    number = 0
    seen = ""
    trace = ",".join(_CALLS)
    with traced(
        stage.run, "-o", str(directory / "calls"), "-e", f"trace={trace}", "-e", f"inject={trace}:signal=STOP"
    ) as started:
        while started.stopped():
            # A flush by the neighbour always changes the disk, so compare what the run changed
            # instead.
            before = stage.disk() if neighbour else _fingerprint(disk)
            if before != seen:
                seen, number = before, number + 1
                _flush(neighbour)
                yield _copy(disk, directory / f"cut-{number}"), Ended(None)
            os.kill(started.process, signal.SIGCONT)
        ended = started.ended()
    _flush(neighbour)
    yield _copy(disk, directory / "cut-at the end"), ended


def _flush(neighbour: t.Optional[pathlib.Path]) -> None:
    if neighbour is not None:
        with neighbour.open("ab") as stream:
            stream.write(b"x")
            stream.flush()
            os.fsync(stream.fileno())


def _make(kind: str, disk: pathlib.Path) -> None:
    make, size = _MAKE[kind]
    with disk.open("wb") as stream:
        stream.truncate(size)
    subprocess.run([*make, disk], check=True, capture_output=True)


@contextlib.contextmanager
def _mounted(disk: pathlib.Path, at: pathlib.Path) -> t.Iterator[None]:
    subprocess.run(["mount", "-o", "loop", disk, at], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


def _data(disk: pathlib.Path) -> t.Iterator[tuple[int, bytes]]:
    """Yield the offset and content of each non-zero block of a sparse file."""
    zero = bytes(_BLOCK)
    with disk.open("rb", buffering=0) as stream:
        end = os.fstat(stream.fileno()).st_size
        place = 0
        while place < end:
            try:
                place = os.lseek(stream.fileno(), place, os.SEEK_DATA) // _BLOCK * _BLOCK
            except OSError:
                return
            block = os.pread(stream.fileno(), _BLOCK, place)
            if block != zero:
                yield place, block
            place += _BLOCK


def _fingerprint(disk: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for place, block in _data(disk):
        digest.update(b"%d" % place)
        digest.update(block)
    return digest.hexdigest()


def _copy(disk: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    with target.open("wb", buffering=0) as stream:
        stream.truncate(disk.stat().st_size)
        for place, block in _data(disk):
            os.pwrite(stream.fileno(), block, place)
    return target
