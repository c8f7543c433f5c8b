# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Versions of packages as numbers that can be compared."""

from __future__ import annotations

import re
import typing as t

Version = t.Tuple[int, ...]


def numbers(version: str) -> Version:
    """The numbers that a version begins with: those of 2.10.0rc1+cpu are 2, 10 and 0."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else (0,)


def major_minor(version: str) -> tuple[int, int]:
    """Major and minor number of a version, which is what compatibility hangs on; zeros for what is none."""
    found = re.match(r"\D*(\d+)(?:\.(\d+))?", version)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def dotted(version: Version) -> str:
    """The numbers of a version as people write them."""
    return ".".join(map(str, version))
