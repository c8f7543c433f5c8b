# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The ssh command line of a transfer, built from the options of Ansible's ssh connection plugin."""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import re
import shlex
import signal
import subprocess
import typing as t

# ssh uses the first value of an option, so the user's arguments cannot weaken these.
_FIRST = (
    "StrictHostKeyChecking=yes",
    "Compression=no",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    # Not Ansible's own connection: by default that is opened with -C and would compress the
    # weights. The first command opens this one, the others share it. It ends by itself if it is
    # never closed.
    "ControlMaster=auto",
    "ControlPersist=60",
)
# Without a password, no prompt is answered. A password is tried only once: a wrong one stays wrong,
# and each attempt counts towards locking the account.
_NO_PROMPT = ("BatchMode=yes",)
_PASSWORD = ("BatchMode=no", "NumberOfPasswordPrompts=1")
# For the same reason, the user's own value wins over these.
_LAST = ("Ciphers=^aes128-gcm@openssh.com",)

# Seconds for the process that holds a shared connection to tell which one it is.
_CHECK_TIMEOUT = 10

# Flags of ssh that take no value. One word can combine several of them.
_WITHOUT_VALUE = "46AaCfGgKkMNnqsTtVvXxYy"
_FLAGS = re.compile(f"-[{_WITHOUT_VALUE}]+")

# The flags and options whose values are displayed. Those of others can be commands, environments or
# addresses with a password.
_SHOWN_FLAGS = "bcFilmpS"
_SHOWN_OPTIONS = frozenset(
    (
        *("batchmode", "bindaddress", "ciphers", "compression", "connectionattempts", "connecttimeout"),
        *("controlmaster", "controlpath", "controlpersist", "globalknownhostsfile", "hostkeyalgorithms", "hostkeyalias"),
        *("identitiesonly", "identityfile", "kexalgorithms", "macs", "numberofpasswordprompts", "port"),
        *("preferredauthentications", "serveralivecountmax", "serveraliveinterval", "stricthostkeychecking", "user"),
        "userknownhostsfile",
    )
)
_SETTING = re.compile(r"(\s*(\w+)[\s=]+).*", re.DOTALL)

# The options of ansible.builtin.ssh that the command line depends on.
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
    """Return the argv that runs ``command`` on the host of an ssh connection.

    ``options`` are the values of the connection plugin's options named in ``OPTIONS``. Commands
    with the same ``control_path`` share one connection. Host keys are always checked. A password is
    no argument: ssh prompts for it, see ``askpass``.
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
    # The remote side is a shell: pass one string, quoted for it.
    return [*argv, "--", str(options["host"]), shlex.join(command)]


def close_connection(options: c.Mapping[str, t.Any], control_path: str) -> None:
    """Close the connection that the commands with this ``control_path`` share, if there is one.

    Its process is killed: ``-O exit`` would first wait for the host to read all data in transit,
    which may never happen. If the process does not answer, it is left alone.
    """
    check = [str(options["ssh_executable"]), "-F", "none", "-o", control_path_option(control_path)]
    check += ["-O", "check", "--", str(options["host"])]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            check,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CHECK_TIMEOUT,
            check=False,
        )
        if master := re.search(r"\(pid=(\d+)\)", done.stderr):
            os.kill(int(master[1]), signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.unlink(control_path)


def without_secrets(argv: c.Sequence[str]) -> list[str]:
    """An ssh command for display, without the values of options that may contain a secret."""
    program, *words = argv
    shown = [program]
    while words and words[0] != "--":
        word = words.pop(0)
        flags = re.match(f"-[{_WITHOUT_VALUE}]*", word)
        if flags is None:
            # No option of ssh, so a host.
            shown.append("...")
        elif flags.end() == len(word):
            shown.append(word)
        elif flags.end() + 1 < len(word):
            flag, value = word[flags.end()], word[flags.end() + 1 :]
            shown.append(f"{flags[0]}{flag}{_shown_value(flag, value)}")
        else:
            shown += [word, *(_shown_value(word[-1], value) for value in words[:1])]
            del words[:1]
    return [*shown, *words]


def _shown_value(flag: str, value: str) -> str:
    if flag == "o":
        setting = _SETTING.fullmatch(value)
        return value if setting and setting[2].lower() in _SHOWN_OPTIONS else f"{setting[1] if setting else ''}..."
    return value if flag in _SHOWN_FLAGS else "..."


def control_path_option(path: str) -> str:
    return 'ControlPath="{}"'.format(path.replace("%", "%%"))


def _words(arguments: t.Any) -> list[str]:
    """Split arguments as Ansible does, without ``-C``, which would win over ``Compression=no``."""
    words = shlex.split(str(arguments or ""))
    return [word for word in (w.replace("C", "") if _FLAGS.fullmatch(w) else w for w in words) if word != "-"]
