# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Checks the groups of an inventory that the playbooks run on."""

from __future__ import annotations

import collections.abc as c
import json
import typing as t

from ansible.module_utils.common.yaml import yaml_dump
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import first

from .near_names import edits

# Groups that exist in every inventory.
_ALWAYS = ("all", "ungrouped")

Groups = c.Mapping[str, c.Sequence[str]]


def check_agents(groups: Groups, variables: c.Mapping[str, c.Collection[str]]) -> list[Problem]:
    """Return what is wrong with group ``agents``.

    ``variables`` are the names of the variables that are set for each host.
    """
    if groups.get("agents"):
        return []
    subject, problem = "group agents", "has no hosts." if "agents" in groups else "does not exist."
    renamed = _near(groups, "agents")
    if renamed:
        return [Problem(subject, problem, f"Rename group {renamed} to agents.")]
    declaring = {host for host, names in variables.items() if {"agent_adapters", "agent_name"} & set(names)}
    below = _outermost({name: hosts for name, hosts in groups.items() if hosts and set(hosts) <= declaring})
    if below:
        form = _form("agents", {"children": {name: {} for name in below}})
        declare = f"{', '.join(below)} {'declares' if len(below) == 1 else 'declare'} adapters"
        return [Problem(subject, problem, f"Group {declare}. Put {'it' if len(below) == 1 else 'them'} below agents:\n{form}")]
    form = _form("agents", {"children": {"GROUP_OF_AN_AGENT": {"hosts": {"NODE": {}}}}})
    return [Problem(subject, problem, f"Name another inventory with -i, or add the group:\n{form}")]


def check_training(groups: Groups, variables: c.Mapping[str, c.Collection[str]]) -> list[Problem]:
    """Return what is wrong with group ``training``."""
    if groups.get("training"):
        return []
    subject, problem = "group training", "has no hosts." if "training" in groups else "does not exist."
    renamed = _near(groups, "training")
    if renamed:
        return [Problem(subject, problem, f"Rename group {renamed} to training.")]
    nodes = set(groups.get("agents", ()))
    declaring = [
        host for host, names in variables.items() if host not in nodes and any(name.startswith("training_") for name in names)
    ]
    form = _form("training", {"hosts": {host: {} for host in declaring or ["TRAINING_SERVER"]}})
    which = f"{first(declaring)}, which has variables training_...," if declaring else "the training server"
    return [Problem(subject, problem, f"Put {which} into a group training:\n{form}")]


def _near(groups: Groups, name: str) -> str | None:
    """A group with hosts whose name is like another one."""
    stem = name.removesuffix("s").removesuffix("ing")
    similar = [
        group
        for group, hosts in groups.items()
        if hosts and group not in (*_ALWAYS, "agents", "training")
        if edits(group.lower(), name) <= 2 or group.lower().removesuffix("s") in (stem, f"{stem}er")
    ]
    return similar[0] if similar else None


def _outermost(groups: Groups) -> list[str]:
    """The groups whose hosts are not all in another one. Of equal groups, the first."""
    members = {name: set(hosts) for name, hosts in groups.items() if name not in _ALWAYS}
    kept: list[str] = []
    for name, hosts in members.items():
        if not any(hosts < others for others in members.values()) and not any(hosts == members[other] for other in kept):
            kept.append(name)
    return kept


def _form(group: str, content: dict[str, t.Any]) -> str:
    # The names are of a type of Ansible's that YAML does not know.
    plain = json.loads(json.dumps({"all": {"children": {group: content}}}))
    text: str = yaml_dump(plain, default_flow_style=False, sort_keys=False)
    return text.replace(" {}\n", "\n").rstrip()
