# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""Reads the host keys of the source's ssh server, at the source.

The controller has checked the connection to this program, so a node can rely on these keys. They
are those that the server shows on this machine. Its files tell less: its configuration decides
which of them it uses, and often only root may read that.
"""

from __future__ import annotations

import glob
import os
import subprocess
import typing as t

from .channel import end_with_controller, tell

# Where keys are that the server could not be asked for.
_FILES = "/etc/ssh/ssh_host_*_key.pub"
# Seconds for all keys. ssh-keyscan has its own limit for each.
_TIMEOUT = 20


def main(job: dict[str, t.Any]) -> None:
    """Answer with the ``keys``, each its type and the key, or with the ``problem``.

    ``job`` has the ``port`` of the server, which is that of the controller's connection instead
    where the controller is connected ``over_ssh``, and the seconds of ``lease``.
    """
    end_with_controller(job["lease"], lambda: None)
    # sshd's own address and port, whatever address translation the controller goes through.
    reached = os.environ.get("SSH_CONNECTION", "").split() if job["over_ssh"] else []
    address, port = reached[2:] if len(reached) == 4 else ("127.0.0.1", str(job["port"]))
    keys, problem = _shown(address, port)
    keys = keys or _in_files()
    if keys:
        tell(keys=keys)
    else:
        tell(problem=f"the host keys of port {port} of {address} cannot be read: {problem or 'it shows none'}")


def _shown(address: str, port: str) -> tuple[list[str], str]:
    """Return the keys that a server shows, and why there are none."""
    argv = ["ssh-keyscan", "-T", "5", "-p", port, "--", address]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return [], f"ssh-keyscan: {getattr(exc, 'strerror', None) or exc}"
    # Newer versions print the server's version as a comment here.
    lines = [line.split() for line in done.stdout.decode(errors="replace").splitlines() if not line.startswith("#")]
    return [" ".join(line[1:3]) for line in lines if len(line) >= 3], ""


def _in_files() -> list[str]:
    keys = []
    for path in sorted(glob.glob(_FILES)):
        try:
            with open(path, encoding="utf-8") as stream:
                words = stream.read(1 << 14).split()
        except (OSError, ValueError):
            continue
        if len(words) >= 2:
            keys.append(" ".join(words[:2]))
    return keys
