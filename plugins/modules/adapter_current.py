#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module adapter_current: options in, results out; the work is in module_utils/_current.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_current
short_description: Say whether a node serves already what is offered, as it was verified
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Asks in one go whether M(lorafleet.delivery.adapter_sync), M(lorafleet.delivery.adapter_load_test) and
    M(lorafleet.delivery.adapter_release) would find anything to do, so that they need not be run where they would not.
  - That is so when each adapter of O(manifests) is active, every byte of the release and of what C(MODELS_DIR/NAME) opens was
    hashed and is as the manifest says, modes and owners are as they are wanted, the receipt of the load test stands for these
    packages, this device, this base and this level, nothing is to be pruned and nothing is left of an earlier run.
  - Where anything speaks against it, that is said and does not fail. The modules named above then do what is to be done, or say
    why it cannot be. A release that has no receipt yet is not hashed for that.
extends_documentation_fragment:
  - lorafleet.delivery._adapters
  - lorafleet.delivery._adapters.node
  - lorafleet.delivery._adapters.permissions
  - lorafleet.delivery._adapters.tested
  - lorafleet.delivery._adapters.activation
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
  manifests:
    description:
      - Manifests of what is offered, as RV(lorafleet.delivery.adapter_info#module:manifests) gives them, one for each of
        O(adapters).
    type: list
    elements: str
    required: true
  device:
    description: Where the load test has to have been, as for O(lorafleet.delivery.adapter_load_test#module:device).
    type: str
    default: cuda
notes:
  - Another run may change the node at the same time. What is said is true of the moment at which it was looked at.
seealso:
  - module: lorafleet.delivery.adapter_audit
  - module: lorafleet.delivery.adapter_load_test
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Look whether anything is to be done on this node
  lorafleet.delivery.adapter_current:
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    manifests: "{{ described.manifests }}"
    models_dir: /home/models
    store: /home/.lorafleet
    python: /opt/lorafleet/bin/python
  register: looked

- name: Leave it alone then
  ansible.builtin.meta: end_role
  when: looked.current
"""

RETURN = r"""
current:
  description: Whether there is nothing to do.
  returned: always
  type: bool
  sample: true
against:
  description: What speaks against it, one line each. Empty where nothing does.
  returned: always
  type: list
  elements: str
  sample:
    - "adapter llama32_3b_grammar_lora: has no receipt of level model that stands here."
adapters:
  description:
    - What is active, one entry for each of O(adapters) with the keys of RV(lorafleet.delivery.adapter_release#module:adapters)
      and these. Empty unless RV(current).
  returned: always
  type: list
  elements: dict
  contains:
    required_level:
      description: The level that the receipt had to show.
      type: str
      sample: model
    from_receipt:
      description: Always true. The adapter was not loaded.
      type: bool
      sample: true
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import (
    ACTIVATION,
    DECLARED,
    LOADING,
    NODE,
    PERMISSIONS,
    TESTED,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._up_to_date import look_at_all


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DECLARED,
            **NODE,
            **PERMISSIONS,
            **TESTED,
            **ACTIVATION,
            "manifests": {"type": "list", "elements": "str", "required": True},
            "device": LOADING["device"],
        },
        supports_check_mode=True,
    )
    adapters: list[dict[str, t.Any]] = []
    against: list[str] = []
    try:
        adapters = look_at_all(module.params, module.warn)
    except DeliveryError as exc:
        against = [str(problem) for problem in exc.problems]
    module.exit_json(changed=False, current=not against, against=against, adapters=adapters)


if __name__ == "__main__":
    main()
