# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Programs of the site: the one that restarts an engine, and the one that converts a release."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import typing as t

from .contract import Refused, first_line

_KILLED_SECONDS = 10.0


def restart(how: str | list[str], seconds: float) -> None:
    """Restart a systemd unit, or run a command. Returns when the command has ended.

    Raises Refused.
    """
    run(["systemctl", "restart", how] if isinstance(how, str) else how, seconds, "restart")


def run(command: t.Sequence[str], seconds: float, key: str) -> None:
    """Run a command, which ``key`` of the engine states. Raises Refused unless it succeeds."""
    remedy = f"Correct {key} of this engine in engines."
    # What a restarted server inherits would keep a pipe open.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as exc:
            raise Refused(f"cannot be told anything: {command[0]} does not run: {exc.strerror}", remedy) from exc
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            # It may have started other processes, which would go on without it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # The kernel does not end a process that waits for a device.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_KILLED_SECONDS)
            raise Refused(f"cannot be told anything: {command[0]} did not end within {seconds:g} seconds", remedy) from None
        if status:
            output.seek(0)
            lines = output.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
            said = f": {first_line(lines[-1])}" if lines else ""
            raise Refused(f"cannot be told anything: {command[0]} ended with {status}{said}", remedy)
