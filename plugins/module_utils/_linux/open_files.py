# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Find directories that a process has open or mapped, as far as /proc is readable."""

from __future__ import annotations

import contextlib
import os
import typing as t

# Linux, capabilities(7).
_CAP_SYS_PTRACE = 19


def in_use(directories: t.Iterable[str]) -> set[str]:
    """Return those of ``directories`` in use: a visible process has them or a file in them open."""
    opened: dict[tuple[int, int], str] = {}
    mapped: dict[tuple[int, bytes], str] = {}
    for directory in directories:
        for top, names, files in os.walk(directory):
            if top != directory:
                # A release is not deeper. The owner of the directory may have nested thousands.
                names.clear()
            for path in (top, *(os.path.join(top, name) for name in files)):
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(path)
                    opened[status.st_dev, status.st_ino] = directory
                    mapped[status.st_ino, os.fsencode(os.path.basename(path))] = directory
    if not opened:
        return set()
    used = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        # The process has ended, or belongs to another user.
        with contextlib.suppress(OSError):
            used |= {mapped[mapping] for mapping in _mappings(pid) if mapping in mapped}
        with contextlib.suppress(OSError):
            used |= {opened[descriptor] for descriptor in _descriptors(pid) if descriptor in opened}
    return used


def sees_all_processes() -> bool:
    """Return whether ``in_use`` sees all processes. Root in a container often does not."""
    with open("/proc/self/status", "rb") as stream:
        for line in stream:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_PTRACE & 1)
    return False


def _mappings(pid: str) -> t.Iterator[tuple[int, bytes]]:
    """Yield inodes and names of mapped files. The device may differ from that of stat."""
    with open(f"/proc/{pid}/maps", "rb") as stream:
        for line in stream:
            fields = line.rstrip(b"\n").split(None, 5)
            if len(fields) == 6:
                yield int(fields[4]), os.path.basename(fields[5])


def _descriptors(pid: str) -> t.Iterator[tuple[int, int]]:
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            status = os.stat(f"/proc/{pid}/fd/{descriptor}")
            yield status.st_dev, status.st_ino
