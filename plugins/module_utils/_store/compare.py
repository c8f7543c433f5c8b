# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Compare a directory with a manifest: every byte, every name, kind, mode and owner. Reads only."""

from __future__ import annotations

import dataclasses
import os
import stat
import typing as t

from .._adapter.manifest import FileEntry, Manifest
from .._errors import DeliveryError
from .._hashing import SHORT, sha256_of, sha256_of_all

MISSING = "missing"
EXTRA = "extra"
CHANGED = "changed"
MODE = "mode"


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing in which a directory is not what its manifest says. C(path) is "." for the directory itself."""

    kind: str
    path: str
    detail: str

    def line(self, directory: str = "") -> str:
        """One line for people, with the whole path where the directory is given."""
        path = os.path.normpath(os.path.join(directory, self.path)) if directory else self.path
        # A hostile name must not be able to forge further lines.
        path = path if path.isprintable() else ascii(path)
        return f"{self.kind:<7}  {path}  {self.detail}".rstrip()


def differences(
    directory: str,
    manifest: Manifest,
    file_mode: t.Optional[int] = None,
    directory_mode: t.Optional[int] = None,
    uid: t.Optional[int] = None,
    gid: t.Optional[int] = None,
    fsync: bool = False,
    content: bool = True,
) -> list[Difference]:
    """Everything in which C(directory) differs from C(manifest), sorted by path; empty when it is exactly that.

    Modes and owners are compared where they are given. Without C(content) no file is opened. With C(fsync) the bytes of all
    files are on the disk when this returns; then a file that cannot be read or flushed raises (OSError, DeliveryError)
    instead of being a difference.
    """
    try:
        status = os.lstat(directory)
        names = set(os.listdir(directory)) if stat.S_ISDIR(status.st_mode) else set()
    except FileNotFoundError:
        return [Difference(MISSING, ".", "there is no such directory")]
    if not stat.S_ISDIR(status.st_mode):
        return [Difference(CHANGED, ".", f"{_kind(status.st_mode)} instead of a directory")]
    found = _permission_differences(".", status, directory_mode, uid, gid)
    wanted = {entry.path: entry for entry in manifest.files}
    to_hash = []
    for name in names | wanted.keys():
        try:
            status = os.lstat(os.path.join(directory, name))
        except FileNotFoundError:
            found.append(Difference(MISSING, name, ""))
            continue
        if name not in wanted:
            found.append(Difference(EXTRA, name, "" if stat.S_ISREG(status.st_mode) else _kind(status.st_mode)))
        elif not stat.S_ISREG(status.st_mode):
            found.append(Difference(CHANGED, name, f"{_kind(status.st_mode)} instead of a plain file"))
        else:
            if status.st_nlink > 1:
                # A write through the other name would change this one.
                found.append(Difference(CHANGED, name, f"has {status.st_nlink} hard links"))
            if status.st_size != wanted[name].size:
                found.append(Difference(CHANGED, name, f"{status.st_size} bytes instead of {wanted[name].size}"))
            else:
                to_hash.append(wanted[name])
            found += _permission_differences(name, status, file_mode, uid, gid)
    if content:
        found += _content_differences(directory, to_hash, fsync)
    return sorted(found, key=lambda difference: (difference.path, difference.kind, difference.detail))


def in_content(found: t.Iterable[Difference]) -> list[Difference]:
    """The differences that are more than modes and owners."""
    return [difference for difference in found if difference.kind != MODE]


def _content_differences(directory: str, entries: list[FileEntry], fsync: bool) -> list[Difference]:
    paths = [os.path.join(directory, entry.path) for entry in entries]
    try:
        seen: list[t.Union[tuple[int, str], str]] = [*sha256_of_all(paths, fsync)]
    except DeliveryError:
        if fsync:
            raise
        seen = [_hash_or_reason(path) for path in paths]
    found = []
    for entry, result in zip(entries, seen):
        if isinstance(result, str):
            found.append(Difference(CHANGED, entry.path, result))
        elif result != (entry.size, entry.sha256):
            detail = f"sha256 {result[1][:SHORT]}.. instead of {entry.sha256[:SHORT]}.."
            found.append(Difference(CHANGED, entry.path, detail))
    return found


def _hash_or_reason(path: str) -> t.Union[tuple[int, str], str]:
    try:
        return sha256_of(path)
    except DeliveryError as exc:
        return exc.problems[0].problem.rstrip(".")


def _permission_differences(
    path: str, status: os.stat_result, mode: t.Optional[int], uid: t.Optional[int], gid: t.Optional[int]
) -> list[Difference]:
    found = []
    if mode is not None and stat.S_IMODE(status.st_mode) != mode:
        found.append(Difference(MODE, path, f"{stat.S_IMODE(status.st_mode):04o} instead of {mode:04o}"))
    if uid is not None and status.st_uid != uid:
        found.append(Difference(MODE, path, f"owner {status.st_uid} instead of {uid}"))
    if gid is not None and status.st_gid != gid:
        found.append(Difference(MODE, path, f"group {status.st_gid} instead of {gid}"))
    return found


def _kind(mode: int) -> str:
    names = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return names.get(stat.S_IFMT(mode), "a device")
