# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""One lock for each adapter on a node: whoever changes it holds it, and a second one is told who that is.

And those that receivers hold on the directories into which they write.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import time
import typing as t

from .._errors import DeliveryError

_POLL_SECONDS = 0.05


@contextlib.contextmanager
def locked(path: str, subject: str, run: str, timeout: float) -> t.Iterator[None]:
    """Hold the lock at C(path) for the duration of the block.

    The kernel frees it when its process ends in whatever way, so a dead holder is no obstacle. Raises DeliveryError that
    names the holder when it is not free within C(timeout) seconds. C(subject) and C(run) are for that message only.
    """
    deadline = time.monotonic() + timeout
    while (descriptor := _try(path)) is None:
        if time.monotonic() >= deadline:
            raise _busy(path, subject, timeout)
        time.sleep(_POLL_SECONDS)
    try:
        _write_holder(descriptor, run)
        yield
    finally:
        # What was done under the lock is done: the descriptor is gone whatever the kernel says.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):
            os.close(descriptor)


def is_received_into(directory: str) -> bool:
    """True while an rsync receives files into C(directory): it holds a lock on that for as long as it lives. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _try(path: str) -> t.Optional[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        # flock, not lockf: a POSIX lock is lost when any descriptor of the file is closed.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Somebody may have removed the file by hand in between: then this locks a file that nobody else will find.
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
        # Where Ansible came from, as far as the connection tells (sudo may hide it).
        "controller": os.environ.get("SSH_CLIENT", "").partition(" ")[0],
        "pid": os.getpid(),
        "at": datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)


def _busy(path: str, subject: str, timeout: float) -> DeliveryError:
    try:
        with open(path, encoding="utf-8") as stream:
            holder = json.load(stream)
        origin = f" from {holder['controller']}" if holder["controller"] else ""
        who = f"{holder['run'] or 'a run without a name'}{origin}, process {holder['pid']} since {holder['at']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = f"a process that left no name in {path}"
    return DeliveryError.of(
        subject,
        f"is being changed by another run: {who}. Waited {timeout:g} s.",
        "Let it finish, or end that process on this node; nothing was changed here.",
    )
