# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What the rsync of a host says of itself."""

from __future__ import annotations

import re
import typing as t


class Rsync(t.NamedTuple):
    """Its version, and whether it can compress with zstd (from 3.2 on, where it was built with that)."""

    version: str
    zstd: bool

    @classmethod
    def parse(cls, said: str) -> t.Optional[Rsync]:
        """Read the output of C(rsync --version); None when it is none."""
        version = re.search(r"^rsync +version v?(\S+)", said, re.MULTILINE)
        zstd = re.search(r"^Compress list:\n.*\bzstd\b", said, re.MULTILINE)
        return cls(version[1], bool(zstd)) if version else None
