#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_info
short_description: Check whether a host is ready for a delivery
version_added: 0.2.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Checks a node or a training server for everything that a delivery needs of it. Does not stop at
    the first problem, and fails at the end if any check has failed.
  - On a training server, checks Python, rsync, the models directory, the bases and, with O(python),
    the interpreter of the training, and describes each adapter as M(lorafleet.delivery.adapter_info)
    does.
  - On a node, checks Python, rsync, flock, the models directory and the store, owner and modes,
    locks, the method of activation, the free space, the interpreter and the device of the load
    test, the bases, what the node's engines make of each adapter, and whether those that serve have
    room for all of them. Compares its packages and bases with those of the training.
  - Checks whether a node would accept the signatures of the releases, if it has
    C(/etc/lorafleet/trust) or O(signatures) is set.
  - Adds what only the controller knows - how the host is reached, as whom modules run there, and by
    how much its clock differs. An unreachable host counts as a failed check.
  - If several nodes of a play delegate the task to one training server with the same options, it
    runs there once, and all of them get its result.
  - Where O(transfer) permits direct transfers, has the node connect to O(source) as for one. For
    V(direct_ssh), a key is in O(transfer_direct_authorized_keys) while the node logs in. Where it
    permits a swarm, has the node connect to one of O(transfer_swarm_ports) of O(source).
  - Leaves nothing behind. On a node, tries locks, owner, modes and the exchange of directories in a
    temporary directory on the file system of O(store). Loads no adapter.
extends_documentation_fragment:
  - lorafleet.delivery._options.declared
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._options.source
  - lorafleet.delivery._options.node
  - lorafleet.delivery._options.permissions
  - lorafleet.delivery._options.target
  - lorafleet.delivery._options.transfer
  - lorafleet.delivery._options.device
  - lorafleet.delivery._options.loading
  - lorafleet.delivery._options.tested
  - lorafleet.delivery._options.signatures
  - lorafleet.delivery._options.engines
  - lorafleet.delivery._options.activation
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.activation
      - lorafleet.delivery.bases
      - lorafleet.delivery.declared
      - lorafleet.delivery.device
      - lorafleet.delivery.engines
      - lorafleet.delivery.loading
      - lorafleet.delivery.node
      - lorafleet.delivery.permissions
      - lorafleet.delivery.signatures
      - lorafleet.delivery.source
      - lorafleet.delivery.target
      - lorafleet.delivery.tested
      - lorafleet.delivery.transfer
  check_mode:
    support: full
    details: Tries nothing in the models directory and the store.
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
options:
  part:
    description:
      - The part that the host plays in a delivery. V(source) is a training server.
    type: str
    choices:
      - node
      - source
    required: true
  models_dir:
    description:
      - Absolute path of the directory with the adapters' directories, under their names.
  store:
    description:
      - Directory of releases, receipts and staged files. It must be on the file system of
        O(models_dir), and outside O(models_dir) unless that is a mount point.
      - Required if O(part=node).
    required: false
  python:
    description:
      - The interpreter with torch, transformers, peft and safetensors. On a node, the one that
        serves the adapters, which is required. On a training server, that of the training.
    required: false
  require_golden:
    description: Whether each adapter of a training server must have a golden of its release.
    type: bool
    default: false
  manifests:
    description:
      - On a node, the manifests of its adapters, as RV(manifests) of the training server.
    type: list
    elements: str
    default: []
  tokenizer_classes:
    description: On a node, RV(tokenizer_classes) of the training server.
    type: dict
    default: {}
  source_checks:
    description:
      - On a node, RV(checks) of the training server. Those that have failed there fail on the node
        too.
    type: list
    elements: dict
    default: []
  source:
    description:
      - On a node, the inventory name of its training server. With it, the action plugin lets the
        node connect to the training server by each way that O(transfer) permits, except a relay
        and a command, without transferring anything.
      - If the ssh server of the training server denies the login, O(transfer=direct_ssh) being
        permitted, its settings are read there, which takes root, and those that deny it are named.
    type: str
seealso:
  - module: lorafleet.delivery.adapter_info
  - module: lorafleet.delivery.adapter_sync
  - module: lorafleet.delivery.adapter_load_test
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Check the training server
  lorafleet.delivery.preflight_info:
    part: source
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    models_dir: /home/models
  delegate_to: sbs29
  register: source
  failed_when: false

