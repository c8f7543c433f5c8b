# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Gives an ssh password to one host only, never to a jump host, key or token on the way.

ssh runs the program in SSH_ASKPASS instead of prompting on a terminal (forced since OpenSSH 8.4). A
prompt begins with ssh's own text, which names user and host (sshconnect2.c). These can be the same
for a jump host with forwarded ports, so the program also checks that its parent is the ssh process
in question: the path of the control socket is among that process's arguments.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import pathlib
import shlex
import subprocess
import tempfile
import typing as t

_PROGRAM = """\
#!/bin/sh
case $(tr '\\0' '\\n' < /proc/$PPID/cmdline) in *{marker}*)
    case $1 in {password} | {keyboard}*) exec cat {secret} ;; esac
esac
printf 'not answered, the password is only for %s: %s\\n' {name} "$1" >&2
exit 1
"""


@contextlib.contextmanager
def askpass(argv: c.Sequence[str], marker: str, password: str, directory: str) -> t.Iterator[dict[str, str]]:
    """The variables that make the ssh command ``argv`` use ``password`` within the context.

    ``marker`` is a part of ``argv`` that no other ssh process has. The program is created in
    ``directory``, which must not be mounted noexec. The password itself exists in memory only, not
    in a file, an argument or the environment.
    """
    name = _login_name(argv)
    descriptor = os.memfd_create("password", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o400)
        os.write(descriptor, f"{password}\n".encode())
        with tempfile.TemporaryDirectory(dir=directory) as private:
            program = pathlib.Path(private, "askpass")
            words = {
                "marker": marker,
                "password": f"{name}'s password: ",
                "keyboard": f"({name}) ",
                "secret": f"/proc/{os.getpid()}/fd/{descriptor}",
                "name": name,
            }
            program.write_text(_PROGRAM.format(**{key: shlex.quote(word) for key, word in words.items()}), encoding="utf-8")
            program.chmod(0o500)
            yield {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
    finally:
        os.close(descriptor)


def _login_name(argv: c.Sequence[str]) -> str:
    """USER@HOST as ssh prints it in prompts. ssh itself reports wrong arguments when it runs."""
    done = subprocess.run([argv[0], "-G", *argv[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    return f"{found.get('user', '')}@{found.get('hostkeyalias') or found.get('hostname', '')}"
