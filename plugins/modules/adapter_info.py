#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_info
short_description: Describe LoRA adapter directories as manifests
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Makes a manifest of each adapter directory that the inventory declares. It has the size and
    sha256 of each file, the dtype, shape and sha256 of each tensor, the parsed adapter_config.json,
    and the digest that names the release.
  - Rejects a directory that does not hold the declared adapter, is damaged, or is still being
    written. It also rejects what PEFT would accept silently - unexpected or missing tensors,
    tensors that overwrite the base, NaN, all-zero weights, another scaling or another base.
  - An adapter consists of adapter_config.json and the weights file, both required, and of the files
    of its tokenizer or processor where they exist. All other files are excluded.
  - If the directory has no adapter of PEFT, the problem names the tool that saved its files, or the
    subdirectories that have adapters.
  - Caches the hashes by inode, size, mtime and ctime of each file.
  - Folds adapters whose O(adapters[].form) says so, once for each release, and describes the folded
    adapter. In O(python), it loads the folded adapter and the original on their base in float32 on
    the CPU and compares the logits.
  - If several hosts of a play delegate the task to one host with the same options, it runs there
    once, and all of them get its result.
  - A manifest also carries data that is not part of the digest, as far as it is known on this host
    - the identity of the base in C(bases[].path), the library versions of the training, and the
    golden that M(lorafleet.delivery.adapter_golden) recorded for this release.
extends_documentation_fragment:
  - lorafleet.delivery._options.declared
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._options.source
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.bases
      - lorafleet.delivery.declared
      - lorafleet.delivery.source
  check_mode:
    support: full
    details:
      - The module only reads, and writes to O(cache_dir). In check mode it does not write there either,
        folds into a temporary directory and loads nothing.
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
options:
  require_golden:
    description:
      - Reject an adapter whose current release has no golden. When V(false), the module only warns
        about an adapter that has goldens of other releases.
    type: bool
    default: false
  suggest_rows:
    description:
      - Return RV(suggested_rows) for the adapters in O(models_dir) that are not in O(adapters).
      - If a row contradicts its adapter, RV(problems) shows the right one, whatever this option is.
    type: bool
    default: false
  python:
    description:
      - The interpreter of the training environment. When set, the versions of its torch,
        transformers, peft and safetensors are added to the manifests.
      - Required to fold an adapter. An adapter whose values are rounded is only folded if C(path) of
        its base is set, too, so that it can be compared with the original.
    type: path
  by_reference:
    description:
      - Return references in RV(manifests) instead of the texts, which are kept in files on the
        controller until the end of the run. A text can have hundreds of kilobytes, and Ansible keeps
        the results of all nodes in memory.
      - The other modules of this collection take references in place of the texts.
    type: bool
    default: false
    version_added: 0.2.0
seealso:
  - module: lorafleet.delivery.adapter_golden
  - module: lorafleet.delivery.adapter_sync
"""

EXAMPLES = r"""
- name: Describe an adapter on the training server
  lorafleet.delivery.adapter_info:
    models_dir: /home/models
    adapters:
      - name: llama32_3b_grammar_lora
        base: meta-llama/Llama-3.2-3B-Instruct
        rank: 16
        alpha: 32
    bases:
      meta-llama/Llama-3.2-3B-Instruct:
        path: /data/base/Llama-3.2-3B-Instruct
  delegate_to: sbs29
  register: described

- name: Show its digest
  ansible.builtin.debug:
    msg: "{{ (described.manifests[0] | ansible.builtin.from_json).digest }}"
