# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Leave the namespaces of the host, see namespaces(7).

``os.unshare`` exists from Python 3.12 on; nothing in ``os`` mounts.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)

# sched.h.
MOUNTS = 0x00020000
IPC = 0x08000000
PIDS = 0x20000000
NETWORK = 0x40000000

# sys/mount.h.
_NOSUID, _NODEV, _NOEXEC = 2, 4, 8
_RECURSIVE, _PRIVATE = 0x4000, 0x40000
# linux/sockios.h, linux/if.h.
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def unshare(namespaces: int) -> None:
    """Move this process into new namespaces; into a new one of PIDs, only its children.

    Raises OSError.
    """
    if _LIBC.unshare(namespaces):
        raise _error("unshare")


def keep_mounts_here() -> None:
    """Keep what is mounted in this mount namespace out of all others. Raises OSError."""
    _mount("none", "/", None, _RECURSIVE | _PRIVATE, None)


def mount_proc() -> None:
    """Mount the /proc of this process's PID namespace. Raises OSError."""
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC, None)


def mount_tmpfs(path: str, size: int, uid: int, gid: int) -> None:
    """Mount an empty directory of at most ``size`` bytes for one user. Raises OSError."""
    _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV, f"size={size},mode=0700,uid={uid},gid={gid}")


def start_loopback() -> None:
    """Start the loopback interface, which is down in a new network namespace. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


def _mount(what: str, where: str, kind: str | None, flags: int, options: str | None) -> None:
    texts = [text and text.encode() for text in (what, where, kind)]
    if _LIBC.mount(*texts, ctypes.c_ulong(flags), options and options.encode()):
        raise _error(where)


def _error(what: str) -> OSError:
    return OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)
