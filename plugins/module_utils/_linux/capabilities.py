# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Change the user of this process and keep one capability, see capabilities(7)."""

from __future__ import annotations

import ctypes
import os
import re
import typing as t

from . import prctl

_LIBC = ctypes.CDLL(None, use_errno=True)
# linux/capability.h: two sets of 32 bits each.
_VERSION = 0x20080522

WAKE_ALARM = 35
NET_BIND_SERVICE = 10


class _Header(ctypes.Structure):
    _fields_: t.ClassVar = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_: t.ClassVar = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def permitted() -> int:
    """Return the permitted capabilities of this process, one bit each."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
        found = re.search(r"^CapPrm:\s*([0-9a-f]+)$", stream.read(), re.MULTILINE)
    return int(found.group(1), 16) if found else 0


def become(uid: int, gid: int, groups: t.Sequence[int], capability: int | None) -> None:
    """Become another user for good. Raises OSError.

    This process and what it starts keep the capability, which has to be permitted, and no other.
    """
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    if capability is None:
        os.setresuid(uid, uid, uid)
        return
    prctl.keep_capabilities()
    os.setresuid(uid, uid, uid)
    sets = (_Sets * 2)()
    bit = 1 << capability % 32
    sets[capability // 32] = _Sets(0, bit, bit)
    if _LIBC.capset(ctypes.byref(_Header(_VERSION, 0)), sets):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "capset")
    prctl.raise_ambient(capability)
