# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Why a module did not run on a host: account, cause and remedy, from what Ansible reports.

Such a failure is not the module's own, so it has no ``problems``. Ansible reports it in one of two
ways. If the command ended, what it printed is not a result, and Ansible returns it. If it did not
get that far, for instance because a password is missing, the connection raises an error with a
message of its own.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import cut, shown

# Also for what a login shell prints before the output of rsync.
CLEAN_SHELL = (
    "Remove it from the start-up file of the login shell there (~/.bashrc, /etc/bash.bashrc, /etc/profile.d, ~/.cshrc) or"
    " from sshd's ForceCommand, or print it in interactive shells only: case $- in *i*) ... ;; esac."
)
_OTHER_TEMPORARY = "set ansible_remote_tmp for {host} to a directory where it can write"
_PIPELINING = "set pipelining = True in ansible.cfg, with which Ansible needs no temporary files there"


@dataclasses.dataclass(frozen=True)
class Account:
    """Who runs the modules on a host. ``user`` is None if ssh chooses it.

    ``become_user`` and ``method`` are those of ``become``, empty without it.
    """

    host: str
    user: str | None = None
    become_user: str = ""
    method: str = ""

    def __str__(self) -> str:
        login = f"user {self.user}" if self.user else "ssh's default user"
        return f"{login} becoming {self.become_user} by {self.method}" if self.method else login


@dataclasses.dataclass(frozen=True)
class Failure:
    """``message`` is Ansible's. ``output`` is what the host printed, None if no command ended."""

    message: str
    output: str | None = None
    rc: int | None = None

    @classmethod
    def of_result(cls, result: t.Mapping[str, t.Any]) -> Failure | None:
        """The failure of a result that no module returned. None for a module's own result."""
        if not result.get("failed") or "problems" in result:
            return None
        message = str(result.get("msg", ""))
        if "module_stdout" not in result and "module_stderr" not in result:
            # Ansible's own code on the host, before the module's.
            return cls(message) if re.search(_TOO_OLD, message) else None
        output = f"{result.get('module_stderr', '')}\n{result.get('module_stdout', '')}"
        return cls(message, output, result.get("rc"))


@dataclasses.dataclass(frozen=True)
class _Cause:
    """``problem`` and ``remedy`` may contain fields of the account and named groups of ``sign``.

    ``become`` is whether it is a cause with become only. ``temporary`` is whether it concerns
    Ansible's temporary files: a module that had started reports the same of its own files.
    """

    sign: str
    problem: str
    remedy: str
    become: bool = False
    temporary: bool = False


