# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Which directories of the store some process has open or mapped, as far as /proc may be read."""

from __future__ import annotations

import contextlib
import os
import typing as t


def in_use(directories: t.Iterable[str]) -> set[str]:
    """Those of C(directories) of which the directory or a file in it is open or mapped by any process that can be seen."""
    owners: dict[int, str] = {}
    for directory in directories:
        for top, _names, files in os.walk(directory):
            for path in (top, *(os.path.join(top, name) for name in files)):
                with contextlib.suppress(FileNotFoundError):
                    owners[os.lstat(path).st_ino] = directory
    if not owners:
        return set()
    # By inode alone: device numbers in maps differ from those of stat on some file systems, and a wrong match only
    # keeps a release for longer.
    return {owners[inode] for inode in _inodes() if inode in owners}


def _inodes() -> t.Iterator[int]:
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        # A process that ended meanwhile, or one that belongs to somebody else.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as stream:
            yield from (int(line.split(None, 5)[4]) for line in stream)
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    yield os.stat(f"/proc/{pid}/fd/{descriptor}").st_ino
