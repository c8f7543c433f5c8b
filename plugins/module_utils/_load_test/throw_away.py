# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""A user of one load test: numbers that nothing else on this host uses, without a name.

So nothing on the host is the load test's, no other process can interfere with it, and what it
leaves behind means nothing to anybody.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import grp
import os
import pwd
import random
import re
import stat
import typing as t

from .._errors import DeliveryError
from .loading_user import LoadingUser

# That of the DynamicUser of systemd, which no distribution assigns to users.
RANGE = range(61184, 65520)
# Below it are the groups of the system. Some give power over the host, such as docker and disk.
FIRST_ORDINARY_GROUP = 1000

_LOCKS = "/run/lorafleet"
_SYSTEMD = "/run/systemd/dynamic-uid"
# Where every user may create files.
_SHARED = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock")  # noqa: S108
_GPUS = ("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/dri/*", "/dev/kfd")
_REMEDY = "Set user to a user of this host, or to root: then adapters are loaded as root."


def throw_away_user(paths: t.Iterable[str]) -> LoadingUser:
    """Return a user for this process, which must be root's. Nobody else gets it meanwhile.

    It is in the groups that may use the GPUs, and in the ordinary ones that may read ``paths``.
    Raises DeliveryError.
    """
    candidates = list((_mapped("/proc/self/uid_map") & _mapped("/proc/self/gid_map")) - _used())
    # A number that was in use lately is unlikely to be used again.
    random.SystemRandom().shuffle(candidates)
    for number in candidates:
        if _is_unknown(number):
            lock = _lock(number)
            if lock is not None:
                groups = (number, *sorted(_device_groups() | _reading_groups(paths)))
                return LoadingUser(str(number), number, number, groups, throw_away=True, lock=lock)
    raise DeliveryError.of(
        "user",
        f"is not set, and no throw-away user can be had: of {RANGE[0]} to {RANGE[-1]}, none is free on this host.",
        _REMEDY,
    )


def _used() -> set[int]:
    """Return the numbers of users and groups that processes, files and systemd use."""
    found: set[int] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as stream:
            for numbers in re.findall(r"^(?:Uid|Gid|Groups):(.*)$", stream.read(), re.MULTILINE):
                found.update(map(int, numbers.split()))
    for directory in _SHARED:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    found.update((status.st_uid, status.st_gid))
    with contextlib.suppress(OSError):
        found.update(int(name) for name in os.listdir(_SYSTEMD) if name.isdigit())
    return found


def _mapped(path: str) -> set[int]:
    """Return the numbers of the range that exist in this user namespace."""
    with open(path, encoding="ascii") as stream:
        maps = [tuple(map(int, line.split())) for line in stream]
    return {number for number in RANGE if any(first <= number < first + length for first, _outside, length in maps)}


def _is_unknown(number: int) -> bool:
    for known in (pwd.getpwuid, grp.getgrgid):
        with contextlib.suppress(KeyError):
            known(number)
            return False
    return True


def _lock(number: int) -> t.BinaryIO | None:
    """Return the lock of a number, None if another run has it. It is released when it is closed."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(_LOCKS, 0o700)
        status = os.lstat(_LOCKS)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
            raise DeliveryError.of(_LOCKS, "is not a directory that only root can write to.", "Remove it.")
        descriptor = os.open(os.path.join(_LOCKS, str(number)), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise DeliveryError.of(_LOCKS, f"cannot be used for the locks of throw-away users: {exc.strerror}.", _REMEDY) from exc
    lock = os.fdopen(descriptor, "r+b")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _device_groups() -> set[int]:
    found = set()
    for path in (path for pattern in _GPUS for path in glob.glob(pattern)):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if stat.S_ISCHR(status.st_mode) and status.st_mode & 0o060 == 0o060 and status.st_gid:
                found.add(status.st_gid)
    return found


def _reading_groups(paths: t.Iterable[str]) -> set[int]:
    """Return the ordinary groups that may read what others may not, or enter it."""
    found = set()
    for path in paths:
        for place in (path, os.path.realpath(path)):
            inside = [os.path.join(place, name) for name in _listed(place)]
            for one in (*_above(place), place, *inside):
                with contextlib.suppress(OSError):
                    status = os.stat(one)
                    wanted = 0o5 if stat.S_ISDIR(status.st_mode) else 0o4
                    if status.st_mode & wanted != wanted and status.st_mode >> 3 & wanted == wanted:
                        found.add(status.st_gid)
    return {group for group in found if group >= FIRST_ORDINARY_GROUP}


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _above(path: str) -> t.Iterator[str]:
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path
