# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Mounts, read from /proc/self/mountinfo: ``os.path.ismount`` does not detect bind mounts."""

from __future__ import annotations

import os
import re
import typing as t

_OCTAL = re.compile(r"\\([0-7]{3})")


def is_mount_point(path: str) -> bool:
    """Return whether this path is a mount point. A link at ``path`` itself is not followed."""
    parent, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(parent), name) in _mount_points()


def mount_of(path: str) -> str:
    """Return the mount point of an existing path. A rename only works within one mount."""
    return _mount_of(path, _mount_points())


def file_system_of(path: str) -> str:
    """Return the type of the file system that an existing path is on: ``ext4``, ``nfs4``."""
    points = _mount_points()
    return points.get(_mount_of(path, points), "")


def _mount_of(path: str, points: t.Container[str]) -> str:
    path = os.path.realpath(path)
    while path not in points and path != "/":
        path = os.path.dirname(path)
    return path


def _mount_points() -> dict[str, str]:
    """Return the type of the file system at each mount point. Of several there, the last counts."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        lines = [line.partition(" - ") for line in stream]
    return {
        _OCTAL.sub(lambda match: chr(int(match[1], 8)), mount.split(" ")[4]): source.split(" ")[0]
        for mount, _separator, source in lines
    }
