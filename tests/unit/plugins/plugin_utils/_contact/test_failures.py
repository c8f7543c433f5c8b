# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Failures as ansible-core 2.18, 2.19 and 2.21 report them, recorded from real hosts.

tests/integration/test_contact.py makes some of them again.
"""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.failures import Account, Failure, explain

LOGIN = Account("jw2-1", "deploy")
SUDO = Account("jw2-1", "deploy", "root", "sudo")
DOAS = Account("jw2-1", "deploy", "root", "community.general.doas")
SU = Account("jw2-1", "deploy", "serving", "su")
BY_SUDO = "as user deploy becoming root by sudo, "
NO_JSON_218 = "MODULE FAILURE: No start of json char found\nSee stdout/stderr for the exact error"
NO_JSON = "Module result deserialization failed: No start of json char found"
CLOSED = "Shared connection to 127.0.0.1 closed.\r\n"
TEMPORARY = (
    "Failed to create temporary directory. In some cases, you may have been able to authenticate and did not have"
    " permissions on the target directory. Consider changing the remote tmp path in ansible.cfg to a path rooted in"
    ' "/tmp", for more error information use -vvv. Failed command was: ( umask 77 && mkdir -p "` echo {home}/.ansible/tmp `"'
    '&& mkdir "` echo {home}/.ansible/tmp/ansible-tmp-1 `" ), exited with result 1'
)
PERMISSIONS = (
    "Failed to set permissions on the temporary files Ansible needs to create when becoming an unprivileged user (rc: 1,"
    " err: chmod: invalid mode: 'A+user:serving:rx:allow'\nTry 'chmod --help' for more information.\n}}). For information on"
    " working around this, see https://docs.ansible.com/"
)


def printed(stderr: str = "", stdout: str = "", rc: int = 1, msg: str = NO_JSON) -> dict[str, t.Any]:
    """The result of a command that printed no JSON."""
    return {"failed": True, "changed": False, "module_stderr": stderr, "module_stdout": stdout, "msg": msg, "rc": rc}


# What Ansible returned, or the message that it raised; the account; cause; and part of the remedy.
FAILURES: dict[str, tuple[dict[str, t.Any] | str, Account, str, str]] = {
    "requiretty": (
        printed("sudo: sorry, you must have a tty to run sudo\n"),
        SUDO,
        BY_SUDO + 'sudo requires a terminal: "sudo: sorry, you must have a tty to run sudo".',
        'Add "Defaults:deploy !requiretty" with visudo there',
    ),
    "requiretty, 2.18": (
        printed("sudo: sorry, you must have a tty to run sudo\n", msg=NO_JSON_218),
        SUDO,
        BY_SUDO + "sudo requires a terminal: ",
        'Add "Defaults:deploy !requiretty"',
    ),
    "no password": (
        "Missing sudo password",
        SUDO,
        BY_SUDO + 'sudo requires a password, but none is set: "Missing sudo password".',
        "Set ansible_become_password for jw2-1, run with --ask-become-pass, or",
    ),
    "wrong password": (
        "Incorrect sudo password",
        SUDO,
        BY_SUDO + 'sudo rejected the password: "Incorrect sudo password".',
        "Correct ansible_become_password of jw2-1",
    ),
    "not in the sudoers file": (
        printed("deploy is not in the sudoers file.\n"),
        SUDO,
        BY_SUDO + "sudo has no rule for this user: ",
        'allow it there with visudo: "deploy ALL=(root) ALL".',
    ),
    "policy": (
        printed("Sorry, user deploy is not allowed to execute '/bin/sh -c echo' as root on jw2-1.\n"),
        SUDO,
        BY_SUDO
        + "sudo does not allow this user to run the command: \"Sorry, user deploy is not allowed to execute '/bin/sh -c echo'",
        "so a rule for single programs is not enough",
    ),
    "policy, with a password whose prompt swallowed the reason": (
        printed(),
        SUDO,
        BY_SUDO + "sudo refused the command and gave no reason.",
        "what it allows (sudo -l)",
    ),
    "unknown become user": (
        printed("sudo: unknown user nosuch\nsudo: error initializing audit plugin sudoers_audit\n"),
        SUDO,
        BY_SUDO + 'the become user root does not exist: "sudo: unknown user nosuch".',
        "Correct ansible_become_user of jw2-1",
    ),
    "no sudo": (
        printed("/bin/sh: 1: sudo: not found\n", rc=127),
        SUDO,
        BY_SUDO + 'sudo is not installed or not set up: "/bin/sh: 1: sudo: not found".',
        "set ansible_become_method of jw2-1 to one that it has.",
    ),
    "doas without rules, with a terminal": (
        printed(CLOSED, "doas: doas is not enabled, /etc/doas.conf: No such file or directory\r\n"),
        DOAS,
        'as user deploy becoming root by community.general.doas, community.general.doas is not installed or not set up: "doas: d',
        "Install it there",
    ),
    "doas without permission": (
        printed("doas: Operation not permitted\n"),
        DOAS,
        "as user deploy becoming root by community.general.doas, community.general.doas does not allow this user to run"
        " the command: ",
        "/bin/sh",
    ),
    "doas with a password": (
        printed("doas: a tty is required\n"),
        DOAS,
        "as user deploy becoming root by community.general.doas, community.general.doas asks for the password on a terminal: ",
        "Permit it without a password there",
    ),
    "su with a wrong password": (
        "Incorrect su password",
        SU,
        'as user deploy becoming serving by su, su rejected the password: "Incorrect su password".',
        "Correct ansible_become_password",
    ),
    "su without a password": (
        "Timeout (7s) waiting for privilege escalation prompt: ",
        SU,
        "as user deploy becoming serving by su, su requires a password, but none is set: ",
        "Set ansible_become_password",
    ),
    "becoming an unprivileged user": (
        PERMISSIONS,
        SU,
        "as user deploy becoming serving by su, Ansible cannot hand its temporary files to serving, who is not root: ",
        "set pipelining = True in ansible.cfg",
    ),
    "no Python": (
        printed("/bin/sh: 1: /nope/python3: not found\n", rc=127, msg="The module interpreter '/nope/python3' was not found."),
        LOGIN,
        'as user deploy, there is no Python at /nope/python3: "/bin/sh: 1: /nope/python3: not found".',
        "set ansible_python_interpreter of jw2-1",
    ),
    "no Python, with a terminal": (
        printed(CLOSED, "/bin/sh: 1: /nope/python3: not found\r\n", rc=127),
        LOGIN,
        "as user deploy, there is no Python at /nope/python3: ",
        "set ansible_python_interpreter of jw2-1",
    ),
    "no Python, with bash and sudo": (
        printed("/bin/bash: line 1: /usr/bin/python3.13: No such file or directory\n", rc=127),
        SUDO,
        BY_SUDO + "there is no Python at /usr/bin/python3.13: ",
        "set ansible_python_interpreter of jw2-1",
    ),
    "unreadable Python": (
        printed("/bin/sh: 1: /opt/venv/bin/python: Permission denied\n", rc=126),
        LOGIN,
        "as user deploy, this user may not execute /opt/venv/bin/python: ",
        "Let it read and execute that path",
    ),
    "Python 3.8": (
        {
            "failed": True,
            "msg": "Ansible requires Python 3.9 or newer on the target. Current version: 3.8.18 (default) [GCC 12.2.0]",
        },
        LOGIN,
        "as user deploy, Python 3.8.18 is too old for this ansible-core, which needs 3.9: ",
        "Set ansible_python_interpreter of jw2-1 to a newer Python.",
    ),
    "Python 3.6": (
        printed('  File "<stdin>", line 3\nSyntaxError: future feature annotations is not defined\n'),
        LOGIN,
        "as user deploy, Python is too old for this ansible-core: ",
        "Set ansible_python_interpreter of jw2-1 to a newer Python.",
    ),
    "nologin": (
        printed(stdout="This account is currently not available.\n"),
        LOGIN,
        'as user deploy, this account runs no commands: "This account is currently not available.".',
        "Connect as a user with a shell such as /bin/sh",
    ),
    "nologin without pipelining": (
        TEMPORARY.format(home="This account is currently not available.") + ", stdout output: This account is",
        LOGIN,
        "as user deploy, this account runs no commands: ",
        "Connect as a user with a shell such as /bin/sh",
    ),
    "expired password": (
        printed("WARNING: Your password has expired.\nPassword change required but no TTY available.\n"),
        LOGIN,
        'as user deploy, the password or the account has expired: "WARNING: Your password has expired.".',
        "Renew it there (passwd, chage)",
    ),
    "account for files only": (
        printed(stdout="This service allows sftp connections only.\n"),
        LOGIN,
        "as user deploy, this account runs no commands: ",
        "without a forced command",
    ),
    "key for rsync only": (
        printed("/usr/bin/rrsync error: SSH_ORIGINAL_COMMAND does not run rsync\n"),
        LOGIN,
        "as user deploy, this account runs no commands: ",
        "without a forced command",
    ),
    "account for files only without pipelining": (
        TEMPORARY.format(home="~"),
        LOGIN,
        "as user deploy, this account runs no commands: ",
        "without a forced command",
    ),
    "sudo in a container": (
        printed('sudo: The "no new privileges" flag is set, which prevents sudo from running as root.\n'),
        SUDO,
        BY_SUDO + "sudo cannot change users on this host: ",
        "Or connect as root.",
    ),
    "restricted shell": (
        printed("rbash: line 1: /bin/sh: restricted: cannot specify `/' in command names\n"),
        LOGIN,
        "as user deploy, this account runs no commands: ",
        "Connect as a user with a shell such as /bin/sh",
    ),
    "shell that ends at once": (
        printed(),
        LOGIN,
        "as user deploy, nothing was printed: Python does not work, or the login shell runs no commands.",
        "A login shell must be one such as /bin/sh",
    ),
    "shell that prints a brace": (
        printed(stdout='Welcome to gpu-07\n{\n\n{"ping": "pong"}\n', rc=0),
        LOGIN,
        'as user deploy, the login shell prints text between the results of modules: "Welcome to gpu-07',
        "Remove it from the start-up file of the login shell there (~/.bashrc",
    ),
    "home directory without write permission": (
        TEMPORARY.format(home="/home/deploy"),
        LOGIN,
        "as user deploy, this user cannot write Ansible's temporary files: \"Failed to create temporary directory.",
        "set ansible_remote_tmp for jw2-1",
    ),
    "full home directory": (
        "failed to transfer file to /home/ops/.ansible/tmp/x /home/deploy/.ansible/tmp/y/AnsiballZ_ping.py:\n\ndd: error writing"
        " '/home/deploy/.ansible/tmp/y/AnsiballZ_ping.py': No space left on device\n1+0 records in\n",
        LOGIN,
        "as user deploy, there is no space or inode left for Ansible's temporary files: \"dd: error writing '/home/deploy/",
        "Free some space there, or set ansible_remote_tmp for jw2-1",
    ),
    "full temporary directory": (
        printed("Traceback (most recent call last):\nOSError: [Errno 28] No space left on device: '/tmp/ansible_payload'\n"),
        LOGIN,
        "as user deploy, there is no space or inode left for Ansible's temporary files: ",
        "Free some space there",
    ),
}


@pytest.mark.parametrize("what", FAILURES)
def test_explain_failure_names_account_cause_and_remedy(what: str) -> None:
    reported, account, problem, remedy = FAILURES[what]
    failure = Failure(reported) if isinstance(reported, str) else Failure.of_result(reported)
    assert failure is not None
    found = explain(failure, account)
    assert found is not None
    assert found.subject == "jw2-1"
    assert found.problem.startswith(problem)
    assert remedy in found.remedy
    assert len(str(found)) < 700


@pytest.mark.parametrize(
    "result",
    [
        {"changed": False},
        {"failed": True, "msg": "keep: is 0.", "problems": [{"subject": "keep"}]},
        # Of the module's argument specification.
        {"failed": True, "msg": "missing required arguments: names"},
    ],
)
def test_failure_of_result_of_a_module_is_none(result: dict[str, t.Any]) -> None:
    assert Failure.of_result(result) is None


@pytest.mark.parametrize(
    ("failure", "account"),
    [
        (Failure("Failed to connect to the host via ssh: Connection refused"), LOGIN),
        (Failure(NO_JSON, "no result\n", 0), LOGIN),
        (Failure(NO_JSON, "Traceback (most recent call last):\nKeyError: 'names'\n", 1), LOGIN),
        (Failure(NO_JSON, 'File "/tmp/x.zip/plugins/modules/y.py"\nOSError: [Errno 28] No space left on device\n', 1), LOGIN),
        # Without become, the message is not about it.
        (Failure("Missing sudo password"), LOGIN),
    ],
)
def test_explain_unknown_cause_is_none(failure: Failure, account: Account) -> None:
    assert explain(failure, account) is None


def test_explain_shows_text_of_host_escaped_and_cut() -> None:
    found = explain(Failure(NO_JSON, "\x1b[31msudo: sorry, you must have a tty " + "x" * 1000, 1), SUDO)
    assert found is not None
    assert '"\\u001b[31msudo: sorry, you must have a tty xxx' in found.problem
    assert found.problem.endswith("xxx....")
    assert "\x1b" not in str(found)


@pytest.mark.parametrize("noise", ["x" * 1_000_000, "a/python/" * 100_000, "su " * 300_000])
def test_explain_finds_cause_after_much_output(noise: str) -> None:
    found = explain(Failure(NO_JSON, f"{noise}\nsudo: sorry, you must have a tty to run sudo\n", 1), SUDO)
    assert found is not None
    assert "sudo requires a terminal" in found.problem
    assert explain(Failure(NO_JSON, noise, 1), SUDO) is None


def test_account_without_user_is_default_of_ssh() -> None:
    assert str(Account("jw2-1")) == "ssh's default user"
