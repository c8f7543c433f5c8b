#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_up_to_date_info
short_description: Check whether a node already serves the described adapter releases
version_added: 0.2.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Checks in one task whether M(lorafleet.delivery.adapter_sync), M(lorafleet.delivery.adapter_load_test) and
    M(lorafleet.delivery.adapter_release) would find anything to do, so that a node that is up to date can skip them.
  - A node is up to date when each release of O(manifests) is active, every file of the release and of the served directory has
    the digest of the manifest, modes and owners are as requested, the receipt of the load test is valid for the installed
    packages, the device, the base and the level, no engine blocks an adapter, no release has to be pruned, and no earlier run
    left unfinished work. If the node trusts signers, it must have accepted the releases as they are signed now.
  - A node that is not up to date is not a failure. The module returns the reasons, and the modules named above then make the
    changes or fail. A release without a receipt is not hashed.
extends_documentation_fragment:
  - lorafleet.delivery._options.declared
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._options.node
  - lorafleet.delivery._options.permissions
  - lorafleet.delivery._options.target
  - lorafleet.delivery._options.tested
  - lorafleet.delivery._options.activation
  - lorafleet.delivery._options.device
  - lorafleet.delivery._options.signatures
  - lorafleet.delivery._options.engines
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.activation
      - lorafleet.delivery.bases
      - lorafleet.delivery.declared
      - lorafleet.delivery.device
      - lorafleet.delivery.engines
      - lorafleet.delivery.node
      - lorafleet.delivery.permissions
      - lorafleet.delivery.signatures
      - lorafleet.delivery.target
      - lorafleet.delivery.tested
  check_mode:
    support: full
    details: The module only reads.
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
options:
  manifests:
    description:
      - Manifests of the described releases, as RV(lorafleet.delivery.adapter_info#module:manifests) returns them, one for each
        of O(adapters).
    type: list
    elements: str
    required: true
notes:
  - Another run may change the node at the same time. The result describes the moment of the check.
seealso:
  - module: lorafleet.delivery.adapter_release_info
  - module: lorafleet.delivery.adapter_load_test
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Check whether the node is up to date
  lorafleet.delivery.adapter_up_to_date_info:
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    manifests: "{{ described.manifests }}"
    source_directories: "{{ described.directories }}"
    models_dir: /home/models
    store: /home/.lorafleet
    python: /opt/lorafleet/bin/python
  register: check

- name: Skip a node that is up to date
  ansible.builtin.meta: end_role
  when: check.up_to_date
"""

RETURN = r"""
up_to_date:
  description: Whether there is nothing to do.
  returned: always
  type: bool
  sample: true
reasons:
  description: Why the node is not up to date, one sentence each. Empty if it is.
  returned: always
  type: list
  elements: str
  sample:
    - "adapter llama32_3b_grammar_lora: no valid receipt for level model on this node."
adapters:
  description: The active releases, one entry for each of O(adapters). Empty unless RV(up_to_date).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The active release.
      type: str
      sample: 5f1c0f1f0f0b
    required_level:
      description: The level that the receipt had to reach.
      type: str
      sample: model
    digest:
      description: The digest of the release.
      type: str
      sample: 5f1c0f1f0f0b8ac1f2cf2ab3a1f6cf2e8f4eec2fd1f7b2f4f0b1c2d3e4f5a6b7
    size:
      description: Bytes of all files of the release.
      type: int
      sample: 97307544
    files:
      description: The files of the release.
      type: list
      elements: dict
      contains:
        path:
          description: Name of the file.
          type: str
          sample: adapter_model.safetensors
        size:
          description: Its size in bytes.
          type: int
          sample: 97307544
        sha256:
          description: Its SHA-256.
          type: str
          sample: 2a4e1f9c0b7d...
    made_of:
      description:
        - What a folded adapter was made of, V(none) for an adapter as trained. See
          RV(lorafleet.delivery.adapter_info#module:manifests[].made_of).
      type: dict
    previous:
      description: The release to which a rollback would return. Not set when there is none.
      type: str
      sample: 0a1b2c3d4e5f
    history:
      description: Activations of the kept releases, the latest last.
      type: list
      elements: dict
    activation:
      description: How the release was activated, V(exchange) or V(symlink).
      type: str
      sample: exchange
    path:
      description: The directory of the release in the store.
      type: str
      sample: /home/.lorafleet/llama32_3b_grammar_lora/releases/5f1c0f1f0f0b
    receipt:
      description: The load test that the release passed, with its time, level, device, versions and results.
      type: dict
    signed:
      description:
        - By whom the release is signed, as
          RV(lorafleet.delivery.adapter_release_info#module:adapters[].signed).
      type: dict
    engines:
      description: The verdict on each of O(engines), as RV(lorafleet.delivery.adapter_sync#module:adapters[].engines).
      type: list
      elements: dict
"""

import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import (
    ACTIVATION,
    BASES,
    DECLARED,
    DEVICE,
    ENGINES,
    NODE,
    PERMISSIONS,
    SIGNATURES,
    TARGET,
    TESTED,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import SHORT
from ansible_collections.lorafleet.delivery.plugins.module_utils._levels import LEVELS
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.options import LoadTestOptions
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import permissions_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import ActivationOptions
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.source import check_not_source
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import is_set_up
from ansible_collections.lorafleet.delivery.plugins.module_utils._up_to_date import check_up_to_date


def _judge(params: dict[str, t.Any]) -> t.Any:
    """Return the judge for the engines of this node, or None if they are not known."""
    if not params["engines"]:
        return None
    # The rules of all engines take milliseconds to load. Most nodes need none of them.
    from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.judgement import Judge

    return Judge(params)


def _add_signed(params: dict[str, t.Any], adapters: list[dict[str, t.Any]]) -> None:
    """Add to each adapter by whom its release is signed.

    Raises DeliveryError if this node has not accepted what is offered.
    """
    if not params["signed"] and not is_set_up():
        for adapter in adapters:
            adapter["signed"] = None
        return
    # What verifies signatures takes milliseconds to load.
    from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.acceptance import Acceptance, signed_entry
    from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.serials import read_record

    acceptance = Acceptance.of_options(params)
    problems = []
    for adapter in adapters:
        name, digest = adapter["name"], adapter["digest"]
        record = read_record(AdapterPaths(params["models_dir"], params["store"], name).accepted)
        adapter["signed"] = signed_entry(None if record is None else record.of(digest))
        if not acceptance.is_known(name, digest, record):
            subject = f"release {digest[:SHORT]}"
            problems.append(Problem(subject, "this node has not accepted it as it is signed now.", "", name))
    if problems:
        raise DeliveryError(*problems)


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **DECLARED,
            **BASES,
            **NODE,
            **PERMISSIONS,
            **TARGET,
            **TESTED,
            **ACTIVATION,
            **DEVICE,
            **ENGINES,
            **SIGNATURES,
            "manifests": {"type": "list", "elements": "str", "required": True},
        },
    )
    params = module.params
    adapters: list[dict[str, t.Any]] = []
    reasons: list[str] = []
    with module.failing_on_error():
        check_not_source(params["models_dir"], params["store"], params["source_directories"])
    try:
        options = LoadTestOptions.from_params(params)
        # The receipts are compared with the level of the load test: any level would do here.
        activation = ActivationOptions(LEVELS[0], params["activation"], params["keep"], permissions_of(params))
        found = check_up_to_date(options, activation, module.warn, _judge(params))
        _add_signed(params, found)
        adapters = found
    except DeliveryError as exc:
        reasons = [str(problem) for problem in exc.problems]
    module.exit_json(changed=False, up_to_date=not reasons, reasons=reasons, adapters=adapters)


if __name__ == "__main__":
    main()
