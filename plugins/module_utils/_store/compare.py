# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Compare a directory with a manifest: names, kinds, content, modes and owners. Reads only."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import typing as t

from .._adapter.manifest import FileEntry, Manifest
from .._errors import DeliveryError
from .._hashing import SHORT, sha256_of, sha256_of_all
from .._text import printable

MISSING = "missing"
EXTRA = "extra"
CHANGED = "changed"
MODE = "mode"
# The release was verified at a lower level than required.
LOWER = "lower"
# Whoever owns a served directory can put any number of files into it.
_MOST_EXTRA = 100


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference between what is on the node and what should be.

    ``path`` is "." for the directory itself, and empty for a difference that concerns no single
    path.
    """

    kind: str
    path: str
    detail: str

    def below(self, directory: str) -> Difference:
        """Return the same difference with the full path, for a path in ``directory``."""
        return dataclasses.replace(self, path=os.path.normpath(os.path.join(directory, self.path)))

    def line(self) -> str:
        """Return one line of text."""
        # A hostile file name must not forge further lines.
        return "  ".join(part for part in (f"{self.kind:<7}", printable(self.path), self.detail) if part)


def differences(
    directory: str,
    manifest: Manifest,
    file_mode: int | None = None,
    directory_mode: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
    fsync: bool = False,
    content: bool = True,
) -> list[Difference]:
    """Return all differences between a directory and a manifest, sorted by path.

    Of the paths that should not be there, only the first hundred are named. Modes and owners are
    compared if given. Without ``content`` no file is opened. With ``fsync``
    the content of all files is on disk when this returns; a file that cannot be read or flushed
    then raises (OSError, DeliveryError) instead of being a difference.
    """
    try:
        status = os.lstat(directory)
        present = entries_of(directory, manifest) if stat.S_ISDIR(status.st_mode) else {}
    except FileNotFoundError:
        return [Difference(MISSING, ".", "the directory does not exist")]
    if not stat.S_ISDIR(status.st_mode):
        return [Difference(CHANGED, ".", f"{_kind(status.st_mode)} instead of a directory")]
    found = _permission_differences(".", status, directory_mode, uid, gid)
    wanted = {entry.path: entry for entry in manifest.files}
    to_hash, extra = [], []
    for name in present.keys() | wanted.keys():
        if name not in present:
            found.append(Difference(MISSING, name, ""))
            continue
        status = present[name]
        if name in manifest.directories:
            if stat.S_ISDIR(status.st_mode):
                found += _permission_differences(name, status, directory_mode, uid, gid)
            else:
                found.append(Difference(CHANGED, name, f"{_kind(status.st_mode)} instead of a directory"))
        elif name not in wanted:
            extra.append(Difference(EXTRA, name, "" if stat.S_ISREG(status.st_mode) else _kind(status.st_mode)))
        elif not stat.S_ISREG(status.st_mode):
            found.append(Difference(CHANGED, name, f"{_kind(status.st_mode)} instead of a plain file"))
        else:
            if status.st_nlink > 1:
                # A write through another name would change this file.
                found.append(Difference(CHANGED, name, f"has {status.st_nlink} hard links"))
            if status.st_size != wanted[name].size:
                found.append(Difference(CHANGED, name, f"{status.st_size} bytes instead of {wanted[name].size}"))
            else:
                to_hash.append(wanted[name])
            found += _permission_differences(name, status, file_mode, uid, gid)
    extra.sort(key=lambda difference: difference.path)
    found += extra[:_MOST_EXTRA]
    if len(extra) > _MOST_EXTRA:
        found.append(Difference(EXTRA, ".", f"{len(extra) - _MOST_EXTRA} more"))
    if content:
        found += _content_differences(directory, to_hash, fsync)
    return sorted(found, key=lambda difference: (difference.path, difference.kind, difference.detail))


def entries_of(directory: str, manifest: Manifest) -> dict[str, os.stat_result]:
    """Return the status of everything in a directory, and in the subdirectories of the manifest.

    Links are not followed. Other subdirectories are entries like files.
    """
    found: dict[str, os.stat_result] = {}
    for above in ("", *manifest.directories):
        if above and not (above in found and stat.S_ISDIR(found[above].st_mode)):
            continue
        for name in os.listdir(os.path.join(directory, above)):
            path = os.path.join(above, name)
            with contextlib.suppress(FileNotFoundError):
                found[path] = os.lstat(os.path.join(directory, path))
    return found


def in_content(found: t.Iterable[Difference]) -> list[Difference]:
    """Return the differences other than modes and owners."""
    return [difference for difference in found if difference.kind != MODE]


def _content_differences(directory: str, entries: list[FileEntry], fsync: bool) -> list[Difference]:
    paths = [os.path.join(directory, entry.path) for entry in entries]
    try:
        seen: list[tuple[int, str] | str] = [*sha256_of_all(paths, fsync)]
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


def _hash_or_reason(path: str) -> tuple[int, str] | str:
    try:
        return sha256_of(path)
    except DeliveryError as exc:
        return exc.problems[0].problem.rstrip(".")


def _permission_differences(
    path: str, status: os.stat_result, mode: int | None, uid: int | None, gid: int | None
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
