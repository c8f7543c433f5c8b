# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""Lets a node through the ssh server of the source to an offer there, and nowhere else.

Runs as the user that the controller logs in as. It adds a line with the node's key to that user's
authorized_keys, and takes it away when the controller says that the node is through, or is gone.
"""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import sys
import threading
import time
import typing as t

from .authorized_keys import Line, Unusable
from .channel import ABANDONED, end_with_controller, tell

# Seconds after which the key lets nobody in any more, whatever becomes of this process.
_EXPIRY = 180
# What the node's connection is joined to: the port of the offer, on this machine only.
_JOIN = (
    'import os, socket; s = socket.create_connection(("127.0.0.1", {port})); f = s.fileno(); p = os.fork();'
    " a, b = (0, f) if p else (f, 1);"
    ' [os.write(b, x) for x in iter(lambda: os.read(a, 65536), b"")];'
    " (s.shutdown(1), os.wait()) if p else os.kill(os.getppid(), 9)"
)


def main(job: dict[str, t.Any]) -> None:
    """Let the node in until the controller is gone.

    ``job`` has the ``public`` key, the ``port`` of the offer, the path of the ``authorized_keys``
    file and the seconds of ``lease``. Answers with the ``user``, or with the ``problem``.
    """
    join = _JOIN.format(port=job["port"])
    # sshd reads the time in the zone of the machine, whatever that of this user is.
    os.environ.pop("TZ", None)
    time.tzset()
    until = time.strftime("%Y%m%d%H%M%S", time.localtime(time.time() + _EXPIRY))
    command = f"exec {shlex.join([sys.executable, '-I', '-c', join])}".replace('"', '\\"')
    line = Line(job["authorized_keys"], f'restrict,expiry-time="{until}",command="{command}" {job["public"]}')
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _abandon)
    try:
        with line:
            end_with_controller(job["lease"], line.remove)
            tell(user=pwd.getpwuid(os.geteuid()).pw_name)
            # The thread ends the process.
            threading.Event().wait()
    except Unusable as exc:
        tell(problem=str(exc))


def _abandon(*_signal: t.Any) -> t.NoReturn:
    raise SystemExit(ABANDONED)
