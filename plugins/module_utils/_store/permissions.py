# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Owner, group and modes of served files, set independent of the umask, never through links."""

from __future__ import annotations

import dataclasses
import grp
import os
import pwd
import re
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._files import open_regular, opened
from .compare import Difference, differences

# The leading zero is required: YAML turns an unquoted 0644 into 420.
_MODE = re.compile(r"0[0-7]{3}")
_WRITE_FOR_OTHERS = 0o022


@dataclasses.dataclass(frozen=True)
class Permissions:
    """Permissions of what is served. ``of_store`` has those of releases in the store.

    An owner or group that is None is left unchanged.
    """

    file_mode: int
    directory_mode: int
    uid: int | None = None
    gid: int | None = None

    def of_store(self) -> Permissions:
        """Return the permissions of a release in the store, which nobody else may change.

        Rollbacks and repairs rely on it. So it does not belong to the owner of the served files,
        who may be the user that serves, unless the run itself is that user's.
        """
        uid = 0 if os.geteuid() == 0 else self.uid
        return Permissions(self.file_mode & ~_WRITE_FOR_OTHERS, self.directory_mode & ~_WRITE_FOR_OTHERS, uid, self.gid)

    def differences(self, directory: str, manifest: Manifest) -> list[Difference]:
        """Return ``compare.differences``, with these permissions compared too."""
        return differences(directory, manifest, self.file_mode, self.directory_mode, self.uid, self.gid)


def permissions_of(params: dict[str, t.Any]) -> Permissions:
    """Return the permissions that the module options ``_argspec.PERMISSIONS`` describe.

    Raises DeliveryError for an invalid mode, an unknown owner or group, and one that the current
    user cannot give files to.
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


def _identity(params: dict[str, t.Any], option: str, number_of: t.Callable[[str], int], own: t.Collection[int]) -> int | None:
    name = params[option]
    if name is None:
        return None
    try:
        number = int(name) if name.isdigit() else number_of(name)
    except KeyError as exc:
        raise DeliveryError.of(
            f"{option} {name}", "does not exist on this node.", "Create it on this node, or set another one."
        ) from exc
    if os.geteuid() != 0 and number not in own:
        raise DeliveryError.of(f"{option} {name}", f"cannot be assigned by user {os.geteuid()}.", "Run with become.")
    return number


def set_permissions(directory: str, manifest: Manifest, permissions: Permissions) -> None:
    """Set owners and modes of a directory and of the manifest's files in it, and flush all to disk.

    Raises OSError, and DeliveryError for anything that is not a plain file with one name. No link
    below ``directory`` is followed, nor is ``directory`` itself if it is one.
    """
    with opened(directory, manifest.directories) as directories:
        # The directory itself last.
        for subdirectory in (*manifest.directories, ""):
            _set_files(directories[subdirectory], directory, manifest, subdirectory, permissions)


def _set_files(descriptor: int, directory: str, manifest: Manifest, subdirectory: str, permissions: Permissions) -> None:
    """Set the files of one open directory, then the directory, so that its names are durable."""
    for entry in manifest.files:
        if os.path.dirname(entry.path) == subdirectory:
            with open_regular(os.path.join(directory, entry.path), descriptor) as stream:
                if os.fstat(stream.fileno()).st_nlink > 1:
                    # It may be a file elsewhere that another user has linked to this place.
                    raise DeliveryError.of(
                        os.path.join(directory, entry.path), "has another hard link.", "Remove one of its names."
                    )
                _set(stream.fileno(), permissions.file_mode, permissions)
                os.fsync(stream.fileno())
    _set(descriptor, permissions.directory_mode, permissions)
    os.fsync(descriptor)


def _set(descriptor: int, mode: int, permissions: Permissions) -> None:
    # The owner first: chown clears the setuid and setgid bits.
    if permissions.uid is not None or permissions.gid is not None:
        status = os.fstat(descriptor)
        uid = status.st_uid if permissions.uid is None else permissions.uid
        gid = status.st_gid if permissions.gid is None else permissions.gid
        if (uid, gid) != (status.st_uid, status.st_gid):
            os.fchown(descriptor, uid, gid)
    os.fchmod(descriptor, mode)


def check_link_readable(permissions: Permissions) -> None:
    """Raise DeliveryError if the owner of served files could not read a release in the store.

    A served link leads to it, so the permissions of its owner do not apply.
    """
    stored = permissions.of_store()
    if permissions.uid is None or permissions.uid == stored.uid:
        return
    try:
        owner = pwd.getpwuid(permissions.uid)
        name, groups = owner.pw_name, os.getgrouplist(owner.pw_name, owner.pw_gid)
    except KeyError:
        name, groups = str(permissions.uid), []
    gid = os.getegid() if stored.gid is None else stored.gid
    shift = 3 if gid in groups else 0
    if stored.file_mode >> shift & 0o4 and stored.directory_mode >> shift & 0o5 == 0o5:
        return
    raise DeliveryError.of(
        f"owner {name}",
        f"could not read releases through the link that activation symlink serves: they belong to root and group {gid},"
        f" with file mode {stored.file_mode:04o} and directory mode {stored.directory_mode:04o}.",
        "Set the option group to a group of that user and file_mode and directory_mode so that it may read,"
        ' such as "0640" and "0750".',
    )
