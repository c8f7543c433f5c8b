# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This doc fragment is PRIVATE to the collection: it may change or vanish in any release.

"""Options that module_utils/_argspec.py gives to more than one module."""

from __future__ import annotations


class ModuleDocFragment:
    # The adapters as the inventory declares them.
    DOCUMENTATION = r"""
options:
  adapters:
    description:
      - The adapters as the inventory declares them, one row each.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the adapter, which is the name of its directory below O(models_dir).
        type: str
        required: true
      variant:
        description: Which variant of the agent this is, for example V(3b). For reports only.
        type: str
      default:
        description: Whether this is the agent's default variant. For reports only.
        type: bool
        default: false
      base:
        description: The base model it was trained on, a key of O(bases).
        type: str
        required: true
      rank:
        description: The LoRA rank C(r).
        type: int
        required: true
      alpha:
        description: The C(lora_alpha).
        type: float
        required: true
      target_modules:
        description:
          - Names of the modules that carry LoRA layers. The adapter must have exactly these.
          - When not set, whatever adapter_config.json says is taken, and the tensors must fit it.
        type: list
        elements: str
      peft_config:
        description:
          - Keys of adapter_config.json that may differ from plain LoRA, with the value that they must have,
            for example C(use_rslora=true). Everything not named here must have its default.
        type: dict
      extra_files:
        description: Names of further files that belong to the adapter and travel with it where they exist.
        type: list
        elements: str
      allow_pickle:
        description:
          - Accept C(adapter_model.bin), a pickle, where there is no C(adapter_model.safetensors).
            The node's torch must be 2.10 or newer then.
        type: bool
        default: false
      dataset:
        description: What it was trained on. For reports only.
        type: str
      quality:
        description: How good it was found to be. For reports only.
        type: str
  bases:
    description:
      - The base models. A dictionary from the name that O(adapters[].base) uses to a dictionary with the optional keys
        C(path) (directory of the base on this host), C(config) (the base's config.json, as far as the shapes of
        its modules need it; read from C(path) when not set) and C(aliases) (other spellings that
        C(base_model_name_or_path) of adapter_config.json may have).
    type: dict
    default: {}
"""

    # Where things lie on a training server.
    SOURCE = r"""
options:
  models_dir:
    description: The directory in which each adapter lies under its name, as an absolute path.
    type: path
    required: true
  cache_dir:
    description: Where the hashes are cached, so that an unchanged adapter is read once however often it is delivered.
    type: path
    default: ~/.cache/lorafleet
  golden_dir:
    description: Where M(lorafleet.delivery.adapter_golden) keeps the goldens, each under its adapter's name and release.
    type: path
    default: ~/.local/share/lorafleet/goldens
"""

    # Where things lie on a node.
    NODE = r"""
options:
  models_dir:
    description: The directory in which each adapter is served under its name, as an absolute path.
    type: path
    required: true
  store:
    description:
      - The directory that keeps releases, receipts and staged bytes. It must be outside O(models_dir) and on its file system.
    type: path
    required: true
"""

    # What adapters are loaded on.
    LOADING = r"""
options:
  device:
    description:
      - Where to load. V(cuda:1) is the second GPU that the interpreter sees, in the order of the PCI bus, V(cuda) the one with
        most memory free, V(cpu) no GPU at all.
    type: str
    default: cuda
  memory_limit:
    description:
      - How much of the device's memory may be taken at most, for example V(20G). More than is free is never taken.
    type: bytes
"""

    # What files and directories that are served look like.
    PERMISSIONS = r"""
options:
  owner:
    description: Name or number of the user that owns what is served. Left as it is when not set.
    type: str
  group:
    description: Name or number of the group of what is served. Left as it is when not set.
    type: str
  file_mode:
    description: Permissions of served files, four octal digits.
    type: str
    default: "0644"
  directory_mode:
    description: Permissions of served directories, four octal digits.
    type: str
    default: "0755"
"""

    # What a release must have passed on a node.
    TESTED = r"""
options:
  python:
    description: The interpreter that serves the adapters. It must have torch, transformers, peft and safetensors.
    type: path
    required: true
  level:
    description:
      - How far the test must go. Each level contains the ones before it, and an adapter that does not reach it has failed.
      - V(structure) reads the files alone - names, shapes and values of all tensors, the configuration. It needs no PEFT.
      - V(adapter) has PEFT build its layers over a base without weights, brings all tensors onto the device, compares them
        with the file bit by bit and computes with each module. It takes less than 1 GB of the device's memory.
      - V(model) also loads the base from O(bases) and the adapter through PEFT's own loading, and compares the answers of the
        model with and without the adapter. It looks first whether the memory that is free suffices.
      - V(golden) also compares the log-probabilities along the recorded answers, with the adapter and without it, with those
        that M(lorafleet.delivery.adapter_golden) recorded where the adapter was trained. It needs a golden in the manifest.
      - V(available) is V(golden) for an adapter whose base has a C(path) and whose manifest has a golden, V(model) for one whose
        base has a C(path), V(adapter) for others.
    type: str
    choices:
      - structure
      - adapter
      - model
      - golden
      - available
    default: available
  minimum_level:
    description:
      - The level that suffices where memory does not suffice for O(level). The test then goes as far as memory permits, the
        result says the level that was reached and why not more, and the test is tried again in every run.
      - When not set, nothing less than O(level) suffices. It is never a way around a test that was failed.
    type: str
    choices:
      - structure
      - adapter
      - model
      - golden
  base_binding:
    description:
      - What happens when the base on this host is another than the one that the adapter was trained on, as far as the manifest
        tells it. Both are compared by config.json and by a sample of every tensor, before anything is loaded.
      - V(enforce) refuses the adapter, V(report) says it in the notes of the test and in a warning.
    type: str
    choices:
      - enforce
      - report
    default: enforce
  user:
    description:
      - The user that loads the adapters, best the one that serves them. It must be able to read what becomes active with
        O(owner), O(group), O(file_mode) and O(directory_mode), which is judged by these alone; whether it can pass through the
        directories above O(models_dir) is not looked at. The base it really reads.
      - When not set, the user that Ansible works as. To name another one takes O(ignore:become).
    type: str
"""

    # How a release becomes active, and what of others stays.
    ACTIVATION = r"""
options:
  activation:
    description:
      - V(exchange) puts a plain directory in place, holding copies of the release, by exchanging it with what stands there.
      - V(symlink) puts a relative link to the release in place.
      - V(auto) is what the adapter was activated with up to now on this node. At first it is V(exchange) where the file system
        can do it, otherwise V(symlink); check mode takes it that it can.
    type: str
    choices: [auto, exchange, symlink]
    default: auto
  keep:
    description:
      - How many verified releases of each adapter stay in the store, counted from the one that was active last.
      - The active and the previous release and those that a process has open stay in any case.
    type: int
    default: 3
"""