_TOO_OLD = r"requires Python (?P<minimum>[\d.]+) or newer on the target\. Current version: (?P<version>[\d.]+)"
# Characters of a text that are searched at either end.
_LOOKED_AT = 10_000
# A frame of a traceback.
_STARTED = "/plugins/modules/"
_SUDO = 'allow it there with visudo: "{user} ALL=({become_user}) ALL"'
# The first one whose sign is found is the cause.
_CAUSES = (
    _Cause(
        r"^.*you must have a tty.*$",
        "sudo requires a terminal",
        'Add "Defaults:{user} !requiretty" with visudo there: modules and transfers have no terminal.',
        become=True,
    ),
    _Cause(
        r"^.*(?:a tty is required|must be run from a terminal).*$",
        "{method} asks for the password on a terminal",
        "Permit it without a password there (nopass in doas.conf), or set ansible_become_method of {host} to sudo.",
        become=True,
    ),
    _Cause(
        r"^.*(?:Incorrect \S+ password|Sorry, try again|incorrect password attempt|Authentication fail).*$",
        "{method} rejected the password",
        "Correct ansible_become_password of {host}, or the answer to --ask-become-pass.",
        become=True,
    ),
    _Cause(
        r"^.*(?:Missing \S+ password|a password is required|Authorization required|waiting for privilege escalation prompt).*$",
        "{method} requires a password, but none is set",
        "Set ansible_become_password for {host}, run with --ask-become-pass, or allow it without a password there (NOPASSWD"
        " in sudoers). sudo also asks where it allows other commands only.",
        become=True,
    ),
    _Cause(r"^.*is not in the sudoers file.*$", "sudo has no rule for this user", f"Use another user, or {_SUDO}.", become=True),
    _Cause(
        r"^.*(?:is not allowed to (?:execute|run)|doas: Operation not permitted).*$",
        "{method} does not allow this user to run the command",
        f"Modules and transfers are started with /bin/sh, so a rule for single programs is not enough: {_SUDO}.",
        become=True,
    ),
    _Cause(
        r"^.*(?:no new privileges|effective uid is not 0|have the setuid bit set).*$",
        "{method} cannot change users on this host",
        "Give its program the setuid bit; start a container without no_new_privileges. Or connect as {become_user}.",
        become=True,
    ),
    _Cause(
        r"^.*(?:unknown user|user \S+ does not exist).*$",
        "the become user {become_user} does not exist",
        "Correct ansible_become_user of {host}, or create that user there.",
        become=True,
    ),
    _Cause(
        r"^.*(?:doas is not enabled|(?<!\S)\S*\b(?:sudo|doas|su|dzdo|ksu|pbrun|pfexec)\b'?: (?:command )?not found).*$",
        "{method} is not installed or not set up",
        "Install it there, or set ansible_become_method of {host} to one that it has.",
        become=True,
    ),
    _Cause(
        r"^.*[Ff]ailed to set permissions on the temporary files.*$",
        "Ansible cannot hand its temporary files to {become_user}, who is not root",
        f"Either {_PIPELINING}, or install the package acl there, or become root.",
        become=True,
    ),
    _Cause(
        r"^.*(?<![\w./-])(?P<python>[\w./-]*python[\w.]*)'?(?:: | was )(?:command )?(?:not found|No such file).*$",
        "there is no Python at {python}",
        "Install Python there, or set ansible_python_interpreter of {host} to the one that it has.",
    ),
    _Cause(
        r"^.*(?<![\w./-])(?P<python>[\w./-]*python[\w.]*): Permission denied.*$",
        "this user may not execute {python}",
        "Let it read and execute that path, or set ansible_python_interpreter of {host} to another Python.",
    ),
    _Cause(
        f"^.*{_TOO_OLD}.*$",
        "Python {version} is too old for this ansible-core, which needs {minimum}",
        "Set ansible_python_interpreter of {host} to a newer Python.",
    ),
    _Cause(
        r"^.*(?:requires a minimum of Python|SyntaxError: (?:future feature annotations|invalid syntax)).*$",
        "Python is too old for this ansible-core",
        "Set ansible_python_interpreter of {host} to a newer Python.",
    ),
    _Cause(
        r"^.*(?:password (?:or the account )?has expired|account has expired|change your password immediately).*$",
        "the password or the account has expired",
        "Renew it there (passwd, chage), or connect as another user.",
    ),
    _Cause(
        r"^.*(?:account is currently not available|account has been disabled|restricted: cannot|rbash: "
        r"|allows sftp connections only|rrsync|Failed to create temporary directory.*` echo ~/).*$",
        "this account runs no commands",
        "Connect as a user with a shell such as /bin/sh or /bin/bash and without a forced command (chsh, authorized_keys,"
        " ForceCommand).",
    ),
    _Cause(
        r"^.*(?:No space left on device|Disk quota exceeded).*$",
        "there is no space or inode left for Ansible's temporary files",
        f"Free some space there, or {_OTHER_TEMPORARY}.",
        temporary=True,
    ),
    _Cause(
        r"^.*(?:Failed to create temporary directory|Read-only file system|No usable temporary directory).*$",
        "this user cannot write Ansible's temporary files",
        f"Let it write its home directory there, or {_OTHER_TEMPORARY}, or {_PIPELINING}.",
        temporary=True,
    ),
)


def explain(failure: Failure, account: Account) -> Problem | None:
    """Return account, cause and remedy of a failure. None if the cause is not known."""
    # What the host printed tells more than what Ansible makes of it.
    for text in map(_ends, filter(None, (failure.output, failure.message))):
        for cause in _CAUSES:
            if (cause.become and not account.method) or (cause.temporary and _STARTED in text):
                continue
            # Compiled when needed: almost all tasks succeed.
            if found := re.search(cause.sign, text, re.MULTILINE):
                words = {**dataclasses.asdict(account), "user": account.user or "USER", **found.groupdict()}
                words = {key: cut(str(word)) for key, word in words.items()}
                return _problem(account, cause.problem.format(**words), found[0], cause.remedy.format(**words))
    if failure.output is None:
        return None
    printed = _without_ssh(failure.output)
    if failure.rc == 0 and "{" in printed:
        # Text before a result is ignored unless it looks like one.
        return _problem(account, "the login shell prints text between the results of modules", printed, CLEAN_SHELL)
    if printed:
        return None
    if account.method:
        remedy = f"See the log of {account.method} there and what it allows (sudo -l): Ansible needs /bin/sh and Python."
        return _problem(account, f"{account.method} refused the command and gave no reason", "", remedy)
    remedy = "Try ansible_python_interpreter of {host} there. A login shell must be one such as /bin/sh or /bin/bash (chsh)."
    problem = "nothing was printed: Python does not work, or the login shell runs no commands"
    return _problem(account, problem, "", remedy.format(host=account.host))


def _problem(account: Account, cause: str, said: str, remedy: str) -> Problem:
    said = f": {shown(said.strip())}" if said.strip() else ""
    return Problem(account.host, f"as {account}, {cause}{said}.", remedy)


def _ends(text: str) -> str:
    """Both ends of a text of any length: a host decides how much it prints."""
    return text if len(text) <= 2 * _LOOKED_AT else f"{text[:_LOOKED_AT]}\n{text[-_LOOKED_AT:]}"


def _without_ssh(output: str) -> str:
    """What a host printed, without the line that ssh adds where Ansible requested a terminal."""
    return re.sub(r"^Shared connection to .* closed\.\r?$", "", output, flags=re.MULTILINE).strip()
