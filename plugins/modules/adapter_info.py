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
  - Makes a manifest of each adapter directory that the inventory declares - files with size and sha256, tensors with
    dtype, shape and sha256, the parsed adapter_config.json, and the digest that names the release.
  - Refuses a directory that is not the adapter that is declared, is damaged, or is still being written. What PEFT would let
    pass in silence (unexpected or missing tensors, tensors that overwrite the base, NaN, all-zero weights, another scaling
    or base) is refused here.
  - Which files belong to an adapter is decided by what is there. adapter_config.json and exactly one weights file are
    required, the tokenizer's files go along where they exist, everything else stays behind.
  - The hashes are cached by inode, size, mtime and ctime of each file.
  - Where a task is delegated, hosts of the play that ask the same of one host get one answer - it is asked once.
  - A manifest also carries what does not belong to the content but goes with it, as far as it is known here - the identity of
    the base in C(bases[].path), the library versions of the training, and the golden that
    M(lorafleet.delivery.adapter_golden) has recorded of this very release.
extends_documentation_fragment:
  - lorafleet.delivery._options.declared
  - lorafleet.delivery._options.source
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.declared
      - lorafleet.delivery.source
  check_mode:
    support: full
    details: The module only looks. In check mode it does not write its cache either.
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
options:
  require_golden:
    description: Refuse an adapter of which no golden was recorded as it is now. Without it a stale golden is a warning.
    type: bool
    default: false
  python:
    description:
      - The interpreter of the training environment. When set, the versions of its torch, transformers, peft and safetensors
        go into the manifests.
    type: path
seealso:
  - module: lorafleet.delivery.adapter_golden
  - module: lorafleet.delivery.adapter_sync
"""

EXAMPLES = r"""
- name: Describe what the training server offers
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
  register: frozen
"""

RETURN = r"""
manifests:
  description:
    - The manifest of each adapter that was found to be as declared, in the order of O(adapters), each as JSON text.
    - Hand them on as they are. To look into one, use P(ansible.builtin.from_json#filter); its keys are those below.
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
      description: sha256 over the paths, sizes and sha256s of its files. Its first 12 digits name the release.
      type: str
      sample: 5f1c0f1f0f0b7e3b2f9d1f6f0c3a55ef1d6e1b0e7a4c8b4b6f1f7c2d3e4f5a6b
    size:
      description: Bytes of all files.
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
        - C(norm) is the Euclidean norm of a tensor's values, known to about one percent from some thousand of them.
      type: list
      elements: dict
    config:
      description: The parsed adapter_config.json.
      type: dict
    versions:
      description: The trainer's library versions as far as they are known.
      type: dict
      sample:
        peft: 0.21.2
    base:
      description:
        - Identity of the base at the training server, with C(config) (its config.json), C(weights) (sha256 over a sample of every
          tensor), C(tensors) (their number) and C(vocabulary) (sha256 of its tokenizer's vocabulary).
        - Not set when the training server has no path for the base and no golden tells it.
      type: dict
    golden:
      description: What the adapter answered on the training server. Not set when that was not recorded.
      type: dict
goldens:
  description:
    - For each adapter V(recorded), V(none), or V(stale) when there are goldens of other releases of it only.
  returned: always
  type: dict
  sample:
    llama32_3b_grammar_lora: recorded
excluded:
  description: For each adapter the names in its directory that do not belong to it and do not travel.
  returned: always
  type: dict
  sample:
    llama32_3b_grammar_lora:
      - README.md
      - training_args.bin
cached:
  description: Names of the adapters whose files were not read again because nothing about them had changed.
  returned: always
  type: list
  elements: str
problems:
  description: What is wrong, one entry for each thing, over all adapters.
  returned: failure
  type: list
  elements: dict
  sample:
    - subject: llama32_3b_grammar_lora
      problem: "lora_alpha is 64, the inventory declares 32."
      remedy: Correct the inventory, or train and save the adapter again.
"""

import dataclasses
import os
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.hash_cache import cache_path
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import DECLARED, SOURCE
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.config import with_config
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.identity import Identities
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem, collected
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import other_releases, read_golden
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.interpreter import library_versions
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule


def with_golden(
    manifest: Manifest, golden_dir: str, identity: t.Optional[dict[str, t.Any]], require: bool
) -> tuple[Manifest, str, t.Optional[str]]:
    """The manifest with all that goes with it, V(recorded), V(stale) or V(none), and a warning. Raises DeliveryError."""
    golden = read_golden(golden_dir, manifest)
    if golden is not None:
        versions = {**golden.recorded["versions"], **manifest.versions}
        whole = dataclasses.replace(manifest, golden=golden.to_json(), base=identity or golden.base, versions=versions)
        return whole, "recorded", None
    others = other_releases(golden_dir, manifest)
    state, problem = "none", "has no golden."
    if others:
        state, problem = "stale", f"has a stale golden: recorded was release {', '.join(others)}, it is {manifest.release} now."
    error = DeliveryError.of(f"adapter {manifest.name}", problem, "Record it on the training server (playbook golden.yml).")
    if require:
        raise error
    return dataclasses.replace(manifest, base=identity), state, str(error) if others else None


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **DECLARED,
            **SOURCE,
            "require_golden": {"type": "bool", "default": False},
            "python": {"type": "path"},
        },
    )
    manifests: list[str] = []
    excluded: dict[str, list[str]] = {}
    goldens: dict[str, str] = {}
    cached: list[str] = []
    problems: list[Problem] = []
    identities = Identities()
    with module.failing_on_error():
        versions = library_versions(module.params["python"]) if module.params["python"] else {}
        bases = with_config(module.params["bases"])
    for row in module.params["adapters"]:
        with collected(problems, row["name"]):
            base = bases.get(row["base"], {})
            declared = Declaration.from_row(row, base)
            directory = os.path.join(module.params["models_dir"], declared.name)
            cache = cache_path(module.params["cache_dir"], directory)
            found = describe(directory, declared, versions, cache, write_cache=not module.check_mode)
            manifest, goldens[declared.name], warning = with_golden(
                found.manifest, module.params["golden_dir"], identities.at(base.get("path")), module.params["require_golden"]
            )
            if warning:
                module.warn(warning)
            manifests.append(manifest.to_text())
            excluded[declared.name] = found.excluded
            if found.cached:
                cached.append(declared.name)
    results: dict[str, t.Any] = {"manifests": manifests, "excluded": excluded, "goldens": goldens, "cached": cached}
    if problems:
        module.fail(problems, **results)
    module.exit_json(changed=False, **results)


if __name__ == "__main__":
    main()
