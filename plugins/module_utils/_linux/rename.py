# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""renameat2(2), which Python lacks: exchange two names atomically, or rename without replacing."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
# System call numbers. glibc has a wrapper only since 2.28, musl has none.
_NUMBERS = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347}
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP})


def exchange(first: str, second: str) -> None:
    """Exchange two existing names atomically. Raises OSError."""
    _renameat2(first, second, _RENAME_EXCHANGE)


def rename_noreplace(source: str, target: str) -> None:
    """Rename without replacing: raises FileExistsError if ``target`` exists. Raises OSError."""
    _renameat2(source, target, _RENAME_NOREPLACE)


def is_unsupported(exc: OSError) -> bool:
    """Return whether the error means that this file system or kernel does not support it."""
    return exc.errno in _UNSUPPORTED


def can_exchange(first: str, second: str, label: str) -> bool:
    """Try to exchange two empty directories, one in ``first`` and one in ``second``.

    ``label`` makes their names unique to one lock, so that the next probe finds and removes what a
    crash left behind.
    """
    probes = [os.path.join(directory, f".exchange-probe-{label}") for directory in (first, second)]
    try:
        for probe in probes:
            with contextlib.suppress(FileExistsError):
                os.mkdir(probe, 0o700)
        exchange(*probes)
    except OSError as exc:
        if not is_unsupported(exc):
            raise
        return False
    finally:
        for probe in probes:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(probe)
    return True


def _renameat2(source: str, target: str, flags: int) -> None:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of renameat2 on {platform.machine()} is unknown", source, None, target)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(
        ctypes.c_long(number),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(source)),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(flags),
    )
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)
