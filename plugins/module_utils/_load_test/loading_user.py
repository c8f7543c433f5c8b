# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The user that loads adapters, often the one that serves them: its temporary read access."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import stat
import typing as t

from .._errors import DeliveryError
from .._files import DIRECTORY
from .._store.permissions import Permissions

LET_READ = (
    "Let every user read it, or set user (variable agent_load_test_user) to one that can read it, or to root: then"
    " adapters are loaded as root."
)

LOADED_AS_ROOT = (
    "adapters were loaded as root, because this host's modules run as root. Code in an adapter could change this host:"
    " have its modules run as the user that owns the adapters, without become."
)

# O_NONBLOCK, so that a FIFO that took the file's place does not stop this process.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclasses.dataclass(frozen=True)
class LoadingUser:
    """A user of this host with all its groups, such as those that may use the GPU.

    One that is to be thrown away has no name but its number; the ``lock`` reserves it.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    throw_away: bool = False
    lock: t.BinaryIO | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def named(cls, name: str) -> LoadingUser:
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

    def __str__(self) -> str:
        return f"the throw-away user {self.name}" if self.throw_away else f"user {self.name}"

    def remedy(self, otherwise: str) -> str:
        """Return the remedy for what it cannot read; ``otherwise`` if somebody has chosen it."""
        return LET_READ if self.throw_away else otherwise

    def let_read(self, directory: str) -> None:
        """Let this user read a directory of this process, and what is in it, whatever the umask."""
        for path, _directories, files in os.walk(directory):
            for name, mode in ((".", 0o750), *((name, 0o640) for name in files)):
                inside = os.path.join(path, name)
                os.chown(inside, -1, self.gid)
                os.chmod(inside, mode)

    def may(self, bits: int, mode: int, uid: int, gid: int) -> bool:
        """Return whether a mode with this owner and group grants this user the permission bits."""
        if self.uid == 0:
            return True
        digit = mode >> (6 if uid == self.uid else 3 if gid in self.groups else 0)
        return digit & bits == bits

    def may_read(self, directories: t.Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """Grant this user read access to these directories for a while."""
        return _temporary_read_access(list(directories), self) if self.is_other else contextlib.nullcontext()


def check_readable(user: LoadingUser, permissions: Permissions) -> None:
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
def _temporary_read_access(directories: list[str], user: LoadingUser) -> t.Iterator[None]:
    with contextlib.ExitStack() as undo:
        for directory in directories:
            # Another run may have removed it, which the load test will report.
            with contextlib.suppress(FileNotFoundError):
                _lend_directory(directory, None, user, undo)
        yield


def _lend_directory(path: str, above: int | None, user: LoadingUser, undo: contextlib.ExitStack) -> None:
    """Lend read access to a directory with its plain files and subdirectories.

    ``above`` is the descriptor of the directory that it is in, None for the first one.
    """
    name = path if above is None else os.path.basename(path)
    descriptor = os.open(name, DIRECTORY, dir_fd=above)
    # It stays open: the way back must not lead through a path, which may lead elsewhere by then.
    undo.callback(os.close, descriptor)
    before = os.fstat(descriptor)
    for inner, status in _entries(descriptor):
        if stat.S_ISDIR(status.st_mode):
            with contextlib.suppress(FileNotFoundError):
                _lend_directory(os.path.join(path, inner), descriptor, user, undo)
        elif stat.S_ISREG(status.st_mode) and not user.may(0o4, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid):
            _check_own(path, before)
            _lend_file(os.path.join(path, inner), descriptor, status, user, undo)
    mode = stat.S_IMODE(before.st_mode)
    if not user.may(0o5, mode, before.st_uid, before.st_gid):
        _check_own(path, before)
        undo.callback(_set, descriptor, before.st_gid, mode)
        _set(descriptor, user.gid, mode | 0o050)


def _lend_file(path: str, directory: int, status: os.stat_result, user: LoadingUser, undo: contextlib.ExitStack) -> None:
    if status.st_nlink > 1:
        raise DeliveryError.of(
            path,
            f"has {status.st_nlink} hard links, so no access to it is lent.",
            "Remove the other names, or this file, and deploy again.",
        )
    mode = stat.S_IMODE(status.st_mode)
    undo.callback(_set_file, path, directory, status, status.st_gid, mode)
    _set_file(path, directory, status, user.gid, mode | 0o040)


def _entries(directory: int) -> list[tuple[str, os.stat_result]]:
    found = []
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            found.append((name, os.stat(name, dir_fd=directory, follow_symlinks=False)))
    return found


def _check_own(directory: str, status: os.stat_result) -> None:
    """Raise DeliveryError if another user could exchange what is in a directory."""
    if status.st_uid not in (0, os.geteuid()):
        raise DeliveryError.of(
            directory,
            f"belongs to user {status.st_uid}, who could exchange its files while read access to them is lent.",
            "Remove it, and deploy the adapter again.",
        )


def _set_file(path: str, directory: int, status: os.stat_result, gid: int, mode: int) -> None:
    """Set group and mode of the file that ``status`` is of, and of no other."""
    exchanged = DeliveryError.of(path, "was exchanged during the load test.", "Find out by whom, and deploy again.")
    try:
        descriptor = os.open(os.path.basename(path), _FILE, dir_fd=directory)
    except FileNotFoundError:
        # Staged files may have been removed by the time access is revoked.
        return
    except OSError as exc:
        raise exchanged from exc
    try:
        found = os.fstat(descriptor)
        if (found.st_dev, found.st_ino, found.st_nlink) != (status.st_dev, status.st_ino, 1):
            raise exchanged
        _set(descriptor, gid, mode)
    finally:
        os.close(descriptor)


def _set(descriptor: int, gid: int, mode: int) -> None:
    os.fchown(descriptor, -1, gid)
    os.fchmod(descriptor, mode)
