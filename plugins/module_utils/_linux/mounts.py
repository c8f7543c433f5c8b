# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Mount points, read from /proc/self/mountinfo: ``os.path.ismount`` does not detect bind mounts."""

from __future__ import annotations

import os
import re

_OCTAL = re.compile(r"\\([0-7]{3})")


def is_mount_point(path: str) -> bool:
    """Return whether this path is a mount point. A link at ``path`` itself is not followed."""
    parent, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(parent), name) in _mount_points()


def mount_of(path: str) -> str:
    """Return the mount point of an existing path. A rename only works within one mount."""
    path = os.path.realpath(path)
    points = _mount_points()
    while path not in points and path != "/":
        path = os.path.dirname(path)
    return path


def _mount_points() -> set[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        fields = (line.split(" ")[4] for line in stream)
        return {_OCTAL.sub(lambda match: chr(int(match[1], 8)), field) for field in fields}
