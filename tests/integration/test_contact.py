# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules that cannot run: each host is named with its account, the cause and the remedy."""

from __future__ import annotations

import subprocess
import typing as t

import pytest

from tests.support.accounts import OTHER_SECRET, SECRET, Accounts
from tests.support.fleet import Fleet

BECOME = {"ansible_become": True}


@pytest.mark.parametrize("pipelining", ["True", "False"])
def test_contact_errors_name_account_cause_and_remedy(fleet: Fleet, accounts: Accounts, pipelining: str) -> None:
    """Each node is reached in another way that does not work."""
    operator, other = accounts.operator, accounts.other
    accounts.may("(root) ALL")
    accounts.may("(root) NOPASSWD: /usr/bin/rsync", other)
    bare = f"{operator}-c"
    subprocess.run(["useradd", "--no-create-home", "--password", "*", "--shell", "/usr/sbin/nologin", bare], check=True)
    try:
        root = f"user {operator} becoming root by sudo"
        ways: dict[str, tuple[dict[str, t.Any], str, str]] = {
            "no-password": (BECOME, f"{root}, sudo requires a password, but none is set", "Set ansible_become_password for"),
            "wrong-password": (
                {**BECOME, "ansible_become_password": OTHER_SECRET},
                f"{root}, sudo rejected the password",
                "Correct ansible_become_password of",
            ),
            "no-such-user": (
                {**BECOME, "ansible_become_password": SECRET, "ansible_become_user": "nobody-here"},
                f"user {operator} becoming nobody-here by sudo, the become user nobody-here does not exist",
                "Correct ansible_become_user of",
            ),
            "no-sudo": (
                {**BECOME, "ansible_become_exe": "/nowhere/sudo"},
                f"{root}, sudo is not installed or not set up",
                "set ansible_become_method of",
            ),
            "policy": (
                {**BECOME, "ansible_user": other, "ansible_become_password": OTHER_SECRET},
                f"user {other} becoming root by sudo, sudo ",
                "sudo",
            ),
            "no-python": (
                {"ansible_python_interpreter": "/nowhere/python3"},
                f"user {operator}, there is no Python at /nowhere/python3",
                "Install Python there",
            ),
            "no-shell": (
                {"ansible_user": bare},
                f"user {bare}, this account runs no commands",
                "Connect as a user with a shell",
            ),
        }
        if pipelining == "False":
            # Ansible first tries to give that user access to its temporary files.
            del ways["no-such-user"]
        fleet.groups["all"]["ansible_python_interpreter"] = "/usr/bin/python3"
        for node, (variables, _problem, _remedy) in ways.items():
            fleet.add_node("jw2", node, **{**accounts.server.variables(), **variables})
        done = fleet.run("status", "--limit", ",".join(ways), environment={"ANSIBLE_PIPELINING": pipelining})
    finally:
        subprocess.run(["userdel", "--force", bare], check=True)
    for node, (_variables, problem, remedy) in ways.items():
        [message] = done.failures(node)
        assert message.startswith(f"{node}: as {problem}"), message
        assert remedy in message
        assert "See stdout/stderr" not in message
        assert not done.unreachable(node)
    assert done.rc == 2
    assert SECRET not in done.output
    assert OTHER_SECRET not in done.output


def test_contact_error_of_delegated_task_names_training_server(fleet: Fleet) -> None:
    fleet.hosts["sbs29"]["ansible_python_interpreter"] = "/nowhere/python3"
    done = fleet.run("deploy", "--limit", "jw3")
    [message] = done.failures("jw3-1")
    assert message.startswith("sbs29: as user ")
    assert ", there is no Python at /nowhere/python3: " in message
    assert "set ansible_python_interpreter of sbs29" in message


def test_unreachable_host_stays_unreachable(fleet: Fleet) -> None:
    fleet.hosts["jw3-1"].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
    done = fleet.run("status", "--limit", "jw3")
    assert (done.rc, done.unreachable("jw3-1")) == (4, True)


def test_transfer_to_account_with_terminal_for_sudo_only_is_refused(fleet: Fleet, accounts: Accounts) -> None:
    """Without pipelining, Ansible has a terminal for modules. Transfers never do."""
    accounts.may(f"(ALL) NOPASSWD: ALL\nDefaults:{accounts.operator} requiretty")
    home = accounts.home
    (home / "node/models").mkdir(parents=True)
    fleet.hosts["jw2-1"].update(accounts.server.variables(), ansible_become=True)
    fleet.hosts["jw2-1"].update(agent_models_dir=str(home / "node/models"), agent_store=str(home / "node/.lorafleet"))
    for pipelining in ("True", "False"):
        done = fleet.run("deploy", "--limit", "jw2", environment={"ANSIBLE_PIPELINING": pipelining})
        [message] = done.failures("jw2-1")
        assert message.startswith(f"jw2-1: as user {accounts.operator} becoming root by sudo, sudo requires a terminal: ")
        assert f'Add "Defaults:{accounts.operator} !requiretty" with visudo there' in message
    assert not list((home / "node/models").iterdir())
