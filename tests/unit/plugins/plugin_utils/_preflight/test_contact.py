# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a preflight says of a connection, of becoming another user, and of a clock."""

from __future__ import annotations

import os
import typing as t

import pytest
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import become_loader, connection_loader
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import Check, Checklist
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.failures import Account, Failure
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._preflight.contact import (
    add_clock,
    add_lost,
    add_reached,
    add_refused,
)

UNREACHABLE = (
    'Data could not be sent to remote host "192.0.2.4". Make sure this host can be reached over ssh: ssh: connect to host'
    " 192.0.2.4 port 22: Connection refused\r\n"
)


def connection(kind: str = "ssh", become: dict[str, t.Any] | None = None, **variables: t.Any) -> t.Any:
    """Ansible's connection plugin with these variables, and its become plugin sudo if asked."""
    plugin = connection_loader.get(kind, PlayContext(), os.devnull)
    plugin.set_options(var_options=variables)
    if become is not None:
        sudo = become_loader.get("sudo")
        sudo.set_options(var_options=become)
        plugin.set_become_plugin(sudo)
    return plugin


def checks(add: t.Callable[..., None], *arguments: t.Any) -> dict[str, Check]:
    checklist = Checklist()
    add(checklist, *arguments)
    return {one.check: one for one in checklist.checks}


def test_add_reached_names_address_user_and_become() -> None:
    found = checks(add_reached, connection(ansible_host="192.0.2.4", ansible_user="deploy", become={}), "root")
    assert (found["connection"].state, found["connection"].found) == ("ok", "ssh to 192.0.2.4 as deploy")
    assert (found["become"].state, found["become"].found) == ("ok", "to root by sudo, modules run as root")


def test_add_reached_without_become_names_user_of_modules() -> None:
    found = checks(add_reached, connection("local"), "ci")
    assert (found["connection"].found, found["become"].found) == ("local", "not used, modules run as ci")


def test_add_lost_says_what_ssh_says_and_how_to_try_it() -> None:
    found = checks(add_lost, connection(ansible_host="192.0.2.4", ansible_user="deploy", ansible_port=2222), UNREACHABLE)
    lost = found["connection"]
    assert lost.state == "failed"
    expected = "ssh to 192.0.2.4 port 2222 as deploy: ssh: connect to host 192.0.2.4 port 22: Connection refused."
    assert lost.found == expected
    assert lost.remedy.endswith("until this works on the controller: ssh -p 2222 -l deploy 192.0.2.4 true.")


@pytest.mark.parametrize(
    ("become", "reason", "check"),
    [
        ({"ansible_become_user": "serving"}, "Missing sudo password", "become"),
        (None, "/bin/sh: 1: /usr/bin/python3: not found", "Ansible's Python"),
        ({}, "Ansible requires Python 3.9 or newer on the target.", "Ansible's Python"),
        ({}, "ansible-core requires a minimum of Python 3.9.", "Ansible's Python"),
        (None, "This account is currently not available.", "account"),
        ({}, "it broke", "become"),
    ],
)
def test_add_refused_blames_account_become_or_python(become: dict[str, t.Any] | None, reason: str, check: str) -> None:
    account = Account("jw2-1", "deploy") if become is None else Account("jw2-1", "deploy", "root", "sudo")
    found = checks(add_refused, connection(ansible_host="192.0.2.4", become=become), Failure(reason), account)
    assert found["connection"].state == "ok"
    assert found[check].state == "failed"
    assert reason.rstrip(".") in found[check].found
    assert found[check].remedy


@pytest.mark.parametrize(
    ("there", "state", "found"),
    [
        (95.0, "ok", "agrees with the controller's"),
        (41.0, "ok", "agrees with the controller's"),
        (170.0, "ok", "agrees with the controller's"),
        (40 - 3600, "warning", "61 min behind the controller's"),
        (110 + 86400 * 3, "warning", "3 days ahead of the controller's"),
        (110 + 3600 * 5, "warning", "5 h ahead of the controller's"),
    ],
)
def test_add_clock_allows_the_duration_of_the_call(there: float, state: str, found: str) -> None:
    [clock] = checks(add_clock, 100.0, there, 110.0).values()
    assert (clock.state, clock.found) == (state, found)
    assert bool(clock.remedy) == (state == "warning")
