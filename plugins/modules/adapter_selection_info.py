# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The module runs on the controller: its code is in plugins/action/adapter_selection_info.py.

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_selection_info
short_description: Select the adapters of a node by the tags of the run
version_added: 0.2.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Selects the rows of O(adapters) that the tags of the run name by agent or variant. A row must
    match one of the agent tags and one of the variant tags, if there are any of that kind. C(--tags
    cleaner,8b) selects only the cleaner's 8b, C(--tags 8b) that of every agent.
  - A tag that names no agent and no variant is an error, and so are tags that together select no
    adapter of the fleet. O(other_tags) and the tags that the task inherits from its role and its
    play are exempt. Unknown tags to skip are not an error.
  - Runs on the controller and contacts no host. The variables of other nodes are read once for each run.
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
  agent:
    description: The agent of rows that name none.
    type: str
  adapters:
    description: The rows of the node, as in O(lorafleet.delivery.agent#role:main:agent_adapters).
    type: list
    elements: dict
    required: true
  form:
    description:
      - The form in which adapters are delivered whose rows have no C(form). See
        O(lorafleet.delivery.adapter_info#module:adapters[].form).
    type: str
    choices: [as_trained, folded, folded_same_dtype]
    default: as_trained
    version_added: 0.2.0
  other_tags:
    description:
      - Tags that belong to other parts of the playbook. In a run with only such tags, no adapter is
        selected.
    type: list
    elements: str
    default: []
  purpose:
    description:
      - The purpose of the agent, or a dictionary of purposes by agent. For reports only.
      - The default is the node's variable C(agent_purpose).
    type: raw
  notes:
    description:
      - Notes about the agent, or a dictionary of lists by agent. For reports only.
      - The default is the node's variable C(agent_notes).
    type: raw
  address:
    description:
      - The address of the node. For reports only.
      - The default is the node's variable C(ansible_host).
    type: str
  training:
    description: Whether the node needs its training server, so that O(training_host) must exist.
    type: bool
    default: false
  training_host:
    description: The inventory name of the training server.
    type: str
  models_dir:
    description:
      - The directory in which the node serves adapters. For reports only.
      - The default is the node's variable C(agent_models_dir).
    type: str
  source_models_dir:
    description:
      - The directory of the adapters on the training server, for RV(node).
      - The default is the node's variable C(agent_source_models_dir).
    type: str
  turn:
    description:
      - The turn of a rollout that the run has reached. On a node whose turn it is not, no adapter is
        selected. If an earlier wave of an agent of the node has not passed, the task fails.
        O(lorafleet.delivery.fleet_info#module:rollout) must have planned the rollout.
    type: int
    version_added: 0.2.0
  going_back:
    description:
      - Select the adapters that return to their previous releases now that the rollout has ended.
        Those are the ones that this run changed on nodes with C(agent_on_failure=back), of agents of
        which another node failed.
    type: bool
    default: false
    version_added: 0.2.0
seealso:
  - module: lorafleet.delivery.fleet_info
"""

EXAMPLES = r"""
- name: Select the adapters
  lorafleet.delivery.adapter_selection_info:
    agent: "{{ agent_name }}"
    adapters: "{{ agent_adapters }}"
  register: selection

- name: Skip nodes that are not selected
  ansible.builtin.meta: end_role
  when: selection.adapters | length == 0
"""

RETURN = r"""
adapters:
  description: >-
    The selected adapters, once by name, in the form of
    O(lorafleet.delivery.adapter_info#module:adapters).
  returned: success
  type: list
  elements: dict
  sample: [{"name": "llama32_3b_grammar_lora", "variant": "3b", "base": "meta-llama/Llama-3.2-3B-Instruct"}]
node:
  description: The node with all of its rows, in the form of RV(lorafleet.delivery.fleet_info#module:nodes).
  returned: success
  type: dict
  sample: {"name": "jw2-1", "agents": ["cleaner"]}
serves:
  description: Whether an engine in the node's variable C(agent_engine) has a C(url).
  returned: success
  type: bool
  sample: false
rollout:
  description: The part of the node in the rollout.
  returned: success and (O(turn) or O(going_back))
  type: dict
  contains:
    turn:
      description: The turn of the node, or null if it is not selected.
      type: int
    turns:
      description: The number of turns of the run.
      type: int
    waves:
      description: The number of its wave and that of all waves, by agent. Empty if all nodes are delivered at once.
      type: dict
    back:
      description: Whether any node of the run goes back if another one fails.
      type: bool
  sample: {"turn": 2, "turns": 2, "waves": {"cleaner": [2, 2]}, "back": false}
held_back:
  description: Set if the task failed because an earlier wave has not passed.
  returned: failure
  type: bool
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