"""

RETURN = r"""
manifests:
  description:
    - The manifests of the accepted adapters as JSON text, in the order of O(adapters).
    - With O(by_reference), references to them.
    - Pass them on unchanged. P(ansible.builtin.from_json#filter) parses one; its keys are the
      following.
  returned: always
  type: list
  elements: str
  contains:
    schema:
      description: Version of this form.
      type: int
      sample: 1
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    digest:
      description:
        - The sha256 over the paths, sizes and sha256s of its files. Its first 12 digits name the
          release.
      type: str
      sample: 5f1c0f1f0f0b7e3b2f9d1f6f0c3a55ef1d6e1b0e7a4c8b4b6f1f7c2d3e4f5a6b
    size:
      description: Size of all files in bytes.
      type: int
      sample: 114312871
    files:
      description: Files with C(path), C(size) in bytes and C(sha256).
      type: list
      elements: dict
      sample:
        - path: adapter_config.json
          size: 1175
          sha256: 0a9b5d7c6b1e0f3a2d4c5b6a79880f1e2d3c4b5a69788796a5b4c3d2e1f00112
    tensors:
      description:
        - Tensors with C(name), C(dtype), C(shape) and C(sha256) of their bytes. Empty for a pickle.
        - C(norm) is the Euclidean norm of a tensor's values, estimated to about one percent from
          some thousand of them.
      type: list
      elements: dict
    config:
      description: The parsed adapter_config.json.
      type: dict
    versions:
      description: The library versions of the training, as far as they are known.
      type: dict
      sample:
        peft: 0.21.2
    base:
      description:
        - Identity of the base on the training server, with C(config) (its config.json), C(weights)
          (sha256 over a sample of every tensor), C(tensors) (their number) and C(vocabulary)
          (sha256 of its tokenizer's vocabulary).
        - Not set if the base has no path on the training server and there is no golden.
      type: dict
    golden:
      description: The recorded answers of the adapter. Not set if none were recorded.
      type: dict
    made_of:
      description:
        - Of a folded adapter, what it was made of. C(digest) is the digest of the adapter as trained,
          C(form) is its form, C(factors) are the different factors of its modules and C(rounded) is
          the number of values that were rounded. C(difference) is the largest difference of its
          logits from those of the original, V(none) if they were not compared.
        - Not set for an adapter as trained.
      type: dict
      sample:
        digest: 1c9d0f5b7a3e2c4d6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6
        form: folded
        factors: [8.0]
        rounded: 0
        difference: 0.0
goldens:
  description:
    - V(recorded), V(none), or V(stale) if all goldens belong to other releases, for each adapter.
  returned: always
  type: dict
  sample:
    llama32_3b_grammar_lora: recorded
excluded:
  description:
    - The files and directories in each adapter's directory that are not delivered, as a list of
      C(path) and C(reason) for each adapter.
    - The module warns about those that no known tool leaves there.
  returned: always
  type: dict
  sample:
    llama32_3b_grammar_lora:
      - path: README.md
        reason: documentation
      - path: optimizer.pt
        reason: state or log of the training
directories:
  description:
    - Identifies each adapter's directory, for O(lorafleet.delivery.adapter_sync#module:source_directories).
    - It has the resolved C(path), C(machine) (the running kernel), C(inodes) (device and inode of
      the directory and of each one above it), C(mark) (inode and ctime of its adapter_config.json),
      C(shareable) (whether the file system can be mounted on several machines) and C(links) (the
      files that links in the directory lead to, by their names). That of a folded adapter also has
      C(original), the same about the directory of the adapter as trained.
  returned: always
  type: dict
notes:
  description:
    - What is unusual about each adapter but accepted, such as settings that only the training uses.
  returned: always
  type: dict
  sample:
    llama32_3b_grammar_lora:
      - task_type in adapter_config.json is null. PEFT loads the adapter all the same.
cached:
  description:
    - Names of the adapters whose hashes were taken from the cache, because no file had changed.
  returned: always
  type: list
  elements: str
folded:
  description: Names of the adapters that were folded by this call, because no earlier one had done it.
  returned: always
  type: list
  elements: str
suggested_rows:
  description:
    - For each undeclared adapter in O(models_dir), by the name of its directory, the row that its
      adapter_config.json gives, as YAML to paste into C(agent_adapters).
    - Adapters that no row could make acceptable are left out. Empty without O(suggest_rows).
  returned: always
  type: dict
  sample:
    llama32_3b_grammar_lora: |
      - name: llama32_3b_grammar_lora
        base: meta-llama/Llama-3.2-3B-Instruct
        rank: 16
        alpha: 32
problems:
  description: What is wrong with the adapters, one entry for each problem.
  returned: failure
  type: list
  elements: dict
  contains:
    adapter:
      description: The adapter that the problem belongs to, V(none) if it belongs to the host.
      type: str
      sample: llama32_3b_grammar_lora
    subject:
      description: The adapter, file, base or option.
      type: str
      sample: adapter llama32_3b_grammar_lora, lora_alpha in adapter_config.json
    problem:
      description: What is wrong with it.
      type: str
      sample: is 64; the inventory declares alpha 32.
    remedy:
      description: What to do.
      type: str
      sample: Deliver the intended adapter, or correct the inventory.
"""

import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.excluded import listed
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.suggestion import row_text, undeclared_rows
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import BASES, DECLARED, SOURCE
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.config import with_config
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.identity import Identities
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.interpreter import library_versions
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._source.describe import describe_adapters


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **DECLARED,
            **BASES,
            **SOURCE,
            "require_golden": {"type": "bool", "default": False},
            "python": {"type": "path"},
            "suggest_rows": {"type": "bool", "default": False},
            # For the action plugin.
            "by_reference": {"type": "bool", "default": False},
        },
    )
    with module.failing_on_error():
        versions = library_versions(module.params["python"]) if module.params["python"] else {}
        bases = with_config(module.params["bases"])
    found = describe_adapters(module.params, bases, versions, Identities(), module.tmpdir, write_cache=not module.check_mode)
    for warning in found.warnings:
        module.warn(warning)
    suggested: dict[str, str] = {}
    if module.params["suggest_rows"]:
        with module.failing_on_error():
            names = [row["name"] for row in module.params["adapters"]]
            rows = undeclared_rows(module.params["models_dir"], names, bases)
        suggested = {name: row_text(row) for name, row in rows.items()}
    results: dict[str, t.Any] = {
        "manifests": [manifest.to_text() for manifest in found.manifests],
        "excluded": {name: listed(items) for name, items in found.excluded.items()},
        "notes": found.notes,
        "goldens": found.goldens,
        "directories": found.identified_directories(),
        "cached": found.cached,
        "folded": [folded.declared.name for folded in found.folded if folded.made],
        "suggested_rows": suggested,
    }
    if found.problems:
        module.fail(found.problems, **results)
    module.exit_json(changed=False, **results)


if __name__ == "__main__":
    main()
