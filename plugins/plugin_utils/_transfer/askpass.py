# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Gives an ssh password to the one host that it is for, and to no jump host, key or token that asks on the way there.

A program for ssh's SSH_ASKPASS (OpenSSH 8.4 or newer) is asked in the place of a terminal. The text of a prompt begins with
words of ssh itself, which name user and host (sshconnect2.c); but these can be the same for a jump host with forwarded ports,
so the ssh that asks must also be the very one that was started for this: its arguments have the path of its control socket.
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
case $(tr '\\0' '\\n' < /proc/$PPID/cmdline) in *{mark}*)
    case $1 in {password} | {keyboard}*) exec cat {secret} ;; esac
esac
printf 'not answered, the password is for %s alone: %s\\n' {name} "$1" >&2
exit 1
"""


@contextlib.contextmanager
def answering(argv: c.Sequence[str], mark: str, password: str, directory: str) -> t.Iterator[dict[str, str]]:
    """What the environment of the ssh command C(argv) has to have more, to be given C(password).

    C(mark) is a part of C(argv) that no other ssh is started with. The program lies in C(directory), which must not be
    mounted noexec; the password itself is on no disk, in no argument and in no environment.
    """
    name = _asked_for(argv)
    descriptor = os.memfd_create("password", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o400)
        os.write(descriptor, f"{password}\n".encode())
        with tempfile.TemporaryDirectory(dir=directory) as private:
            program = pathlib.Path(private, "askpass")
            words = {
                "mark": mark,
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


def _asked_for(argv: c.Sequence[str]) -> str:
    """USER@HOST as ssh has it in its prompts. What it makes of wrong arguments it says itself when it is started."""
    done = subprocess.run([argv[0], "-G", *argv[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    return f"{found.get('user', '')}@{found.get('hostkeyalias') or found.get('hostname', '')}"
