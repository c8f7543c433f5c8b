# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: golden_prompts
short_description: Collect the golden prompts of every adapter from its agents
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Reads C(agent_adapters) and C(agent_prompts) of the hosts. An agent's prompts apply to all of
    its adapters.
  - All hosts that serve an adapter must declare the same prompts for it.
options:
  _input:
    description: The hosts of all agents.
    type: list
    elements: str
    required: true
  hostvars:
    description: The magic variable C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
prompts: "{{ groups['agents'] | lorafleet.delivery.golden_prompts(hostvars) }}"
"""

RETURN = r"""
_value:
  description: A dictionary of the adapters that have prompts, from name to list of prompts.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError


def golden_prompts(hosts: list[str], hostvars: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[str, list[t.Any]]:
    found: dict[str, list[t.Any]] = {}
    for host in hosts:
        prompts = hostvars[host].get("agent_prompts")
        if not prompts:
            continue
        for row in hostvars[host]["agent_adapters"]:
            if found.setdefault(row["name"], prompts) != prompts:
                problem = f"adapter {row['name']}: {host} declares other prompts (agent_prompts) for it than another host."
                raise AnsibleFilterError(f"{problem} Declare them once, for the group of its agent.")
    return found


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"golden_prompts": golden_prompts}
