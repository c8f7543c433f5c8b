#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_serve_info
short_description: Report what the inference engines of a node really serve
version_added: 0.2.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Compares the lists of the engines that have a C(url) with the active releases of the node and
    with what M(lorafleet.delivery.adapter_serve) has recorded.
  - With O(probe=true), lets the engines answer the golden of each release, and compares answers
    from the prefix cache with answers without it.
  - Differences are returned; the module does not fail because of them.
extends_documentation_fragment:
  - lorafleet.delivery._options.node
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.bases
      - lorafleet.delivery.node
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
  engines:
    description:
      - The engines of the node, as in O(lorafleet.delivery.adapter_serve#module:engines). Those
        without a C(url) are left out.
    type: raw
  expected:
    description:
      - Names of all adapters that belong on this node. RV(engines[].strangers) has what an engine
        serves besides.
      - When not set, the adapters in O(names).
    type: list
    elements: str
  probe:
    description:
      - Whether the engines are asked for answers. Without them, a release is as proved as its
        record says.
    type: bool
    default: true
seealso:
  - module: lorafleet.delivery.adapter_serve
  - module: lorafleet.delivery.adapter_release_info
"""

EXAMPLES = r"""
- name: Find out what is served
  lorafleet.delivery.adapter_serve_info:
    models_dir: /home/models
    store: /home/.lorafleet
    names:
      - llama32_3b_grammar_lora
    engines:
      name: vllm
      url: http://127.0.0.1:8000
  register: serving
"""

RETURN = r"""
adapters:
  description: The adapters, one entry for each engine that has, or may have, their base.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    engine:
      description: The engine.
      type: str
      sample: vllm
    url:
      description: Its address.
      type: str
      sample: http://127.0.0.1:8000
    state:
      description:
        - V(served) - the active release is served and proved with its golden.
        - V(unproved) - it is served, but there is no such proof, or the engine demands another API
          key and tells nothing.
        - V(behind) - another release of the adapter is served.
        - V(foreign) - something else than a release of the adapter is served under its name.
        - V(not loaded) - the engine does not have it, or is not up.
        - V(gone) - the engine has it from a directory that does not exist. This is critical, because
          the engine fails when it reads that again.
        - V(wrong answers) - it is listed, but the answers are not its own. This is critical.
      type: str
      sample: served
    why:
      description: The reason as a sentence, empty for V(served).
      type: str
    active:
      description: The active release.
      type: str
      sample: 0a1b2c3d4e5f
    served:
      description: The release that the engine serves, as far as its list tells.
      type: str
      sample: 0a1b2c3d4e5f
    listed:
      description: The name that the engine has for it.
      type: str
      sample: llama32_3b_grammar_lora
    root:
      description: The directory in the engine's list.
      type: str
      sample: /home/.lorafleet/llama32_3b_grammar_lora/releases/0a1b2c3d4e5f
    figures:
      description: The figures of the proof. See RV(lorafleet.delivery.adapter_serve#module:adapters[].figures).
      type: dict
    proved:
      description: When M(lorafleet.delivery.adapter_serve) proved it.
      type: str
      sample: "2026-01-31T12:00:00+00:00"
engines:
  description: The engines.
  returned: success
  type: list
  elements: dict
  contains:
    engine:
      description: The engine.
      type: str
      sample: vllm
    url:
      description: Its address.
      type: str
      sample: http://127.0.0.1:8000
    version:
      description: Its version, V(none) if it does not tell.
      type: str
      sample: 0.32.0
    base:
      description: The name that it has for its base.
      type: str
      sample: base
    proves:
      description:
        - What its list proves - a V(name), the V(path) that was loaded, or the V(bytes) in memory.
          V(nothing) if it has no list.
      type: str
      sample: path
    problem:
      description: Why it does not answer, empty if it does.
      type: str
    strangers:
      description: What it serves besides, one sentence each.
      type: list
      elements: str
differences:
  description: What is served otherwise than it should be, one line each.
  returned: success
  type: list
  elements: str
critical:
  description: The adapters whose state is V(gone) or V(wrong answers).
  returned: success
  type: list
  elements: str
summary:
  description: The adapters by name, with a line for each engine.
  returned: success
  type: dict
  sample:
    llama32_3b_grammar_lora:
      - >-
        vllm at http://127.0.0.1:8000: served release 0a1b2c3d4e5f as llama32_3b_grammar_lora
problems:
  description: What went wrong, one entry for each problem.
  returned: failure
  type: list
  elements: dict
"""

from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import BASES, NODE
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.table import client_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.inspection import inspect
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.node import Node
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.node_engine import node_engines


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **NODE,
            **BASES,
            "names": {"type": "list", "elements": "str", "required": True},
            "engines": {"type": "raw"},
            "expected": {"type": "list", "elements": "str"},
            "probe": {"type": "bool", "default": True},
        },
    )
    params = module.params
    with module.failing_on_error():
        engines = node_engines(declared_engines(params["engines"], "engines"), params["store"], client_of)
        node = Node(params["models_dir"], params["store"], params["bases"])
        results = inspect(node, engines, params["names"], params["expected"] or params["names"], params["probe"])
    module.exit_json(changed=False, **results)


if __name__ == "__main__":
    main()
