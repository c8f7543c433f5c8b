# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The ssh command line of a transfer, made of the settings that Ansible's own ssh connection plugin has."""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import re
import shlex
import signal
import subprocess
import typing as t

# ssh takes the first value it is given for an option, so nothing in the user's arguments can weaken these.
_FIRST = (
    "StrictHostKeyChecking=yes",
    "Compression=no",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    # Never Ansible's own connection, which was opened with -C mostly and would compress every byte of the weights. The first
    # command opens this one, the others go through it, and it ends by itself where nobody is left to hang up.
    "ControlMaster=auto",
    "ControlPersist=60",
)
# Who has no password answers no prompt. A password is given once: another time it would be as wrong, and count against the user.
_NO_PROMPT = ("BatchMode=yes",)
_PASSWORD = ("BatchMode=no", "NumberOfPasswordPrompts=1")
# Likewise the user's own value, where there is one, wins over these.
_LAST = ("Ciphers=^aes128-gcm@openssh.com",)

# Flags of ssh that take no value, of which one word can hold several.
_FLAGS = re.compile(r"-[46AaCfGgKkMNnqsTtVvXxYy]+")

# Options whose value is a command, or for one's environment; -o may stand behind other flags in its word.
_COMMANDS = re.compile(
    r"^((?:-[46AaCfGgKkMNnqsTtVvXxYy]*o)?\s*(?:ProxyCommand|KnownHostsCommand|LocalCommand|SetEnv)[\s=]+).*",
    re.IGNORECASE | re.DOTALL,
)

# Options of ansible.builtin.ssh that are read here.
OPTIONS = (
    "host",
    "password",
    "port",
    "private_key_file",
    "remote_user",
    "ssh_args",
    "ssh_common_args",
    "ssh_executable",
    "ssh_extra_args",
    "timeout",
)


def ssh_argv(options: c.Mapping[str, t.Any], command: c.Sequence[str], control_path: str = "none") -> list[str]:
    """Return the argv that runs C(command) on the host of an ssh connection.

    C(options) are values of the connection plugin's options named in OPTIONS. Commands with the same C(control_path) share
    one connection. Host keys are always checked. A password is not part of it: ssh asks for that, see _askpass.
    """
    argv = [str(options["ssh_executable"])]
    for option in (*(_PASSWORD if options.get("password") else _NO_PROMPT), *_FIRST, control_path_option(control_path)):
        argv += ["-o", option]
    argv += _words(options.get("ssh_args"))
    if options.get("port") is not None:
        argv += ["-o", f"Port={options['port']}"]
    if options.get("private_key_file"):
        argv += ["-o", f'IdentityFile="{os.path.expanduser(str(options["private_key_file"]))}"']
    if options.get("remote_user"):
        argv += ["-o", f'User="{options["remote_user"]}"']
    if options.get("timeout") is not None:
        argv += ["-o", f"ConnectTimeout={options['timeout']}"]
    argv += _words(options.get("ssh_common_args")) + _words(options.get("ssh_extra_args"))
    for option in _LAST:
        argv += ["-o", option]
    # The remote side is a shell: one string, quoted for it.
    return [*argv, "--", str(options["host"]), shlex.join(command)]


def hang_up(options: c.Mapping[str, t.Any], control_path: str) -> None:
    """End the connection that the commands with this C(control_path) share, if there is one.

    It is killed: asked to exit, it would first wait until the other side has taken what is on the way, which may be never.
    """
    asked = [str(options["ssh_executable"]), "-F", "none", "-o", control_path_option(control_path)]
    asked += ["-O", "check", "--", str(options["host"])]
    said = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    master = re.search(r"\(pid=(\d+)\)", said.stderr)
    with contextlib.suppress(OSError):
        if master:
            os.kill(int(master[1]), signal.SIGKILL)
        os.unlink(control_path)


def without_secrets(argv: c.Sequence[str]) -> list[str]:
    """The same command for people to read: a command in an option may be one that has a password among its arguments."""
    return [_COMMANDS.sub(r"\1...", word) for word in argv]


def control_path_option(path: str) -> str:
    return 'ControlPath="{}"'.format(path.replace("%", "%%"))


def _words(arguments: t.Any) -> list[str]:
    """Split arguments as Ansible does, without -C: given as a flag it would win over Compression=no."""
    words = shlex.split(str(arguments or ""))
    return [word for word in (w.replace("C", "") if _FLAGS.fullmatch(w) else w for w in words) if word != "-"]
