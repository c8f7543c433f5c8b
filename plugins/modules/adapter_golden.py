#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_golden
short_description: Record the answers of LoRA adapters on the training server
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Runs on the training server. Loads each adapter as M(lorafleet.delivery.adapter_load_test) does at level V(model), has it
    answer its prompts greedily, and records the log-probabilities of the likeliest tokens along these answers, with the
    adapter and without it. This is the adapter's golden.
  - Only this module uses the tokenizer and its chat template. A golden has token IDs, so nodes need neither.
  - A golden belongs to the digest of a release. It is stored in O(golden_dir) and not in the adapter's directory, so it
    changes no digest. M(lorafleet.delivery.adapter_info) puts it into the manifest.
  - A golden is kept as long as release, base, prompts, O(length) and O(dtype) stay the same. Goldens of earlier releases are
    kept for the case that such a release is delivered again.
extends_documentation_fragment:
  - lorafleet.delivery._options.declared
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._options.source
  - lorafleet.delivery._options.device
  - lorafleet.delivery._options.loading
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.bases
      - lorafleet.delivery.declared
      - lorafleet.delivery.device
      - lorafleet.delivery.loading
      - lorafleet.delivery.source
  check_mode:
    support: full
    details: Nothing is loaded, and nothing is written.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  prompts:
    description:
      - The prompts of each adapter, four or more of the kind that it was trained for.
      - A prompt is a text, which is used unchanged, or a dictionary with C(user) and optionally C(system), to which the chat
        template of the adapter's tokenizer is applied.
    type: dict
    required: true
  length:
    description: The maximum number of recorded tokens of each answer. A shorter answer is recorded to its end.
    type: int
    default: 16
  dtype:
    description:
      - The dtype in which the base is loaded. Record in that of the engine that serves the adapter, so that its answers can
        be held to a small difference.
      - When not set, it is V(bfloat16) on a GPU and V(float32) on a CPU, and an existing golden of any dtype is kept.
    type: str
    choices:
      - float32
      - bfloat16
      - float16
  python:
    description: The interpreter of the training environment. It must have torch, transformers, peft and safetensors.
    type: path
    required: true
  timeout:
    description: Time limit of the child process for all adapters together, in seconds.
    type: int
    default: 3600
  force:
    description: Record again even if the golden is current.
    type: bool
    default: false
seealso:
  - module: lorafleet.delivery.adapter_info
  - module: lorafleet.delivery.adapter_load_test
"""

EXAMPLES = r"""
- name: Record the golden of the cleaner on the training server
  lorafleet.delivery.adapter_golden:
    models_dir: /home/models
    adapters:
      - name: llama32_3b_grammar_lora
        base: meta-llama/Llama-3.2-3B-Instruct
        rank: 16
        alpha: 32
    bases:
      meta-llama/Llama-3.2-3B-Instruct:
        path: /data/base/Llama-3.2-3B-Instruct
    prompts:
      llama32_3b_grammar_lora:
        - user: "Correct the grammar: She go to school every day."
        - user: "Correct the grammar: He have two brother."
        - user: "Correct the grammar: I am agree with you."
        - user: "Correct the grammar: They was late for the meeting."
    python: /opt/training/bin/python
"""

RETURN = r"""
adapters:
  description: The golden of each adapter without a problem, in the order of O(adapters).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The release that the golden belongs to.
      type: str
      sample: 5f1c0f1f0f0b
    action:
      description: V(recorded) if it is new (in check mode, would be), V(kept) if it is current.
      type: str
      sample: recorded
    path:
      description: The file of the golden.
      type: str
      sample: /home/trainer/.local/share/lorafleet/goldens/llama32_3b_grammar_lora/5f1c0f1f0f0b.json
    positions:
      description: The number of tokens that nodes compare. Not set in check mode for a new golden.
      type: int
      sample: 64
    recorded:
      description: The conditions of the recording - C(at), C(device), C(device_name), C(dtype), C(attention), C(versions).
      type: dict
    noise:
      description: The distances of a second pass on the training server, by the name of the attention kernel that it used.
      type: dict
      sample:
        eager: {"on": 0.0081, "off": 0.0362, "direction": 0.9999, "strength": 1.0012, "top1": 1.0}
    permitted:
      description: The permitted distances of a node.
      type: dict
      sample: {"on": 0.12, "off": 0.08, "direction": 0.98, "strength": 0.1}
seconds:
  description: Duration of the child process in seconds, 0 when none was started.
  returned: always
  type: float
  sample: 64.2
problems:
  description: The problems of all adapters, one entry each.
  returned: failure
  type: list
  elements: dict
  sample:
    - adapter: llama32_3b_grammar_lora
      subject: adapter llama32_3b_grammar_lora
      problem: has no prompts; 4 or more are needed.
      remedy: Add prompts of the kind that it was trained for to prompts.
"""

import os

from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import BASES, DECLARED, DEVICE, LOADING, SOURCE
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.loading_user import LOADED_AS_ROOT
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.recording import RecordingOptions, record_goldens
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **DECLARED,
            **BASES,
            **SOURCE,
            **DEVICE,
            **LOADING,
            "prompts": {"type": "dict", "required": True},
            "length": {"type": "int", "default": 16},
            "dtype": {"type": "str", "choices": ["float32", "bfloat16", "float16"]},
            "python": {"type": "path", "required": True},
            "timeout": {"type": "int", "default": 3600},
            "force": {"type": "bool", "default": False},
        },
    )
    with module.failing_on_error():
        options = RecordingOptions.from_params(module.params)
    results, problems = record_goldens(options, module.tmpdir, module.check_mode)
    if results["seconds"] and os.geteuid() == 0:
        module.warn(LOADED_AS_ROOT)
    if problems:
        module.fail(problems, **results)
    module.exit_json(**results)


if __name__ == "__main__":
    main()
