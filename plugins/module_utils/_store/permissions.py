# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Owner, group and modes of the files that are served, set without following links and independent of the umask."""

from __future__ import annotations

import dataclasses
import grp
import os
import pwd
import re
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._files import open_regular
from .compare import Difference, differences

# A leading zero is asked for: YAML turns an unquoted 0644 into 420.
_MODE = re.compile(r"0[0-7]{3}")


@dataclasses.dataclass(frozen=True)
class Permissions:
    """What a release and its served copy shall have; owner and group are left alone where they are None."""

    file_mode: int
    directory_mode: int
    uid: t.Optional[int] = None
    gid: t.Optional[int] = None

    def differences(self, directory: str, manifest: Manifest) -> list[Difference]:
        """C(_verify.differences) with these."""
        return differences(directory, manifest, self.file_mode, self.directory_mode, self.uid, self.gid)


def permissions_of(params: dict[str, t.Any]) -> Permissions:
    """Read the options of C(_argspec.PERMISSIONS).

    Raises DeliveryError for a mode or name that is none, and for an owner or group that this user cannot give to files.
    """
    return Permissions(
        file_mode=_mode(params, "file_mode"),
        directory_mode=_mode(params, "directory_mode"),
        uid=_identity(params, "owner", lambda name: pwd.getpwnam(name).pw_uid, {os.geteuid()}),
        gid=_identity(params, "group", lambda name: grp.getgrnam(name).gr_gid, {os.getegid(), *os.getgroups()}),
    )


def _mode(params: dict[str, t.Any], option: str) -> int:
    if not _MODE.fullmatch(params[option]):
        raise DeliveryError.of(option, f"is {params[option]!r}.", 'Write it with four octal digits in quotes, such as "0644".')
    return int(params[option], 8)


def _identity(
    params: dict[str, t.Any], option: str, number_of: t.Callable[[str], int], own: t.Collection[int]
) -> t.Optional[int]:
    name = params[option]
    if name is None:
        return None
    try:
        number = int(name) if name.isdigit() else number_of(name)
    except KeyError as exc:
        raise DeliveryError.of(f"{option} {name}", "is not known on this node.", "Create it there, or set another.") from exc
    if os.geteuid() != 0 and number not in own:
        raise DeliveryError.of(f"{option} {name}", f"cannot be given to files by user {os.geteuid()}.", "Run with become.")
    return number


def set_permissions(directory: str, manifest: Manifest, permissions: Permissions) -> None:
    """Give a directory and the files of C(manifest) in it their owner and modes, and bring all of it to the disk.

    Raises OSError, and DeliveryError for a file that is none (links are never followed).
    """
    for entry in manifest.files:
        with open_regular(os.path.join(directory, entry.path)) as stream:
            _set(stream.fileno(), permissions.file_mode, permissions)
            os.fsync(stream.fileno())
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _set(descriptor, permissions.directory_mode, permissions)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set(descriptor: int, mode: int, permissions: Permissions) -> None:
    # The owner first: chown clears bits that chmod sets.
    if permissions.uid is not None or permissions.gid is not None:
        status = os.fstat(descriptor)
        uid = status.st_uid if permissions.uid is None else permissions.uid
        gid = status.st_gid if permissions.gid is None else permissions.gid
        if (uid, gid) != (status.st_uid, status.st_gid):
            os.fchown(descriptor, uid, gid)
    os.fchmod(descriptor, mode)
