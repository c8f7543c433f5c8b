# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real users of this machine with passwords and sudo rules, who log in through a real sshd."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import typing as t

import pytest

from tests.support import sshd as sshd_server

SECRET = "operator's $ecret `word`"  # noqa: S105
OTHER_SECRET = "another $ecret"  # noqa: S105


@dataclasses.dataclass(frozen=True)
class Accounts:
    """``operator`` logs in with the server's key or the password SECRET.

    ``other`` is a second user with the password OTHER_SECRET. ``home`` is a directory of root that
    all users may enter.
    """

    home: pathlib.Path
    server: sshd_server.Server
    operator: str
    other: str

    def may(self, what: str, user: str = "") -> None:
        """Set the sudo rule of a user, the operator; ``what`` is its part after the user name."""
        rule = sudo_rule(user or self.operator)
        rule.write_text(f"{user or self.operator} ALL={what}\n", encoding="utf-8")
        rule.chmod(0o440)

    @contextlib.contextmanager
    def served(self, name: str, *settings: str) -> t.Iterator[sshd_server.Server]:
        """Start an sshd for the operator with these lines in sshd_config."""
        (self.home / name).mkdir()
        with sshd_server.running(self.home / name, *settings) as server:
            yield dataclasses.replace(server, user=self.operator)

    def directory(self, name: str, owner: str, mode: int = 0o755) -> pathlib.Path:
        path = self.home / name
        path.mkdir(mode=mode)
        account = pwd.getpwnam(owner)
        os.chown(path, account.pw_uid, account.pw_gid)
        return path


@contextlib.contextmanager
def made() -> t.Iterator[Accounts]:
    """Make the accounts for a test, which is skipped where that is not allowed."""
    if os.environ.get("LORAFLEET_TEST_SUDO") != "1":
        pytest.skip("makes users and a sudo rule on this machine: set LORAFLEET_TEST_SUDO=1 if it may")
    if os.geteuid() != 0 or not shutil.which("sudo") or not shutil.which("useradd"):
        pytest.skip("wants root, sudo and useradd")
    lacking = sshd_server.lacking()
    if lacking:
        pytest.skip(lacking)
    operator, other = f"lorafleet-{os.getpid()}", f"lorafleet-{os.getpid()}-b"
    with contextlib.ExitStack() as stack:
        # All users may enter it, unlike pytest's directory.
        home = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lorafleet-")))
        home.chmod(0o755)
        (home / "sshd").mkdir()
        for user in (operator, other):
            # Without PAM, a locked password bars logins by key too; "*" does not lock.
            subprocess.run(
                ["useradd", "--create-home", "--base-dir", home, "--password", "*", "--shell", "/bin/sh", user], check=True
            )
            stack.callback(subprocess.run, ["userdel", "--force", user], check=True, capture_output=True)
            (home / user).chmod(0o700)
            stack.callback(sudo_rule(user).unlink, missing_ok=True)
        passwords = f"{operator}:{SECRET}\n{other}:{OTHER_SECRET}\n"
        subprocess.run(["chpasswd"], input=passwords, text=True, check=True)
        server = stack.enter_context(sshd_server.running(home / "sshd"))
        yield Accounts(home, dataclasses.replace(server, user=operator), operator, other)


def sudo_rule(user: str) -> pathlib.Path:
    return pathlib.Path("/etc/sudoers.d") / user
