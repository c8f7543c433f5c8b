# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""Lines in an authorized_keys file that a program adds for a while, and takes away again.

Each line ends with the process that has added it. A line whose process is gone was left by one that
was killed, and goes with the next change. All other lines stay byte for byte. The file is replaced
as a whole or appended to in one call, so it is complete at any time, whatever is killed when.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
import typing as t

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MARK = b"lorafleet.delivery"
_TEMPORARY = ".authorized_keys.lorafleet."
_MOST_BYTES = 1 << 20
_TRIES = 10
# Seconds to wait for other runs, and between two looks.
_LOCK_TIMEOUT = 30
_POLL_INTERVAL = 0.05


class Unusable(Exception):
    """The file cannot be changed safely; the text is the reason."""


class Line:
    """A line that exists within the block. Raises Unusable."""

    def __init__(self, path: str, line: str) -> None:
        # What a link leads to is replaced, not the link.
        self._path = os.path.realpath(os.path.expanduser(path))
        self._directory = os.path.dirname(self._path)
        self._line = line.encode() + b" " + _mark_of(os.getpid()) + b"\n"

    def __enter__(self) -> None:
        with _problems(self._path), _locked(self._directory):
            # Otherwise the line could be added and not be taken away.
            if not os.access(self._directory, os.W_OK):
                raise Unusable("this user cannot write to its directory")
            self._change(self._line)

    def __exit__(self, *exc_info: object) -> None:
        self.remove()

    def remove(self) -> None:
        with _problems(self._path), _locked(self._directory):
            self._change(b"")

    def _change(self, added: bytes) -> None:
        """Remove lines of this process and of those that are gone; add one."""
        self._clean()
        for _number in range(_TRIES):
            status, before = self._read()
            lines = before.splitlines(keepends=True)
            kept = [line for line in lines if not _is_left(line)]
            if kept == lines and not added:
                return
            if kept and added and not kept[-1].endswith(b"\n"):
                added = b"\n" + added
            if kept == lines and status:
                self._append(added, status.st_size)
                return
            if self._replace(status, b"".join(kept) + added):
                return
        raise Unusable("it is being changed by something else all the time")

    def _read(self) -> tuple[os.stat_result | None, bytes]:
        """The file that is there now, if there is one."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None, b""
        with open(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid != os.geteuid():
                raise Unusable("it is no plain file of its own that belongs to this user")
            if os.geteuid() != 0 and status.st_gid not in (os.getegid(), *os.getgroups()):
                raise Unusable("it belongs to a group that this user is not in")
            if status.st_size > _MOST_BYTES:
                raise Unusable("it is too long")
            return status, stream.read()

    def _append(self, added: bytes, size: int) -> None:
        with open(self._path, "ab", buffering=0) as stream:
            if stream.write(added) != len(added):
                stream.truncate(size)
                raise Unusable("the file system is full")

    def _replace(self, status: os.stat_result | None, content: bytes) -> bool:
        """Replace the file; return whether nobody else had changed it meanwhile."""
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=self._directory)
        try:
            with open(descriptor, "wb") as stream:
                if status:
                    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
                    os.fchown(descriptor, -1, status.st_gid)
                    for name in os.listxattr(self._path):
                        # The label of SELinux, and what an administrator has set.
                        with contextlib.suppress(OSError):
                            os.setxattr(descriptor, name, os.getxattr(self._path, name))
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
            if _identity(self._read()[0]) != _identity(status):
                return False
            os.replace(temporary, self._path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        return True

    def _clean(self) -> None:
        """Remove the temporary files of those that were killed: nobody else has the lock."""
        for name in os.listdir(self._directory):
            if name.startswith(_TEMPORARY):
                os.unlink(os.path.join(self._directory, name))


def _identity(status: os.stat_result | None) -> t.Any:
    return status and (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _mark_of(pid: int) -> bytes:
    """The name of a process that no later one has. Raises OSError if it has ended."""
    with open(f"/proc/{pid}/stat", "rb") as stream:
        fields = stream.read().rpartition(b")")[2].split()
    state, started = fields[0], fields[19]
    # In a container, the first process may never wait for those that have ended.
    if state in b"ZX":
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return b"%s:%d:%s" % (_MARK, pid, started)


def _is_left(line: bytes) -> bool:
    """Return whether a line is of this process, or of one that is gone."""
    mark = line.rstrip().rpartition(b" ")[2]
    name, _colon, process = mark.partition(b":")
    pid = process.partition(b":")[0]
    if name != _MARK or not pid.isdigit():
        return False
    try:
        return int(pid) == os.getpid() or _mark_of(int(pid)) != mark
    except OSError:
        return True


@contextlib.contextmanager
def _locked(directory: str) -> t.Iterator[None]:
    descriptor = os.open(directory, _DIRECTORY)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Unusable(f"{directory} was locked for {_LOCK_TIMEOUT} seconds") from None
                time.sleep(_POLL_INTERVAL)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _problems(path: str) -> t.Iterator[None]:
    try:
        yield
    except Unusable as exc:
        raise Unusable(f"{path} cannot be changed: {exc}") from exc
    except OSError as exc:
        raise Unusable(f"{path} cannot be changed: {exc.strerror}") from exc
