# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The version and abilities of a host's rsync."""

from __future__ import annotations

import re
import typing as t


class Rsync(t.NamedTuple):
    """Its version, and whether it can compress with zstd (3.2 or newer, if built with zstd)."""

    version: str
    zstd: bool

    @classmethod
    def parse(cls, output: str) -> Rsync | None:
        """Parse the output of ``rsync --version``. None if it is something else."""
        version = re.search(r"^rsync +version v?(\S+)", output, re.MULTILINE)
        zstd = re.search(r"^Compress list:\n.*\bzstd\b", output, re.MULTILINE)
        return cls(version[1], bool(zstd)) if version else None
