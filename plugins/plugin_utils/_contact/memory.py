# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Bounds the memory that the answer of a host can take.

Ansible reads all that a module prints before an action plugin gets it, in a process of its own for
each task and host.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import resource
import typing as t

# Manifests are the largest answers: up to about 12 MB each. Reading 150 MB takes 1.7 GB.
MAX_MEMORY = 2 << 30


@contextlib.contextmanager
def bounded_memory(more: int) -> t.Iterator[None]:
    """Let this process allocate at most ``more`` bytes than it has now: MemoryError otherwise.

    Child processes inherit the limit. Without effect where /proc does not exist.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allocated = _allocated()
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    if allocated is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (min([allocated + more, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _allocated() -> int | None:
    """The bytes that RLIMIT_DATA counts. None where the kernel does not say."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmData:\s+(\d+) kB$", pathlib.Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
        return int(found[1]) << 10 if found else None
    return None
