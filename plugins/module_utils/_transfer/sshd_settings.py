# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""Reads the settings of the source's ssh server for a login from a node, at the source.

sshd evaluates them itself (``sshd -T``), with the files that it includes and the ``Match`` blocks
that apply. Only root can let it do so.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import shutil
import socket
import stat
import subprocess
import typing as t

from .channel import end_with_controller, tell

# The listening sshd among the processes above this one shows its arguments, also where it has
# changed its name.
_LISTENER = re.compile(r"(?:sshd: )?(/\S*sshd(?: .*?)?)(?: \[listener\].*)?")
# The options of sshd that change its settings. All of them have a value.
_OPTIONS = "fho"
# The settings that decide about the login and its command.
_READ = frozenset(
    (
        *("pubkeyauthentication", "authenticationmethods", "pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes"),
        *("permitrootlogin", "allowusers", "denyusers", "allowgroups", "denygroups", "authorizedkeysfile", "strictmodes"),
        *("forcecommand", "chrootdirectory", "maxsessions"),
    )
)
_ELSEWHERE = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/usr/lib/ssh"))
_TIMEOUT = 20


def main(job: dict[str, t.Any]) -> None:
    """Answer with what sshd makes of a login.

    ``job`` has the ``user`` that logs in, the ``node``'s address, the ``address`` and ``port`` that
    it uses, the path of the ``authorized_keys`` file and the seconds of ``lease``. The answer has
    the ``settings``, each a list of values, the ``groups`` of the user, the ``keys_file`` and those
    that sshd reads (``key_files``), all without links, the first of the directories above it that
    others may write to (``loose``), and the ``version``; or the ``problem``.
    """
    end_with_controller(job["lease"], lambda: None)
    if os.geteuid() != 0:
        tell(problem="only root can let sshd evaluate its settings")
        return
    try:
        account = pwd.getpwnam(job["user"])
        command = _running() or [shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{_ELSEWHERE}") or "sshd"]
        settings = _settings(command, job)
    except (KeyError, OSError, ValueError, subprocess.TimeoutExpired) as exc:
        tell(problem=f"sshd does not evaluate its settings: {exc}")
        return
    keys_file = os.path.join(account.pw_dir, re.sub("^~/", "", job["authorized_keys"]))
    read = [_expanded(path, account) for value in settings.get("authorizedkeysfile", []) for path in value.split()]
    tell(
        settings=settings,
        groups=_groups(account),
        keys_file=os.path.realpath(keys_file),
        key_files=[os.path.realpath(path) for path in read if path != "none"],
        loose=_loose(os.path.realpath(keys_file), account),
        version=_version(command[0]),
    )


def _running() -> list[str]:
    """The command of the sshd that this process was started by; empty if there is none."""
    pid = os.getpid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as stream:
                found = _LISTENER.fullmatch(" ".join(stream.read().split("\0")).strip())
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
                pid = int(stream.read().rpartition(")")[2].split()[1])
        except OSError:
            break
        if found:
            program, *words = shlex.split(found[1])
            return [program, *_without_others(words)]
    return []


def _without_others(words: list[str]) -> list[str]:
    """The words of an sshd command that change its settings."""
    kept = []
    for number, word in enumerate(words):
        if word[:1] == "-" and word[1:2] and word[1] in _OPTIONS:
            kept += [word] if len(word) > 2 else words[number : number + 2]
    return kept


def _settings(command: list[str], job: dict[str, t.Any]) -> dict[str, list[str]]:
    """The values of the settings for the login. Raises OSError or ValueError."""
    node = job["node"] or "UNKNOWN"
    local = socket.getaddrinfo(job["address"], job["port"])[0][4][0]
    login = f"user={job['user']},host={node},addr={node},laddr={local},lport={job['port']}"
    done = subprocess.run(
        [*command, "-T", "-C", login], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False
    )
    if done.returncode:
        raise ValueError(" ".join(done.stderr.decode(errors="replace").split())[-500:] or f"status {done.returncode}")
    settings: dict[str, list[str]] = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        name, _space, value = line.partition(" ")
        if name.lower() in _READ:
            settings.setdefault(name.lower(), []).append(value)
    return settings


def _version(program: str) -> str:
    # Older ones do not know the option, and say their version all the same.
    done = subprocess.run([program, "-V"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False)
    found = re.search(r"OpenSSH_(\d+\.\d+)", (done.stdout + done.stderr).decode(errors="replace"))
    return found[1] if found else ""


def _groups(account: pwd.struct_passwd) -> list[str]:
    names = []
    for number in os.getgrouplist(account.pw_name, account.pw_gid):
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return names


def _expanded(path: str, account: pwd.struct_passwd) -> str:
    """A path of AuthorizedKeysFile with the values of its placeholders."""
    values = {"%%": "%", "%h": account.pw_dir, "%u": account.pw_name, "%U": str(account.pw_uid)}
    return os.path.join(account.pw_dir, re.sub("%.", lambda found: values.get(found[0], found[0]), path))


def _loose(path: str, account: pwd.struct_passwd) -> str:
    """The first of a file and the directories above it that StrictModes refuses."""
    while True:
        try:
            status = os.stat(path)
        except OSError:
            return ""
        if status.st_uid not in (0, account.pw_uid) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return path
        if path in (account.pw_dir, "/"):
            return ""
        path = os.path.dirname(path)
