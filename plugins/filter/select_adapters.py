# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: select_adapters
short_description: Select the adapters of hosts by the tags of a run
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Tags are names of agents and of variants. Tags of one kind are alternatives, and the two kinds
    are combined. C(--tags cleaner,8b) selects only the cleaner's 8b, C(--tags 8b) that of every
    agent.
  - A tag that is neither an agent nor a variant of the inventory is an error, and so are tags that
    together select no adapter.
  - Reads C(agent_name) and C(agent_adapters) of the hosts.
options:
  _input:
    description: The hosts whose adapters to select.
    type: list
    elements: str
    required: true
  hostvars:
    description: The magic variable C(hostvars).
    type: dict
    required: true
  fleet:
    description: The hosts of all agents. They define the valid tags.
    type: list
    elements: str
    required: true
  run_tags:
    description: The magic variable C(ansible_run_tags).
    type: list
    elements: str
    required: true
  skip_tags:
    description: The magic variable C(ansible_skip_tags).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
selected: >-
  {{ [inventory_hostname] | lorafleet.delivery.select_adapters(
       hostvars, groups['agents'], ansible_run_tags, ansible_skip_tags) }}
"""

RETURN = r"""
_value:
  description: The selected rows of the hosts' C(agent_adapters), each once.
  type: list
  elements: dict
"""

import collections
import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.tags import select


def select_adapters(
    hosts: list[str],
    hostvars: t.Mapping[str, t.Mapping[str, t.Any]],
    fleet: list[str],
    run_tags: list[str],
    skip_tags: t.Sequence[str] = (),
) -> list[dict[str, t.Any]]:
    variants: dict[str, list[t.Any]] = collections.defaultdict(list)
    for node in fleet:
        variants[hostvars[node]["agent_name"]] += [row["variant"] for row in hostvars[node]["agent_adapters"]]
    selected: list[dict[str, t.Any]] = []
    try:
        for host in hosts:
            variables = hostvars[host]
            for row in select(variables["agent_adapters"], variables["agent_name"], variants, run_tags, skip_tags):
                if row not in selected:
                    selected.append(row)
    except DeliveryError as exc:
        raise AnsibleFilterError(str(exc)) from exc
    return selected


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"select_adapters": select_adapters}
