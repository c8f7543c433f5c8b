#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_release_info
short_description: Report the active releases of a node and compare them with what was verified
version_added: 0.2.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Returns the active release of each adapter with its receipt and history.
  - Compares the served directory C(MODELS_DIR/NAME) and the active release in the store with the
    manifest that was recorded when the release was verified. Differences are returned; the module
    does not fail because of them.
  - If the node trusts signers (C(/etc/lorafleet/trust)), returns by whom the releases are signed. A
    release that the node would not roll back to is a difference, such as one whose signer's key is
    revoked now. In the last 14 days of a statement, RV(summary) says how to renew it, and so does a
    warning if O(content=true).
  - Judges the active releases for O(engines), from the manifest. If O(content=true), warns of those
    that an engine refuses or misreads.
  - Does not need the training server.
extends_documentation_fragment:
  - lorafleet.delivery._options.node
  - lorafleet.delivery._options.permissions
  - lorafleet.delivery._options.engines
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.bases
      - lorafleet.delivery.engines
      - lorafleet.delivery.node
      - lorafleet.delivery.permissions
  check_mode:
    support: full
    details: The module only reads.
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
options:
  names:
    description: Names of the adapters.
    type: list
    elements: str
    required: true
  content:
    description:
      - V(true) hashes every file of the adapters, and compares modes and owners with O(owner),
        O(group), O(file_mode) and O(directory_mode).
      - V(false) compares names and sizes of files and opens none of them. It takes no longer for
        large adapters, but does not detect a changed byte.
    type: bool
    default: true
  required_level:
    description:
      - The level of the load test that an active release must have passed on this node. A lower
        level is a difference.
    type: str
    choices: [structure, adapter, model, golden]
    default: structure
  expected:
    description:
      - Names of all adapters that belong on this node. RV(others) lists any others
        that the node has.
      - When not set, the adapters in O(names).
    type: list
    elements: str
seealso:
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Audit an adapter
  lorafleet.delivery.adapter_release_info:
    names:
      - llama32_3b_grammar_lora
    models_dir: /home/models
    store: /home/.lorafleet
  register: audit

- name: Fail if it differs from what was verified
  ansible.builtin.assert:
    that: audit.differences | length == 0
    fail_msg: "{{ audit.differences }}"

- name: Read the status of an adapter without hashing its files
  lorafleet.delivery.adapter_release_info:
    names:
      - llama32_3b_grammar_lora
    models_dir: /home/models
    store: /home/.lorafleet
    content: false
    required_level: model
  register: status

- name: Show the status
  ansible.builtin.debug:
    var: status.summary
