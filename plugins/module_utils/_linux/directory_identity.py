# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Recognise a directory of another host as one of this host.

Two hosts of an inventory can be one machine: by two names, or as containers that share a bind
mount. Then device and inode of the directory are equal, since one kernel assigns them. Or the hosts
are two machines that share a file system. Then the inode is still equal, but another directory can
have that number, so a file in the directory must agree as well: in inode and in ctime, which
nothing but the kernel sets and which has nanoseconds. A copy has other inodes, and a copy by hard
links is another directory. A clone of a whole disk agrees in all of this, so shared file systems
are considered only where the file system is of a kind that machines can share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from .._errors import DeliveryError
from .mounts import file_system_of

# Types of file systems that are on one machine only. Of any other, the answer is "perhaps".
_LOCAL = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"})

# st_dev and st_ino.
_Inode = t.Tuple[int, int]


@dataclasses.dataclass(frozen=True)
class DirectoryIdentity:
    """``path`` is the directory with its links resolved, on the host that ``machine`` names.

    ``machine`` identifies the running kernel. ``inodes`` are those of the directory and of every
    directory above it. ``mark`` is inode and ctime of a file in the directory, None if there is no
    such file. ``shareable`` is whether other machines may have this file system too.
    """

    path: str
    machine: str
    inodes: tuple[_Inode, ...]
    mark: tuple[int, int] | None
    shareable: bool

    @classmethod
    def of(cls, path: str, mark: str) -> DirectoryIdentity:
        """Identify an existing directory by a file called ``mark`` in it. Raises OSError."""
        path = os.path.realpath(path)
        inodes = []
        for directory in _with_parents(path):
            status = os.stat(directory)
            inodes.append((status.st_dev, status.st_ino))
        marked = None
        with contextlib.suppress(OSError):
            status = os.stat(os.path.join(path, mark))
            marked = (status.st_ino, status.st_ctime_ns)
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            machine = stream.read().strip()
        return cls(path, machine, tuple(inodes), marked, file_system_of(path) not in _LOCAL)

    def is_same(self, other: DirectoryIdentity) -> bool:
        """Return whether both are one directory."""
        if self.machine == other.machine and self.inodes[0] == other.inodes[0]:
            return True
        shared = self.shareable or other.shareable
        same_inode = self.inodes[0][1] == other.inodes[0][1]
        return shared and same_inode and self.mark is not None and self.mark == other.mark

    def is_inside(self, other: DirectoryIdentity) -> bool:
        """Return whether this directory is somewhere below the other one, on the same machine."""
        return self.machine == other.machine and other.inodes[0] in self.inodes[1:]

    def to_json(self) -> dict[str, t.Any]:
        inodes, mark = [list(inode) for inode in self.inodes], self.mark and list(self.mark)
        return {**dataclasses.asdict(self), "inodes": inodes, "mark": mark}

    @classmethod
    def from_json(cls, data: t.Any) -> DirectoryIdentity:
        """Parse what ``to_json`` returned on another host.

        Raises DeliveryError for anything else.
        """
        try:
            inodes = tuple((int(device), int(inode)) for device, inode in data["inodes"])
            mark = None if data["mark"] is None else (int(data["mark"][0]), int(data["mark"][1]))
            identity = cls(str(data["path"]), str(data["machine"]), inodes, mark, bool(data["shareable"]))
        except (KeyError, IndexError, TypeError, ValueError) as exc:
            raise DeliveryError.of("source_directories", f"cannot be read: {exc!r}.", _REMEDY) from exc
        if not identity.inodes:
            raise DeliveryError.of("source_directories", "has a directory without inodes.", _REMEDY)
        return identity


_REMEDY = "Pass the value that lorafleet.delivery.adapter_info returned."


def _with_parents(path: str) -> t.Iterator[str]:
    yield path
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path
