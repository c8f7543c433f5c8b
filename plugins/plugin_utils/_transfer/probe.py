# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Open the connection of a transfer to one host, without transferring anything."""

from __future__ import annotations

import collections.abc as c
import contextlib
import subprocess
import tempfile

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from .relay import End, printed_by, start, text_of
from .rsync import CONNECTION_FAILED
from .session import unclean_shell

_TIMEOUT = 60
# What the shell of the host prints comes before it.
_BEGIN = "-- begin --"


def probe(host: str, end: End, programs: c.Sequence[str], source: bool = False) -> None:
    """Look for these programs at an end as a transfer would run them there.

    ``source`` is whether the host is the source of a transfer. Raises DeliveryError if the host
    cannot be reached, does not let the user become another one, lacks a program in the search path
    of the commands of a transfer, or, at a source, prints other text before their output.
    """
    missing = "; ".join(f"command -v {program} >/dev/null || echo {program}" for program in programs)
    command = end.argv(["sh", "-c", f"echo {_BEGIN}; {missing}"])
    with tempfile.TemporaryFile() as stderr, contextlib.ExitStack() as running:
        running.callback(end.close)
        process = start(running, end, command, subprocess.PIPE, stderr)
        connected = end.become is None or end.become.wait(process, stderr, _TIMEOUT)
        output = printed_by(process, _TIMEOUT)
        try:
            process.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise DeliveryError.of(host, f"did not answer within {_TIMEOUT} seconds.", _REMEDY) from None
        messages = " ".join(text_of(stderr).split())[-600:]
    if not connected or process.returncode:
        what = "an ssh connection failed" if process.returncode == CONNECTION_FAILED else f"status {process.returncode}"
        raise DeliveryError.of(host, f"cannot be used for a transfer: {what}: {messages or 'no reason given'}", _REMEDY)
    printed, _begin, missing = output.decode(errors="replace").rpartition(f"{_BEGIN}\n")
    if source and printed:
        raise unclean_shell(host, printed)
    if missing:
        raise DeliveryError.of(
            host,
            f"finds no {' and no '.join(missing.split())} in the search path of a transfer.",
            "Install it on this host, in a directory that is in PATH for commands over ssh.",
        )


_REMEDY = (
    "Transfers open a connection of their own with the settings of Ansible's, and always check the host key:"
    " add the key to known_hosts after comparing it."
)
