# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""Which settings of the source's ssh server refuse the login of a direct transfer."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import ipaddress
import re
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._versions import numbers

from .._contact.forms import DictOf, Exact, Form, ListOf, Text

_NAME = Text(256)
_PATH = Text(4096)
ANSWERS: dict[str, Form] = {
    "settings": DictOf(ListOf(Text(1 << 14), 1000), limit=1000),
    "groups": ListOf(_NAME, 1000),
    "keys_file": _PATH,
    "key_files": ListOf(_PATH, 100),
    "loose": _PATH,
    "version": Exact(32, re.compile(r"(\d+\.\d+)?"), "a version"),
    "problem": Text(1 << 12),
}
# The first version of OpenSSH that knows the option with which the key expires.
_FIRST_WITH_EXPIRY = (7, 7)
_KEY_TYPE = "ssh-ed25519"


@dataclasses.dataclass(frozen=True)
class Login:
    """A login of ``user`` from ``address``, which is empty if it is not known."""

    user: str
    address: str


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A setting that refuses a login or its command, as sshd_config has it, and what to do."""

    setting: str
    remedy: str


def refusals(found: c.Mapping[str, t.Any], login: Login) -> list[Refusal]:
    """Return the settings that refuse the login of a node or the command of its key.

    ``found`` is what the program ``sshd_settings`` answers.
    """
    settings, user = found.get("settings", {}), login.user
    refused = []

    def value(name: str) -> str:
        return " ".join(settings.get(name.lower(), []))

    def refuse(setting: str, remedy: str) -> None:
        refused.append(Refusal(setting, remedy))

    version = found.get("version", "")
    if version and numbers(version) < _FIRST_WITH_EXPIRY:
        refuse(f"OpenSSH {version}, which has no expiry-time", "Update it to 7.7 or newer.")
    if value("PubkeyAuthentication") == "no":
        refuse("PubkeyAuthentication no", f"Permit it for user {user}.")
    methods = value("AuthenticationMethods").split()
    if methods and not {"any", "publickey"} & set(methods):
        refuse(f"AuthenticationMethods {' '.join(methods)}", f"Let a key alone suffice for user {user} from the nodes.")
    types = value("PubkeyAcceptedAlgorithms") or value("PubkeyAcceptedKeyTypes")
    if types and not any(_matches(_KEY_TYPE, pattern) for pattern in types.split(",")):
        refuse(f"PubkeyAcceptedAlgorithms without {_KEY_TYPE}", "Add it.")
    if user == "root" and value("PermitRootLogin") == "no":
        refuse("PermitRootLogin no", "Set it to prohibit-password or forced-commands-only, or log in as another user.")
    refused += _of_lists(settings, found.get("groups", []), login)
    if value("AuthorizedKeysFile") and found["keys_file"] not in found["key_files"]:
        refuse(
            f"AuthorizedKeysFile {value('AuthorizedKeysFile')}, which is not {found['keys_file']}",
            "Set transfer_direct_authorized_keys to a file that it names and that belongs to this user.",
        )
    elif value("StrictModes") == "yes" and found.get("loose"):
        refuse(
            f"StrictModes yes, but others may write to {found['loose']}",
            f"Let it belong to {user} or root, and nobody else write to it.",
        )
    for name in ("ForceCommand", "ChrootDirectory"):
        if value(name) not in ("", "none"):
            refuse(f"{name} {value(name)}", f"Exempt user {user} from it, for instance by a Match block for the nodes.")
    if value("MaxSessions") == "0":
        refuse("MaxSessions 0", "Set it to 1 or more.")
    return refused


def _of_lists(settings: c.Mapping[str, list[str]], groups: list[str], login: Login) -> list[Refusal]:
    """The lists of users and groups that do not permit the login."""

    def listed(name: str) -> bool:
        patterns = " ".join(settings.get(name.lower(), [])).split()
        if name.endswith("Users"):
            return any(_matches_user(login, pattern) for pattern in patterns)
        return any(_matches(group, pattern) for group in groups for pattern in patterns)

    refused = []
    for kind, who in (("Users", f"user {login.user}"), ("Groups", f"a group of user {login.user}")):
        where = f" from {login.address or 'the node'}"
        if listed(f"Deny{kind}"):
            refused.append(Refusal(f"Deny{kind} {_shown(settings, f'Deny{kind}')}", f"Remove {who}{where}."))
        if settings.get(f"allow{kind.lower()}") and not listed(f"Allow{kind}"):
            refused.append(Refusal(f"Allow{kind} {_shown(settings, f'Allow{kind}')}", f"Add {who}{where}."))
    return refused


def _shown(settings: c.Mapping[str, list[str]], name: str) -> str:
    return " ".join(settings[name.lower()])


def _matches_user(login: Login, pattern: str) -> bool:
    """Whether a pattern of AllowUsers or DenyUsers matches; an unknown address matches any."""
    user, at, host = pattern.rpartition("@")
    if not at:
        return _matches(login.user, pattern)
    return _matches(login.user, user) and (not login.address or _matches_address(login.address, host))


def _matches_address(address: str, pattern: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return _matches(address, pattern)


def _matches(text: str, pattern: str) -> bool:
    """Whether a pattern of sshd_config, with ``*`` and ``?``, matches."""
    return bool(re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text))
