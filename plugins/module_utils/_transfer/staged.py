# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""A staging directory, as the programs that write to it see it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import time
import typing as t

_BLOCK = 1 << 20
_POLL_INTERVAL = 0.1
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# A file of the manifest, as the controller describes it: ``path``, ``size`` and ``sha256``.
Entry = t.Dict[str, t.Any]


class Unusable(Exception):
    """The staging directory cannot be used; the text is the reason."""


def hold(staging: str, seconds: float = 0) -> int:
    """Lock the directory until the returned descriptor is closed everywhere.

    Waits for another process that holds it. Raises Unusable.
    """
    deadline = time.monotonic() + seconds
    try:
        held = os.open(staging, _DIRECTORY)
        while not _locked(held):
            if time.monotonic() >= deadline:
                raise Unusable("another run is still writing to the staging directory")
            time.sleep(_POLL_INTERVAL)
    except OSError as exc:
        raise Unusable(f"{staging} cannot be used: {exc.strerror}") from exc
    return held


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_below(staging: str, path: str, flags: int) -> int:
    """Open a file of the staging directory, without following a link in its place or above it."""
    *parents, name = path.split("/")
    try:
        at = os.open(staging, _DIRECTORY)
        try:
            for parent in parents:
                above, at = at, os.open(parent, _DIRECTORY, dir_fd=at)
                os.close(above)
            return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=at)
        finally:
            os.close(at)
    except OSError as exc:
        exc.filename = os.path.join(staging, path)
        raise


def open_own(staging: str, path: str) -> int:
    """Open a file for writing. Raises OSError if others can write to it."""
    descriptor = open_below(staging, path, os.O_RDWR | os.O_CREAT)
    if not is_own(os.fstat(descriptor)):
        os.close(descriptor)
        raise OSError(0, "is no plain file of its own that belongs to this user", os.path.join(staging, path))
    return descriptor


def arrived(staging: str, files: t.Iterable[Entry]) -> int:
    """Return how many bytes of the files are there."""
    found = 0
    for entry in files:
        with contextlib.suppress(OSError):
            found += min(os.lstat(os.path.join(staging, entry["path"])).st_size, entry["size"])
    return found


def is_own(status: os.stat_result) -> bool:
    """Return whether nobody else can write to this plain file, under another name for instance."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()


def missing_of(descriptor: int, size: int, most: int) -> list[tuple[int, int]]:
    """Return where bytes of a file are missing: its holes, and all after its end, up to ``size``.

    A swarm leaves holes. If there are more than ``most``, some of what is there counts as missing.
    """
    found, at = [], 0
    there = os.fstat(descriptor).st_size
    while at < there:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        found.append((begin, end))
        at = end
    # The longest ones, in their order.
    kept = sorted(sorted(found, key=lambda one: one[0] - one[1])[: most - 1])
    edges = [0, *(edge for one in kept for edge in one), size]
    return [(begin, end) for begin, end in zip(edges[::2], edges[1::2]) if begin < end] or [(size, size)]


def has_hash(stream: t.IO[bytes], entry: Entry) -> bool:
    """Return whether the whole file has the hash of the entry."""
    digest = hashlib.sha256()
    stream.seek(0)
    while block := stream.read(_BLOCK):
        digest.update(block)
    return bool(digest.hexdigest() == entry["sha256"])
