# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The user that serves the adapters: switching to it, and its temporary read access."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import stat
import typing as t

from .._errors import DeliveryError
from .._store.permissions import Permissions


@dataclasses.dataclass(frozen=True)
class ServingUser:
    """A user of this host with all its groups, such as those that may use the GPU."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def named(cls, name: str) -> ServingUser:
        """Raises DeliveryError for an unknown user, or one that this process cannot switch to."""
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise DeliveryError.of(
                f"user {name}", "does not exist on this host.", "Create it, or set user to another one."
            ) from None
        if os.geteuid() not in (0, found.pw_uid):
            raise DeliveryError.of(f"user {name}", f"user {os.geteuid()} cannot switch to it.", "Run with become.")
        return cls(name, found.pw_uid, found.pw_gid, tuple(os.getgrouplist(name, found.pw_gid)))

    @property
    def is_other(self) -> bool:
        return self.uid != os.geteuid()

    def own(self, directory: str) -> None:
        """Give this user a directory and everything in it, regardless of the umask."""
        for path, _directories, files in os.walk(directory):
            for name in (".", *files):
                os.chown(os.path.join(path, name), self.uid, self.gid, follow_symlinks=False)

    def may(self, bits: int, mode: int, uid: int, gid: int) -> bool:
        """Return whether a mode with this owner and group grants this user the permission bits."""
        if self.uid == 0:
            return True
        digit = mode >> (6 if uid == self.uid else 3 if gid in self.groups else 0)
        return digit & bits == bits

    def may_read(self, directories: t.Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """Grant this user read access to these directories for a while."""
        return _temporary_read_access(list(directories), self) if self.is_other else contextlib.nullcontext()


def check_readable(user: ServingUser, permissions: Permissions) -> None:
    """Raises DeliveryError unless a user can read active releases with these permissions."""
    # Without a configured owner or group, files get those of this process.
    uid = os.geteuid() if permissions.uid is None else permissions.uid
    gid = os.getegid() if permissions.gid is None else permissions.gid
    for what, mode, wanted in (("files", permissions.file_mode, 0o4), ("directories", permissions.directory_mode, 0o5)):
        if not user.may(wanted, mode, uid, gid):
            raise DeliveryError.of(
                f"user {user.name}",
                f"cannot read the {what} of active releases: they get mode {mode:04o}, owner {uid} and group {gid}.",
                "Correct owner, group, file_mode or directory_mode, or set user to the one that serves.",
            )


@contextlib.contextmanager
def _temporary_read_access(directories: list[str], user: ServingUser) -> t.Iterator[None]:
    with contextlib.ExitStack() as undo:
        for path in [*(path for directory in directories for path in _plain_entries(directory)), *directories]:
            try:
                before = os.lstat(path)
            except FileNotFoundError:
                # Another run removed it, which the load test will report.
                continue
            mode, wanted = stat.S_IMODE(before.st_mode), 0o5 if stat.S_ISDIR(before.st_mode) else 0o4
            if not user.may(wanted, mode, before.st_uid, before.st_gid):
                undo.callback(_set, path, before.st_gid, mode)
                _set(path, user.gid, mode | wanted << 3)
        yield


def _plain_entries(directory: str) -> list[str]:
    """Return the plain files in a directory, and its subdirectories after their files."""
    found: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(directory):
            if entry.is_dir(follow_symlinks=False):
                found += _plain_entries(entry.path)
            if not entry.is_symlink() and (entry.is_dir() or entry.is_file()):
                found.append(entry.path)
    return found


def _set(path: str, gid: int, mode: int) -> None:
    # Staged files may have been removed by the time access is revoked.
    with contextlib.suppress(FileNotFoundError):
        os.chown(path, -1, gid, follow_symlinks=False)
        os.chmod(path, mode)
