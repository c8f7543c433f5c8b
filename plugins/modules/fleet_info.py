# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The module runs on the controller: its code is in plugins/action/fleet_info.py.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_info
short_description: Read the fleet from the inventory and check it
version_added: 0.2.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Reads from the inventory which nodes exist, which agents they serve and with which adapters, and
    which of them the tags and the limit of the run select.
  - Checks the inventory and fails with all mistakes at once. C(playbooks/check_inventory.yml), with
    which the other playbooks begin, uses it before the first contact with any host.
  - A variable that depends on facts or registered results is not checked; the module warns if it is
    C(agent_adapters). If it is wrong, the role fails later. The variable C(lorafleet_own_variables)
    lists variables of your own that look like misspelt variables of the roles.
  - Runs on the controller and contacts no host. The inventory is read once for each run.
extends_documentation_fragment:
  - lorafleet.delivery._attributes
attributes:
  action_group:
    support: none
    membership: []
  check_mode:
    support: full
    details: The module only reads.
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
options:
  hosts:
    description:
      - The hosts that the limit of the run includes. Default is every host.
    type: list
    elements: str
  runs_on:
    description:
      - The groups that the run works on. V(training) implies O(training). With V(both), the limit may
        select the training server alone.
    type: str
    choices: [agents, training, both]
    default: agents
  training:
    description:
      - Whether the run needs the training server.
    type: bool
    default: false
  tags:
    description:
      - Whether the tags of the run select adapters. If not, tags are an error.
    type: bool
    default: true
  other_tags:
    description:
      - Tags that belong to other parts of the playbook. The variables C(agent_other_tags) and
        C(training_other_tags) of the inventory and of the play are added.
    type: list
    elements: str
    default: []
  rollout:
    description:
      - Whether to plan in which waves the nodes are delivered, from the variables C(agent_serial) and
        C(agent_on_failure). The plan holds until the next task with this option.
    type: bool
    default: false
seealso:
  - module: lorafleet.delivery.adapter_selection_info
"""

EXAMPLES = r"""
- name: Check the inventory
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Check the inventory
      lorafleet.delivery.fleet_info:
        training: true
      register: fleet

    - name: Show the agents
      ansible.builtin.debug:
        var: fleet.agents
"""

RETURN = r"""
nodes:
  description: The hosts of the group C(agents), one entry each, including those outside the limit.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the node in the inventory.
      type: str
      sample: jw2-1
    address:
      description: Its address, C(ansible_host), or its name.
      type: str
      sample: 192.0.2.11
    groups:
      description: Its groups except C(all), C(agents) and C(ungrouped).
      type: list
      elements: str
      sample: [jw2]
    agents:
      description: The agents that it serves.
      type: list
      elements: str
      sample: [cleaner]
    purpose:
      description: The purposes of these agents, by agent.
      type: dict
      sample: {"cleaner": "Grammar/Noise"}
    notes:
      description: Notes about these agents, by agent.
      type: dict
      sample: {"cleaner": ["Retrained in May."]}
    training_host:
      description: The inventory name of its training server.
      type: str
      sample: sbs29
    models_dir:
      description: The directory in which it serves adapters.
      type: str
      sample: /home/models
    source_models_dir:
      description: The directory of its adapters on the training server.
      type: str
      sample: /home/models
    rows:
      description: >-
        Its rows of C(agent_adapters). Each has all keys of the row, its C(agent), and C(selected),
        whether the run works on it.
      type: list
      elements: dict
      sample: [{"agent": "cleaner", "name": "llama32_3b_grammar_lora", "variant": "3b", "selected": true}]
agents:
  description: The variants of each agent, by its name. These are the tags of the fleet.
  returned: success
  type: dict
  sample: {"cleaner": ["3b", "8b"]}
adapters:
  description: >-
    Every adapter that the tags select on any node, once, in the form of
    O(lorafleet.delivery.adapter_info#module:adapters). On a training server that is the
    C(agent_training_host) of some nodes, only the adapters of these.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "llama32_3b_grammar_lora", "variant": "3b", "base": "meta-llama/Llama-3.2-3B-Instruct"}]
prompts:
  description: The prompts of each adapter, by its name.
  returned: success
  type: dict
  sample: {"llama32_3b_grammar_lora": [{"user": "Correct the grammar: She go to school every day."}]}
training_server:
  description: The first host of the group C(training), its C(name) and C(address).
  returned: success
  type: dict
  sample: {"name": "sbs29", "address": "sbs29.example.org"}
training:
  description: The variable C(lorafleet_training), what the Markdown manifest says about the training.
  returned: success
  type: dict
  sample: {"framework": "PEFT 0.21"}
notes:
  description: The variable C(lorafleet_notes), notes of the Markdown manifest about the fleet.
  returned: success
  type: list
  elements: str
  sample: []
rollout:
  description: The plan of the delivery.
  returned: success and O(rollout)
  type: dict
  contains:
    waves:
      description: The nodes of each wave of each agent that is delivered, by agent.
      type: dict
      sample: {"cleaner": [["jw2-1"], ["jw2-2", "jw2-3"]]}
    turns:
      description: >-
        By node, when it is delivered, from 1. Later than its number of a wave only on nodes that serve
        several agents.
      type: dict
      sample: {"jw2-1": 1, "jw2-2": 2, "jw2-3": 2}
    back:
      description: The nodes that return to their previous releases if another node of their agent fails.
      type: list
      elements: str
      sample: []
    serving:
      description: The nodes that pass only once their engines serve the releases.
      type: list
      elements: str
      sample: [jw2-1, jw2-2, jw2-3]
problems:
  description: What is wrong. RV(ignore:msg) has the same as text.
  returned: failure
  type: list
  elements: dict
  contains:
    adapter:
      description: The adapter that the problem belongs to. Not set for problems of a host.
      type: str
    subject:
      description: What is wrong.
      type: str
    problem:
      description: What is wrong with it.
      type: str
    remedy:
      description: What to do about it.
      type: str
"""
