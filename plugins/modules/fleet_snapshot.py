#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The module runs on the controller: its code is in plugins/action/fleet_snapshot.py.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_snapshot
short_description: Sign which release of each adapter is the current one
version_added: 0.3.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Writes and signs a snapshot of the fleet, with the newest statement about each adapter in
    O(signatures) that enough signers have signed. Nodes with C(snapshot_hours) in their policy begin
    to serve what a snapshot names that is not older than that.
  - Its key may be online, for example in a daily CI job. It can make nodes refuse releases, but
    cannot have them serve what nobody else has signed.
  - Runs on the controller and contacts no host.
extends_documentation_fragment:
  - lorafleet.delivery._attributes
attributes:
  action_group:
    support: none
    membership: []
  check_mode:
    support: full
    details: Signs nothing and returns what would be signed.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Each snapshot has the time at which it was made.
options:
  signatures:
    description:
      - The directory with the statements. See O(lorafleet.delivery.adapter_sign#module:signatures).
      - The snapshot is written there as C(fleet.json), with its signature C(fleet.*.sig).
    type: str
    required: true
  trust:
    description:
      - The directory on the controller with the policy and the signers of the nodes, as
        C(playbooks/trust.yml) brings it to them.
    type: str
    required: true
  key:
    description:
      - The file of the private key to sign with, or the C(.pub) file of a key that ssh-agent has. See
        O(lorafleet.delivery.adapter_sign#module:key).
    type: str
    required: true
seealso:
  - module: lorafleet.delivery.adapter_sign
  - module: lorafleet.delivery.node_trust
"""

EXAMPLES = r"""
- name: Sign the snapshot of the fleet
  lorafleet.delivery.fleet_snapshot:
    signatures: "{{ inventory_dir }}/signatures"
    trust: "{{ inventory_dir }}/trust"
    key: ~/.ssh/snapshot
"""

RETURN = r"""
adapters:
  description: The current release of each adapter.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: ID of the release.
      type: str
      sample: 5f1c0f1f0f0b
    serial:
      description: The serial of its statement.
      type: int
      sample: 7
issued:
  description: The time of the snapshot.
  returned: success
  type: str
  sample: "2026-05-31T12:00:00Z"
signer:
  description: The name of the signer, V(none) in check mode.
  returned: success
  type: str
  sample: ci@lab
problems:
  description: What is wrong. RV(ignore:msg) has the same as text.
  returned: failure
  type: list
  elements: dict
  contains:
    adapter:
      description: The adapter that the problem belongs to.
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