- name: Check the node
  lorafleet.delivery.preflight_info:
    part: node
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    models_dir: /home/models
    store: /home/.lorafleet
    python: /opt/lorafleet/bin/python
    manifests: "{{ source.manifests | default([]) }}"
    source_directories: "{{ source.directories | default({}) }}"
    tokenizer_classes: "{{ source.tokenizer_classes | default({}) }}"
    source_checks: "{{ source.checks | default([]) }}"
    source: sbs29
    transfer: direct
    transfer_direct_ports: 8700-8709
"""

RETURN = r"""
checks:
  description: The checks, in the order in which they were made.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description:
        - What was checked, for example V(rsync), V(store), V(signatures) or V(device), and
          V(base NAME), V(adapter NAME) and V(engine NAME) for each base, adapter and engine,
          V(engine NAME at URL) for each engine that serves, and V(way swarm), V(way direct) or
          V(way direct_ssh) for each way in which the node connects to the training server.
        - A check that has several problems has an entry for each of them.
      type: str
      sample: store
    state:
      description:
        - V(ok). V(warning) if it does not prevent a delivery. V(failed) if a delivery would fail.
          V(unknown) if it was not made, because another check has failed, in check mode, or because
          nobody states what it needs.
      type: str
      sample: failed
    found:
      description: What was found.
      type: str
      sample: "/srv/.lorafleet: cannot be written by user 1000."
    remedy:
      description: What to do. Empty if there is nothing to do.
      type: str
      sample: Run with become, or give that user write permission.
manifests:
  description:
    - The manifests of the accepted adapters of a training server, as
      RV(lorafleet.delivery.adapter_info#module:manifests).
  returned: if O(part=source)
  type: list
  elements: str
directories:
  description:
    - Identifies the directory of each of these adapters, as
      RV(lorafleet.delivery.adapter_info#module:directories).
  returned: if O(part=source)
  type: dict
tokenizer_classes:
  description: The C(tokenizer_class) of tokenizer_config.json of each of these adapters, if it has one.
  returned: if O(part=source)
  type: dict
  sample:
    llama32_3b_grammar_lora: TokenizersBackend
download_bytes:
  description:
    - The bytes that a deploy would transfer to a node now. Not set if they are unknown.
  returned: if O(part=node)
  type: int
  sample: 435322985
problems:
  description: The failed checks, one entry each.
  returned: failure
  type: list
  elements: dict
  sample:
    - adapter:
      subject: store
      problem: "/srv/.lorafleet: cannot be written by user 1000."
      remedy: Run with become, or give that user write permission.
"""

import os
import pwd
import sys
import time
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import (
    ACTIVATION,
    BASES,
    DECLARED,
    DEVICE,
    ENGINES,
    LOADING,
    NODE,
    PERMISSIONS,
    SIGNATURES,
    SOURCE,
    TARGET,
    TESTED,
    TRANSFER,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.node import check_node
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.source import check_source


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **DECLARED,
            **BASES,
            **SOURCE,
            **NODE,
            **TARGET,
            **TRANSFER,
            **PERMISSIONS,
            **SIGNATURES,
            **DEVICE,
            **LOADING,
            **TESTED,
            **ENGINES,
            **ACTIVATION,
            "part": {"type": "str", "choices": ["node", "source"], "required": True},
            "store": {"type": "path"},
            "python": {"type": "path"},
            "require_golden": {"type": "bool", "default": False},
            "manifests": {"type": "list", "elements": "str", "default": []},
            "tokenizer_classes": {"type": "dict", "default": {}, "no_log": False},
            "source_checks": {"type": "list", "elements": "dict", "default": []},
            "source": {"type": "str"},
        },
        required_if=[("part", "node", ("store", "python"))],
    )
    # The action plugin reads these and removes them from the result.
    results: dict[str, t.Any] = {"time": time.time(), "user": _user(), "python": sys.executable}
    # Like a delivery, whatever the umask of this session.
    os.umask(0o077)
    try:
        if module.params["part"] == "node":
            node = check_node(module.params, module.tmpdir, probe=not module.check_mode)
            checklist = node.checklist
            results["download_bytes"] = node.download_bytes
        else:
            source = check_source(module.params, module.tmpdir)
            checklist = source.checklist
            results["manifests"] = [manifest.to_text() for manifest in source.manifests]
            results["tokenizer_classes"] = source.tokenizer_classes
            results["directories"] = source.directories
    except DeliveryError as exc:
        # Of a manifest in the options, not of the host.
        module.fail(exc.problems, checks=[], **results)
    results["checks"] = checklist.to_json()
    if checklist.failed():
        module.fail(checklist.problems(), **results)
    module.exit_json(changed=False, **results)


def _user() -> str:
    """Return the name of the user that modules run as, or its number if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


if __name__ == "__main__":
    main()
