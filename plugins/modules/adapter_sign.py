# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The module runs on the controller: its code is in plugins/action/adapter_sign.py.

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_sign
short_description: Sign statements that releases are meant to be served
version_added: 0.3.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Makes a statement about each described release and signs it with C(ssh-keygen -Y sign). Nodes
    that trust signers accept no other releases.
  - The first statement about an adapter has the serial 1, each later one the next higher serial. A
    release that was signed before gets a new statement if another release was signed after it, if
    its manifest has changed, or if the statement has less than O(renew_days) left. Otherwise this
    signature is added to those of others.
  - A signature that the signers in O(trust) would not make valid is not written.
  - C(playbooks/sign.yml) describes the releases, shows what this module would sign, and asks.
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
    details: RV(summary) says what has changed since the release before.
  idempotent:
    support: partial
    details: Signs again if the public key of O(key) cannot be read.
options:
  manifests:
    description: Manifests from RV(lorafleet.delivery.adapter_info#module:manifests).
    type: list
    elements: str
    required: true
  signatures:
    description:
      - The directory for the statements and signatures, made for git. See
        O(lorafleet.delivery.adapter_release#module:signatures).
      - Beside each statement, C(NAME/DIGEST12.manifest) is the manifest that it is about.
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
      - The file of the private key to sign with, or the C(.pub) file of a key that ssh-agent has, or
        the certificate of one (C(-cert.pub)).
      - ssh-keygen cannot ask for a passphrase here. Add such a key to an agent first.
    type: str
    required: true
  openssf_key:
    description:
      - The file of a private EC key (P-256, P-384 or P-521) in PEM, without a passphrase. With it, a
        new statement comes with C(NAME/DIGEST12.openssf), a bundle that OpenSSF's C(model_signing
        verify key) accepts, and has its sha256. A statement without a bundle is renewed.
      - When empty, no bundle is made.
    type: str
    default: ""
  days:
    description: The days that a new statement is valid for.
    type: int
    default: 90
  renew_days:
    description: A statement with fewer days left is renewed.
    type: int
    default: 14
seealso:
  - module: lorafleet.delivery.adapter_info
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Sign the described releases
  lorafleet.delivery.adapter_sign:
    manifests: "{{ described.manifests }}"
    signatures: "{{ inventory_dir }}/signatures"
    trust: "{{ inventory_dir }}/trust"
    key: ~/.ssh/release.pub
"""

RETURN = r"""
adapters:
  description: The statements, in the order of O(manifests).
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
    action:
      description:
        - V(signed) is the first statement about a release, V(signed_again) a later one about an
          earlier release, V(renewed) a new one about the same release, V(added) one more signature,
          and V(unchanged) none.
      type: str
      sample: signed
    serial:
      description: The serial of the statement.
      type: int
      sample: 7
    expires:
      description: No node begins to serve the release after this time.
      type: str
      sample: "2026-08-29T12:00:00Z"
    path:
      description: The file of the statement.
      type: str
      sample: /srv/fleet/signatures/llama32_3b_grammar_lora/5f1c0f1f0f0b.json
    signer:
      description: The name of the signer, V(none) if nothing was signed.
      type: str
      sample: alice
summary:
  description: What is signed, and what has changed since the release before, for people.
  returned: success
  type: list
  elements: str
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
