#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_audit
short_description: Compare what a node serves with what was verified on it
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Hashes every byte of what C(MODELS_DIR/NAME) opens and of the active release in the store, and compares both with the
    manifest that was recorded when the release was verified. Also looks at modes, owners and the receipt of the load test.
  - Changes nothing and does not need the training server. What differs is returned, the module does not fail for it.
extends_documentation_fragment:
  - lorafleet.delivery._adapters.node
  - lorafleet.delivery._adapters.permissions
  - lorafleet.delivery._attributes
attributes:
  check_mode:
    support: full
    details: The module only looks.
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
options:
  names:
    description: The adapters that this node is to serve.
    type: list
    elements: str
    required: true
seealso:
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Is what is served still what was verified?
  lorafleet.delivery.adapter_audit:
    names:
      - llama32_3b_grammar_lora
    models_dir: /home/models
    store: /home/.lorafleet
  register: audited

- name: Fail when it is not
  ansible.builtin.assert:
    that: audited.drift | length == 0
    fail_msg: "{{ audited.drift }}"
"""

RETURN = r"""
active:
  description: Names of the adapters that have an active release on this node.
  returned: success
  type: list
  elements: str
  sample:
    - llama32_3b_grammar_lora
adapters:
  description: What was found of each adapter.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The active release, V(none) when there is none.
      type: str
      sample: 5f1c0f1f0f0b
    previous:
      description: The release that a rollback goes to, V(none) when there is none.
      type: str
      sample: 0a9b5d7c6b1e
    receipt:
      description: What was verified of the active release on this node.
      type: dict
    drift:
      description: What differs, one line each.
      type: list
      elements: str
drift:
  description: The lines of all adapters, each beginning with the adapter's name.
  returned: success
  type: list
  elements: str
  sample:
    - "llama32_3b_grammar_lora: missing  /home/models/llama32_3b_grammar_lora/tokenizer.json"
problems:
  description: Why the audit could not be made.
  returned: failure
  type: list
  elements: dict
"""

import dataclasses
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import NODE, PERMISSIONS
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._live import ABSENT, LINK, look_at_live
from ansible_collections.lorafleet.delivery.plugins.module_utils._permissions import Permissions, permissions_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._receipt import read_receipt
from ansible_collections.lorafleet.delivery.plugins.module_utils._settle import settled
from ansible_collections.lorafleet.delivery.plugins.module_utils._state import read_state
from ansible_collections.lorafleet.delivery.plugins.module_utils._store import AdapterPaths


def audit(paths: AdapterPaths, permissions: Permissions) -> dict[str, t.Any]:
    """What is active of one adapter and in what it differs from what was verified. Reads only."""
    state = settled(paths, read_state(paths))
    found: dict[str, t.Any] = {"name": paths.name, "release": state.active, "previous": state.previous, "receipt": None}
    if state.active is None:
        return {**found, "drift": ["missing  no release of it is active on this node"]}
    drift = []
    found["receipt"] = read_receipt(paths, state.active)
    if found["receipt"] is None:
        drift.append(f"missing  {paths.receipt(state.active)}  nothing says that this release was tested here")
    try:
        live = look_at_live(paths)
        manifest = paths.read_manifest(state.active)
    except DeliveryError as exc:
        return {**found, "drift": [*drift, f"changed  {exc}"]}
    if manifest is None:
        drift.append(f"missing  {paths.manifest(state.active)}  what is served cannot be compared with anything")
        return {**found, "drift": drift}
    directories = [paths.release(state.active)]
    if live.kind == ABSENT:
        drift.append(f"missing  {paths.live}  nothing is served under this name")
    elif live.kind != LINK:
        directories.insert(0, paths.live)
    elif live.release != state.active:
        drift.append(f"changed  {paths.live}  leads to release {live.release} instead of {state.active}")
    for directory in directories:
        for difference in permissions.differences(directory, manifest):
            path = os.path.normpath(os.path.join(directory, difference.path))
            drift.append(dataclasses.replace(difference, path=path).line())
    return {**found, "drift": drift}


def main() -> None:
    module = AnsibleModule(
        argument_spec={**NODE, **PERMISSIONS, "names": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    try:
        permissions = permissions_of(module.params)
        adapters = [
            audit(AdapterPaths(module.params["models_dir"], module.params["store"], name), permissions)
            for name in module.params["names"]
        ]
    except DeliveryError as exc:
        module.fail_json(msg=str(exc), problems=exc.to_json())
    except OSError as exc:
        error = DeliveryError.of(str(exc.filename), f"cannot be read: {exc.strerror}.", "Run with become.")
        module.fail_json(msg=str(error), problems=error.to_json())
    module.exit_json(
        changed=False,
        adapters=adapters,
        active=[adapter["name"] for adapter in adapters if adapter["release"]],
        drift=[f"{adapter['name']}: {line}" for adapter in adapters for line in adapter["drift"]],
    )


if __name__ == "__main__":
    main()
