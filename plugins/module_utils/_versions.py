# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Comparing package versions. Part of the load test's program, too."""

from __future__ import annotations

import re
import typing as t

Version = t.Tuple[int, ...]
# Versions come from other hosts, too, and Python refuses to read numbers of thousands of digits.
_LONGEST = 100


def numbers(version: str) -> Version:
    """Return the numbers at the start: (2, 10, 0) for 2.10.0rc1+cpu, (0,) if there are none."""
    found = re.match(r"\d+(\.\d+)*", version[:_LONGEST])
    return tuple(map(int, found[0].split("."))) if found else (0,)


def major_minor(version: str) -> tuple[int, int]:
    """Return major and minor version, which determine compatibility; (0, 0) without any."""
    found = re.match(r"\D*(\d+)(?:\.(\d+))?", version[:_LONGEST])
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def dotted(version: Version) -> str:
    """Return the numbers of a version separated by dots."""
    return ".".join(map(str, version))
