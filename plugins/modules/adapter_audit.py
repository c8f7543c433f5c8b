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
  action_group:
    membership:
      - lorafleet.delivery.node
      - lorafleet.delivery.permissions
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
  - module: lorafleet.delivery.adapter_status
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
    digest:
      description: The digest of its files, of which RV(adapters[].release) is the beginning.
      type: str
    size:
      description: Bytes of all its files.
      type: int
      sample: 97307528
    files:
      description: Its files as they were verified, with C(path), C(size) in bytes and C(sha256).
      type: list
      elements: dict
    previous:
      description: The release that a rollback goes to, V(none) when there is none.
      type: str
      sample: 0a9b5d7c6b1e
    since:
      description: When it was made active, V(none) when that is not known.
      type: str
      sample: "2026-01-31T12:00:00+00:00"
    activation:
      description: How C(MODELS_DIR/NAME) leads to the release, V(exchange) or V(symlink).
      type: str
      sample: exchange
    history:
      description: The releases in the store with the time at which each was last made active, the latest at the end.
      type: list
      elements: dict
      sample:
        - release: 0a9b5d7c6b1e
          at: "2026-01-24T12:00:00+00:00"
        - release: 5f1c0f1f0f0b
          at: "2026-01-31T12:00:00+00:00"
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

import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import NODE, PERMISSIONS
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.active import look_at_active
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import Permissions, permissions_of


def audit(paths: AdapterPaths, permissions: Permissions) -> dict[str, t.Any]:
    """What is active of one adapter and in what it differs from what was verified. Reads only."""
    found = look_at_active(paths)
    drift = [*found.wrong]
    if found.manifest is not None:
        for directory in found.directories:
            drift += [difference.line(directory) for difference in permissions.differences(directory, found.manifest)]
    return {"name": paths.name, **found.to_json(), "drift": drift}


def main() -> None:
    module = DeliveryModule(
        argument_spec={**NODE, **PERMISSIONS, "names": {"type": "list", "elements": "str", "required": True}},
    )
    try:
        permissions = permissions_of(module.params)
        adapters = [
            audit(AdapterPaths(module.params["models_dir"], module.params["store"], name), permissions)
            for name in module.params["names"]
        ]
    except DeliveryError as exc:
        module.fail(exc.problems)
    except OSError as exc:
        error = DeliveryError.of(str(exc.filename), f"cannot be read: {exc.strerror}.", "Run with become.")
        module.fail(error.problems)
    module.exit_json(
        changed=False,
        adapters=adapters,
        active=[adapter["name"] for adapter in adapters if adapter["release"]],
        drift=[f"{adapter['name']}: {line}" for adapter in adapters for line in adapter["drift"]],
    )


if __name__ == "__main__":
    main()