"""

RETURN = r"""
adapters:
  description: The adapters, in the order of O(names).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The active release, V(none) if there is none.
      type: str
      sample: 5f1c0f1f0f0b
    digest:
      description: The digest of its files. RV(adapters[].release) is its beginning.
      type: str
    size:
      description: Size of all its files in bytes.
      type: int
      sample: 97307528
    files:
      description: Its files as they were verified, with C(path), C(size) in bytes and C(sha256).
      type: list
      elements: dict
    made_of:
      description:
        - What a folded adapter was made of, V(none) for an adapter as trained. See
          RV(lorafleet.delivery.adapter_info#module:manifests[].made_of).
      type: dict
    previous:
      description: The release that a rollback activates, V(none) if there is none.
      type: str
      sample: 0a9b5d7c6b1e
    since:
      description: When it was activated, V(none) if that is unknown.
      type: str
      sample: "2026-01-31T12:00:00+00:00"
    activation:
      description: How C(MODELS_DIR/NAME) leads to the release, V(exchange) or V(symlink).
      type: str
      sample: exchange
    history:
      description:
        - The releases in the store with the time when each was last activated, the latest at the
          end.
      type: list
      elements: dict
      sample:
        - release: 0a9b5d7c6b1e
          at: "2026-01-24T12:00:00+00:00"
        - release: 5f1c0f1f0f0b
          at: "2026-01-31T12:00:00+00:00"
    receipt:
      description: The load test that it passed on this node, V(none) if there is no receipt.
      type: dict
    signed:
      description:
        - By whom the release is signed. V(none) where the node trusts no signers.
      type: dict
      contains:
        signers:
          description: The signers, sorted. Empty for an unsigned release.
          type: list
          elements: str
        serial:
          description: The serial of the statement, V(none) for an unsigned release.
          type: int
        expires:
          description:
            - After this time, no node begins to serve the release. V(none) for an unsigned release.
          type: str
      sample:
        signers: [alice]
        serial: 7
        expires: "2026-08-29T12:00:00+00:00"
    engines:
      description: The verdict on each of O(engines), as RV(lorafleet.delivery.adapter_sync#module:adapters[].engines).
      type: list
      elements: dict
    differences:
      description:
        - What differs from the manifest, the permissions or O(required_level), one line each.
      type: list
      elements: str
      sample:
        - "missing  /home/models/llama32_3b_grammar_lora/tokenizer.json"
active:
  description: Names of the adapters that have an active release.
  returned: success
  type: list
  elements: str
  sample:
    - llama32_3b_grammar_lora
differences:
  description: The differences of all adapters, each after the adapter's name.
  returned: success
  type: list
  elements: str
  sample:
    - "llama32_3b_grammar_lora: missing  /home/models/llama32_3b_grammar_lora/tokenizer.json"
others:
  description: The first thousand adapters in the store or in the models directory that are not in O(expected).
  returned: success
  type: list
  elements: str
  sample: []
summary:
  description:
    - A few lines about each adapter in O(names), with the verdict on each of O(engines) and its
      differences, and about each in RV(others).
  returned: success
  type: dict
  sample:
    llama32_3b_grammar_lora:
      - release 5f1c0f1f0f0b active since 2026-01-31T12:00:00+00:00
      - level golden on cuda:0 NVIDIA H200 verified 2026-01-31T11:59:12+00:00
      - golden distance 0.008, permitted 0.120
      - previous release 0a9b5d7c6b1e
problems:
  description: Why the releases could not be read, one entry for each problem.
  returned: failure
  type: list
  elements: dict
  contains:
    adapter:
      description: The adapter that the problem belongs to, V(none) if it belongs to the host.
      type: str
    subject:
      description: The adapter, file or option.
      type: str
      sample: /home/.lorafleet
    problem:
      description: What is wrong with it.
      type: str
      sample: "cannot be read: Permission denied."
    remedy:
      description: What to do.
      type: str
      sample: Run with become.
"""

import datetime
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import BASES, ENGINES, NODE, PERMISSIONS
from ansible_collections.lorafleet.delivery.plugins.module_utils._levels import LEVELS
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._release_info import release_info
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.words import expiry_note
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import permissions_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import is_set_up


def _judge(module: DeliveryModule) -> t.Any:
    """Return a function that returns the verdicts on a release, None if no engine is known."""
    if not module.params["engines"]:
        return None
    # As in adapter_up_to_date_info.
    from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.judgement import Judge, config_of_base

    judge = Judge(module.params)

    def verdicts_on(manifest: Manifest) -> list[dict[str, t.Any]]:
        judgement = judge.judge(manifest, config_of_base(manifest, module.params["bases"]))
        # A status shows them in its summary.
        for warning in judgement.warnings() if module.params["content"] else ():
            module.warn(warning)
        return judgement.engines()

    return verdicts_on


def _inspect_signed() -> t.Any:
    """Return a function that returns by whom a release is signed, None if no signer is trusted."""
    if not is_set_up():
        return None
    # What verifies signatures takes milliseconds to load.
    from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.acceptance import Acceptance

    return Acceptance({}).inspect


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **NODE,
            **PERMISSIONS,
            **ENGINES,
            **BASES,
            "names": {"type": "list", "elements": "str", "required": True},
            "content": {"type": "bool", "default": True},
            "required_level": {"type": "str", "choices": list(LEVELS), "default": LEVELS[0]},
            "expected": {"type": "list", "elements": "str"},
        },
    )
    params = module.params
    with module.failing_on_error():
        results = release_info(
            params["models_dir"],
            params["store"],
            params["names"],
            params["expected"] or params["names"],
            params["required_level"],
            permissions_of(params) if params["content"] else None,
            _judge(module),
            _inspect_signed(),
        )
    # A status shows it in its summary.
    for adapter in results["adapters"] if params["content"] else ():
        note = expiry_note(adapter["signed"], datetime.datetime.now(tz=datetime.timezone.utc))
        if note:
            module.warn(f"adapter {adapter['name']}: {note}")
    module.exit_json(changed=False, **results)


if __name__ == "__main__":
    main()
