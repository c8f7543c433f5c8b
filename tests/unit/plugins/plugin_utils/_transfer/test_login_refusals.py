# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which settings refuse a login. The preflight's tests ask a real sshd."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.login_refusals import Login, refusals

NODE = "192.0.2.7"
KEYS = "/home/lora/.ssh/authorized_keys"
# What sshd says of a login without anything special.
USUAL: dict[str, list[str]] = {
    "pubkeyauthentication": ["yes"],
    "pubkeyacceptedalgorithms": ["ssh-ed25519-cert-v01@openssh.com,ssh-ed25519,rsa-sha2-512"],
    "authenticationmethods": ["any"],
    "permitrootlogin": ["without-password"],
    "authorizedkeysfile": [".ssh/authorized_keys .ssh/authorized_keys2"],
    "strictmodes": ["yes"],
    "forcecommand": ["none"],
    "chrootdirectory": ["none"],
    "maxsessions": ["10"],
}


def refused(user: str = "lora", address: str = NODE, **changes: t.Any) -> list[str]:
    settings = {**USUAL, **{name: value for name, value in changes.items() if isinstance(value, list)}}
    answer = {
        "settings": settings,
        "groups": ["lora", "staff"],
        "keys_file": KEYS,
        "key_files": [KEYS],
        "loose": "",
        "version": "9.2",
        **{name: value for name, value in changes.items() if isinstance(value, str)},
    }
    found = refusals(answer, Login(user, address))
    assert all(one.remedy for one in found)
    return [one.setting for one in found]


def test_refusals_of_the_usual_settings_are_none() -> None:
    assert refused() == refused(user="root") == refused(version="") == []


@pytest.mark.parametrize(
    ("name", "value", "setting"),
    [
        ("pubkeyauthentication", ["no"], "PubkeyAuthentication no"),
        ("pubkeyacceptedalgorithms", ["rsa-sha2-512,ecdsa-sha2-nistp256"], "PubkeyAcceptedAlgorithms without ssh-ed25519"),
        ("authenticationmethods", ["publickey,password publickey,hostbased"], None),
        ("allowusers", ["admin", "lora@198.51.100.*"], "AllowUsers admin lora@198.51.100.*"),
        ("denyusers", ["l*@192.0.2.0/24"], "DenyUsers l*@192.0.2.0/24"),
        ("allowgroups", ["ssh-users"], "AllowGroups ssh-users"),
        ("denygroups", ["sta?f"], "DenyGroups sta?f"),
        ("forcecommand", ["internal-sftp"], "ForceCommand internal-sftp"),
        ("chrootdirectory", ["/srv/%u"], "ChrootDirectory /srv/%u"),
        ("maxsessions", ["0"], "MaxSessions 0"),
        ("version", "7.6", "OpenSSH 7.6, which has no expiry-time"),
        ("loose", "/home/lora", "StrictModes yes, but others may write to /home/lora"),
        ("keys_file", "/keys", "AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2, which is not /keys"),
    ],
)
def test_refusals_name_the_setting(name: str, value: t.Any, setting: str | None) -> None:
    assert refused(**{name: value}) == [setting or f"AuthenticationMethods {value[0]}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authenticationmethods", ["publickey,password publickey"]),
        ("pubkeyacceptedalgorithms", ["ssh-*"]),
        ("allowusers", ["admin", "lora@192.0.2.0/24"]),
        ("allowusers", ["l?ra"]),
        ("denyusers", ["root", "lora@198.51.100.7"]),
        ("allowgroups", ["wheel", "staff"]),
        ("denygroups", ["staffers"]),
        ("permitrootlogin", ["no"]),
        ("version", "7.7"),
        ("version", "10.0"),
    ],
)
def test_refusals_leave_out_what_lets_the_node_in(name: str, value: t.Any) -> None:
    assert refused(**{name: value}) == []


def test_refusals_of_root_are_those_of_its_login_too() -> None:
    assert refused(user="root", permitrootlogin=["no"]) == ["PermitRootLogin no"]
    assert refused(user="root", permitrootlogin=["forced-commands-only"]) == []


def test_refusals_of_an_unknown_address_are_those_of_all_addresses() -> None:
    assert refused(address="", allowusers=["lora@198.51.100.7"]) == []
    assert refused(address="", allowusers=["admin"]) == ["AllowUsers admin"]


def test_refusals_are_all_named_at_once() -> None:
    assert refused(pubkeyauthentication=["no"], maxsessions=["0"]) == ["PubkeyAuthentication no", "MaxSessions 0"]
