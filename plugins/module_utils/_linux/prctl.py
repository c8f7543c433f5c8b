# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Attributes of this process that Python's ``os`` cannot set, by prctl(2)."""

from __future__ import annotations

import ctypes
import os
import signal

_LIBC = ctypes.CDLL(None, use_errno=True)

_PDEATHSIG = 1
_DUMPABLE = 4
_KEEPCAPS = 8
_CHILD_SUBREAPER = 36
_NO_NEW_PRIVS = 38
_CAP_AMBIENT, _CAP_AMBIENT_RAISE = 47, 2


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. Changing the user undoes this."""
    _prctl(_PDEATHSIG, signal.SIGKILL)


def forbid_attaching() -> None:
    """Keep other processes of this user away from the memory and the descriptors of this one.

    Until it starts another program.
    """
    _prctl(_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Take the effect from setuid programs, for this process and all that it starts."""
    _prctl(_NO_NEW_PRIVS, 1)


def adopt_orphans(adopt: bool) -> None:
    """Become the parent of orphans among the descendants, or no longer."""
    _prctl(_CHILD_SUBREAPER, int(adopt))


def keep_capabilities() -> None:
    """Keep the permitted capabilities when this process changes its user, until it does exec."""
    _prctl(_KEEPCAPS, 1)


def raise_ambient(capability: int) -> None:
    """Hand a capability on to all programs that this process starts."""
    _prctl(_CAP_AMBIENT, _CAP_AMBIENT_RAISE, capability)


def _prctl(option: int, *arguments: int) -> None:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    if _LIBC.prctl(option, *map(ctypes.c_ulong, padded)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"prctl {option}")
