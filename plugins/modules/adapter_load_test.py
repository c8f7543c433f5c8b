#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_load_test
short_description: Load LoRA adapters with PEFT on the device that serves them
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Loads staged or active releases with PEFT on this host's device and proves that the loaded parameters equal the file.
    PEFT itself accepts missing tensors, tensors that overwrite the base, NaN and untrained weights without an error.
  - One child process of the interpreter O(python) loads all adapters of a host, with a time limit, without access to the
    Hub, and without running code of the adapters. If that process crashes, the task fails.
  - Checks the packages and the base of this host before anything is loaded. Known incompatibilities with the versions of the
    training are errors, other differences are reported.
  - An adapter that passes gets a receipt in the store. The receipt is valid, and the adapter is not loaded again, as long as
    the release, the packages, the device and the base stay the same; at level V(golden) also the golden.
extends_documentation_fragment:
  - lorafleet.delivery._options.declared
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._options.node
  - lorafleet.delivery._options.permissions
  - lorafleet.delivery._options.device
  - lorafleet.delivery._options.loading
  - lorafleet.delivery._options.tested
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.bases
      - lorafleet.delivery.declared
      - lorafleet.delivery.device
      - lorafleet.delivery.loading
      - lorafleet.delivery.node
      - lorafleet.delivery.permissions
      - lorafleet.delivery.tested
  check_mode:
    support: full
    details: Level V(structure) of the releases on this host is checked. Nothing is loaded, and no receipt is written.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  manifests:
    description:
      - Manifests of the releases to test, as RV(lorafleet.delivery.adapter_info#module:manifests) returns them, one for each
        of O(adapters).
      - When not set, the active release of each adapter is tested.
    type: list
    elements: str
  timeout:
    description: Time limit of the child process for all adapters together, in seconds.
    type: int
    default: 900
  force:
    description: Also test adapters that have a valid receipt.
    type: bool
    default: false
  record:
    description: Write receipts. V(false) makes the module change nothing.
    type: bool
    default: true
notes:
  - A test compares the weights and the configuration with the manifest. M(lorafleet.delivery.adapter_sync) and
    M(lorafleet.delivery.adapter_release) compare all files, regardless of receipts.
seealso:
  - module: lorafleet.delivery.adapter_info
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Test the staged releases before they are activated
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

- name: Test the active releases again, beside the process that serves them
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
  description: The result of each adapter, in the order of O(adapters).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The tested release. Not set when none is active.
      type: str
      sample: 5f1c0f1f0f0b
    required_level:
      description: The level that the adapter has to reach.
      type: str
      sample: model
    level:
      description: The level that the adapter reached. Not set when it reached none, or was not tested in check mode.
      type: str
      sample: model
    device:
      description: The device that the adapter was loaded on. Not set at level V(structure).
      type: str
      sample: cuda:0
    device_name:
      description: The name of the device.
      type: str
      sample: NVIDIA H200
    capability:
      description: The compute capability of the device. Not set on a CPU.
      type: str
      sample: "9.0"
    dtype:
      description: The dtype of the base. From level V(model) on.
      type: str
      sample: bfloat16
    versions:
      description: Versions of the interpreter, its packages, CUDA and the driver, as far as installed.
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
      description: The highest GPU memory use of the test. Not set on a CPU.
      type: int
      sample: 6700000000
    effect:
      description: By how much the adapter changes the model's answer, relative to the norm of its logits. From level V(model) on.
      type: float
      sample: 0.151
    distances:
      description:
        - The distances of the answers from the golden, at level V(golden). C(on) and C(off) are the weighted mean differences of
          the log-probabilities with the adapter and without it, C(direction) and C(strength) compare the adapter's effect (1 is
          equal), C(top1) is the share of tokens with the same likeliest successor.
      type: dict
      sample: {"on": 0.0081, "off": 0.0362, "direction": 0.9999, "strength": 1.0012, "top1": 1.0}
    permitted:
      description:
        - The limits of RV(adapters[].distances), at level V(golden). C(on) and C(off) are maxima, C(direction) is a minimum, and
          C(strength) may differ from 1 by at most this.
      type: dict
      sample: {"on": 0.12, "off": 0.08, "direction": 0.98, "strength": 0.1}
    notes:
      description:
        - Differences from the training, missing data for a comparison, and other facts that are not errors. They are also
          shown as warnings.
      type: list
      elements: str
      sample:
        - The training had torch 2.12.0, this node has 2.13.0.
    limited_by:
      description: Why no higher level was tested. Not set when nothing limited the level.
      type: str
      sample: Its base has no path on this host.
    isolation:
      description:
        - What the load test was isolated by. V(user) is a throw-away user, the others are namespaces - V(network) without any
          interface but loopback, V(ipc), and V(pids) with its own C(/proc) and home directory. Not set when nothing was loaded.
      type: list
      elements: str
      sample: [user, network, ipc, pids]
    from_receipt:
      description: Whether a receipt was valid, so that the adapter was not loaded.
      type: bool
      sample: false
    checks:
      description: The passed checks, one sentence each.
      type: list
      elements: str
      sample:
        - 392 tensors are bit-equal to the file on cuda:0.
seconds:
  description: Duration of the child process in seconds, 0 when none was started.
  returned: always
  type: float
  sample: 14.2
problems:
  description: The problems of all adapters, one entry each.
  returned: failure
  type: list
  elements: dict
  sample:
    - adapter: llama32_3b_grammar_lora
      subject: adapter llama32_3b_grammar_lora
      problem: "failed the load test at level adapter on cuda: tensor x differs from the file after it was loaded on cuda:0."
      remedy: Try the versions of PEFT and transformers that the adapter was trained with.
"""

from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import (
    BASES,
    DECLARED,
    DEVICE,
    LOADING,
    NODE,
    PERMISSIONS,
    TESTED,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.options import LoadTestOptions
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.run import run_load_test
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **DECLARED,
            **BASES,
            **NODE,
            **PERMISSIONS,
            **DEVICE,
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
