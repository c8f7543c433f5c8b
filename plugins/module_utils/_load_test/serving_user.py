# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The user that serves the adapters: taking on its identity, and letting it read what is staged for a while."""

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
        """Raises DeliveryError for a user that is not known, or that this process cannot become."""
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise DeliveryError.of(f"user {name}", "is not known on this host.", "Create it there, or name another.") from None
        if os.geteuid() not in (0, found.pw_uid):
            raise DeliveryError.of(f"user {name}", f"cannot be taken on by user {os.geteuid()}.", "Run with become.")
        return cls(name, found.pw_uid, found.pw_gid, tuple(os.getgrouplist(name, found.pw_gid)))

    @property
    def is_other(self) -> bool:
        return self.uid != os.geteuid()

    def own(self, directory: str) -> None:
        """Make a directory and all in it this user's, whatever the umask made of it."""
        for path, _directories, files in os.walk(directory):
            for name in (".", *files):
                os.chown(os.path.join(path, name), self.uid, self.gid, follow_symlinks=False)

    def may(self, wanted: int, mode: int, uid: int, gid: int) -> bool:
        """Whether a mode lets this user do C(wanted) (bits as in its last digit) with what has that owner and group."""
        if self.uid == 0:
            return True
        digit = mode >> (6 if uid == self.uid else 3 if gid in self.groups else 0)
        return digit & wanted == wanted

    def may_read(self, directories: t.Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """Let this user read the plain files in these directories where it cannot, and take that back at the end."""
        return _lent(list(directories), self) if self.is_other else contextlib.nullcontext()


def check_readable(user: ServingUser, permissions: Permissions) -> None:
    """Raises DeliveryError unless C(user) can read what becomes active with these permissions."""
    # What gets no owner or group has those of this process.
    uid = os.geteuid() if permissions.uid is None else permissions.uid
    gid = os.getegid() if permissions.gid is None else permissions.gid
    for what, mode, wanted in (("files", permissions.file_mode, 0o4), ("directories", permissions.directory_mode, 0o5)):
        if not user.may(wanted, mode, uid, gid):
            raise DeliveryError.of(
                f"user {user.name}",
                f"cannot read the {what} that become active: they get mode {mode:04o}, owner {uid} and group {gid}.",
                "Change that (agent_owner, agent_group, agent_file_mode, agent_directory_mode), or name the user that serves.",
            )


@contextlib.contextmanager
def _lent(directories: list[str], user: ServingUser) -> t.Iterator[None]:
    with contextlib.ExitStack() as undo:
        for path in [*(path for directory in directories for path in _plain_files(directory)), *directories]:
            try:
                before = os.lstat(path)
            except FileNotFoundError:
                # Another run took it away: the load test will say that it is not there.
                continue
            mode, wanted = stat.S_IMODE(before.st_mode), 0o5 if stat.S_ISDIR(before.st_mode) else 0o4
            if not user.may(wanted, mode, before.st_uid, before.st_gid):
                undo.callback(_set, path, before.st_gid, mode)
                _set(path, user.gid, mode | wanted << 3)
        yield


def _plain_files(directory: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _set(path: str, gid: int, mode: int) -> None:
    # What is staged may be gone when it is taken back.
    with contextlib.suppress(FileNotFoundError):
        os.chown(path, -1, gid, follow_symlinks=False)
        os.chmod(path, mode)
