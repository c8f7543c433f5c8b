# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""What programs at the source have in common: the files that they offer, a port, their rights."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import typing as t

from .channel import forbid_attaching

_NOBODY = 65534


def open_file(path: str, size: int) -> int:
    """Open a plain file of this size. Raises OSError for anything else, such as a link."""
    descriptor = os.open(os.path.expanduser(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != size:
        raise OSError(0, f"is no plain file of {size} bytes any more", path)
    return descriptor


def listen(local: bool, ports: t.Sequence[int], backlog: int) -> socket.socket:
    """Listen on the first free one of ``ports``, the first and the last of them.

    On this machine only if ``local``. Raises OSError.
    """
    first, last = ports
    for port in range(first, last + 1):
        with contextlib.suppress(OSError):
            return _listener(local, port, backlog)
    raise OSError(f"none of the ports {first} to {last} is free" if last != first else f"port {first} is not free")


def _listener(local: bool, port: int, backlog: int) -> socket.socket:
    if local:
        return socket.create_server(("127.0.0.1", port), backlog=backlog)
    with contextlib.suppress(OSError, ValueError):
        # Both families, where there are both.
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=backlog)


def confine() -> None:
    """Give up the rights of root, and let nobody attach."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    forbid_attaching()
