#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_load_test
short_description: Load LoRA adapters with PEFT on the device that will serve them
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Loads staged or active releases with PEFT on this host's device and proves that what PEFT has then is what the file holds.
    PEFT itself accepts missing tensors, tensors that overwrite the base, NaN and untrained weights without an error.
  - All adapters of a host are loaded in one child process of the interpreter that serves them, with a time limit, with
    access to the Hub switched off, and without any code from the adapters. A crash of that process is a failure of the task, no
    more.
  - Looks at the packages and the base of this host before anything is loaded. What is known to go wrong between the versions of
    the training and those here is refused, other differences are reported.
  - What passed gets a receipt in the store. As long as the release, the packages, the device and the base stay the same,
    the receipt stands and the adapter is not loaded again. So must the golden, at level V(golden).
extends_documentation_fragment:
  - lorafleet.delivery._options.declared
  - lorafleet.delivery._options.node
  - lorafleet.delivery._options.permissions
  - lorafleet.delivery._options.loading
  - lorafleet.delivery._options.tested
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.declared
      - lorafleet.delivery.device
      - lorafleet.delivery.loading
      - lorafleet.delivery.node
      - lorafleet.delivery.permissions
      - lorafleet.delivery.tested
  check_mode:
    support: full
    details: The structure of a release that is there is judged, nothing is loaded and no receipt is written.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  manifests:
    description:
      - Manifests of the releases to test, as RV(lorafleet.delivery.adapter_info#module:manifests) gives them, one for each
        of O(adapters).
      - When not set, the active release of each adapter is tested.
    type: list
    elements: str
  timeout:
    description: Seconds that the child process may take for all adapters together.
    type: int
    default: 900
  force:
    description: Test again even where a receipt stands.
    type: bool
    default: false
  record:
    description: Write receipts. Without them the module changes nothing.
    type: bool
    default: true
notes:
  - Bytes of the weights and the configuration are compared with the manifest whenever a release is tested.
    To compare all files, whatever the receipts say, is the work of M(lorafleet.delivery.adapter_sync) and
    M(lorafleet.delivery.adapter_release).
seealso:
  - module: lorafleet.delivery.adapter_info
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Load what was staged, before it is activated
  lorafleet.delivery.adapter_load_test:
    adapters:
      - name: llama32_3b_grammar_lora
        base: meta-llama/Llama-3.2-3B-Instruct
        rank: 16
        alpha: 32
    bases:
      meta-llama/Llama-3.2-3B-Instruct:
        path: /data/base/Llama-3.2-3B-Instruct
    manifests: "{{ described.manifests }}"
    models_dir: /home/models
    store: /home/.lorafleet
    python: /opt/lorafleet/bin/python

- name: Load what is served once more, beside the process that serves it
  lorafleet.delivery.adapter_load_test:
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    models_dir: /home/models
    store: /home/.lorafleet
    python: /opt/lorafleet/bin/python
    level: adapter
    force: true
    record: false
"""

RETURN = r"""
adapters:
  description: How far each adapter came, in the order of O(adapters).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The release that was tested. Not set when none is active.
      type: str
      sample: 5f1c0f1f0f0b
    required_level:
      description: The level that it must reach.
      type: str
      sample: model
    level:
      description: The level that it reached. Not set when it reached none, or was not tested because of check mode.
      type: str
      sample: model
    device:
      description: The device that it was loaded on. Not set at level V(structure).
      type: str
      sample: cuda:0
    device_name:
      description: What that device is.
      type: str
      sample: NVIDIA H200
    capability:
      description: Its compute capability. Not set on a CPU.
      type: str
      sample: "9.0"
    dtype:
      description: What the base was computed with. From level V(model).
      type: str
      sample: bfloat16
    versions:
      description: Versions of the interpreter and its packages, of CUDA and of the driver, as far as they are there.
      type: dict
      sample:
        python: 3.12.3
        torch: 2.10.0
        peft: 0.21.2
        transformers: 5.23.0
        safetensors: 0.8.0
        cuda: "12.8"
        driver: "570.86"
    load_seconds:
      description: Seconds that PEFT took to load the adapter, without the base.
      type: float
      sample: 1.26
    peak_memory_bytes:
      description: The most memory of the GPU that the test had at once. Not set on a CPU.
      type: int
      sample: 6700000000
    effect:
      description: By how much the adapter changes the model's answer, relative to the norm of its logits. From level V(model).
      type: float
      sample: 0.151
    distances:
      description:
        - How far the answers are from the golden, from level V(golden). C(on) and C(off) are the weighted mean differences of the
          log-probabilities with the adapter and without, C(direction) and C(strength) compare the adapter's effect (1 is equal),
          C(top1) is the share of tokens whose likeliest successor is the same.
      type: dict
      sample: {"on": 0.0081, "off": 0.0362, "direction": 0.9999, "strength": 1.0012, "top1": 1.0}
    permitted:
      description:
        - What the golden permits of RV(adapters[].distances), from level V(golden). C(on) and C(off) at most, C(direction) at
          least, and a C(strength) that differs from 1 by at most this.
      type: dict
      sample: {"on": 0.12, "off": 0.08, "direction": 0.98, "strength": 0.1}
    notes:
      description:
        - What could not be compared, differs from the training, or should be known otherwise, without standing against the
          adapter. Warnings say the same.
      type: list
      elements: str
      sample:
        - The training had torch 2.12.0, this node has 2.13.0.
    limited_by:
      description: Why the test did not go to a higher level. Not set when there is none.
      type: str
      sample: Its base has no path on this host.
    from_receipt:
      description: Whether a receipt stood, so that the adapter was not loaded.
      type: bool
      sample: false
    checks:
      description: What was proved, one short sentence each.
      type: list
      elements: str
      sample:
        - PEFT loaded 392 tensors - none missing, none unexpected, all bit-equal to the file.
seconds:
  description: Seconds that the child process took. 0 when none was started.
  returned: always
  type: float
  sample: 14.2
problems:
  description: What is wrong, one entry for each thing, over all adapters.
  returned: failure
  type: list
  elements: dict
  sample:
    - subject: adapter llama32_3b_grammar_lora
      problem: "failed the load test at level adapter on cuda: tensor x differs from the file after it was loaded on cuda:0."
      remedy: Try with the versions of PEFT and transformers that it was trained with.
"""

from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import DECLARED, LOADING, NODE, PERMISSIONS, TESTED
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.options import LoadTestOptions
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.run import run_load_test
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **DECLARED,
            **NODE,
            **PERMISSIONS,
            **LOADING,
            **TESTED,
            "manifests": {"type": "list", "elements": "str"},
            "timeout": {"type": "int", "default": 900},
            "force": {"type": "bool", "default": False},
            "record": {"type": "bool", "default": True},
        },
    )
    with module.failing_on_error():
        options = LoadTestOptions.from_params(module.params)
        results, problems = run_load_test(options, module.tmpdir, module.check_mode, module.warn)
    if problems:
        module.fail(problems, **results)
    module.exit_json(**results)


if __name__ == "__main__":
    main()
