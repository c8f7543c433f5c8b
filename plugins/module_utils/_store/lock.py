# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Locks on a node: one for each adapter, and that of a receiving rsync on its staging directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
import typing as t

from .._errors import DeliveryError
from .._files import DIRECTORY
from .._time import now

_POLL_SECONDS = 0.05
_MODE = 0o600


@contextlib.contextmanager
def locked(path: str, run: str, timeout: float) -> t.Iterator[None]:
    """Hold the lock at ``path`` for the duration of the block.

    The kernel releases it when the process ends, so a dead holder is no obstacle. Raises a
    DeliveryError that names the holder when the lock is not free within ``timeout`` seconds.
    ``run`` describes this run to others that wait for the lock.
    """
    deadline = time.monotonic() + timeout
    while (descriptor := _try(path)) is None:
        if time.monotonic() >= deadline:
            raise _busy(path, timeout)
        time.sleep(_POLL_SECONDS)
    try:
        _write_holder(descriptor, run)
        yield
    finally:
        # The work under the lock is done, and the descriptor is closed even if close fails.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):
            os.close(descriptor)


def has_receiver(directory: str) -> bool:
    """Return whether an rsync is receiving files into ``directory``, which it keeps locked.

    Raises OSError.
    """
    descriptor = os.open(directory, DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def check_locks(directory: str) -> None:
    """Raise DeliveryError unless locks work in an empty directory of the store.

    A delivery locks files, and the receiver of a transfer its directory.
    """
    path = os.path.join(directory, "lock")
    try:
        with locked(path, "preflight", timeout=0):
            again = _try(path)
        if again is not None:
            os.close(again)
        works = again is None and not has_receiver(directory)
    except OSError as exc:
        raise _no_locks(directory, f"has no locks: {exc.strerror}.") from exc
    if not works:
        raise _no_locks(directory, "grants the same lock twice.")


def _no_locks(directory: str, problem: str) -> DeliveryError:
    remedy = "Put models_dir and store on a file system with locks. On NFS, use version 4, or start the server's lock service."
    return DeliveryError.of("", f"the file system of {os.path.dirname(directory)} {problem}", remedy)


def _try(path: str) -> int | None:
    # Private: any user who can open a file, if only to read it, can lock it for good.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        # Earlier versions of the collection made locks that everybody can read.
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != _MODE:
            os.fchmod(descriptor, _MODE)
        # flock, not lockf: a POSIX lock is lost when any descriptor of the file is closed.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A user may have removed the file in between: then this would lock a file that no other run
        # can find.
        if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _write_holder(descriptor: int, run: str) -> None:
    holder = {
        "run": run,
        # The address of the controller, unless sudo has removed the variable.
        "controller": os.environ.get("SSH_CLIENT", "").partition(" ")[0],
        "pid": os.getpid(),
        "at": now(),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)


def _busy(path: str, timeout: float) -> DeliveryError:
    try:
        with open(path, encoding="utf-8") as stream:
            holder = json.load(stream)
        origin = f" from {holder['controller']}" if holder["controller"] else ""
        who = f"{holder['run'] or 'a run without a name'}{origin}, process {holder['pid']} since {holder['at']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = f"an unknown process (no valid entry in {path})"
    return DeliveryError.of(
        "",
        f"is being changed by another run: {who}. Waited {timeout:g} s.",
        "Wait for it to finish, or end that process on this node; nothing was changed.",
    )
