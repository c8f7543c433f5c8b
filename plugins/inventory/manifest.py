# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turns a manifest text into an inventory.

``plugin_utils/_fleet/fleet_manifest.py`` reads the text.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: manifest
short_description: Use the manifest text of a training pipeline as inventory
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Reads a Markdown file (C(.md)) with the title C(Model Distribution Manifest) or an agent's
    heading, so that playbooks can use the file of the pipeline unchanged. The examples show which
    parts of it are read and how they may be written.
  - The training server becomes the only host of group C(training). A node becomes a child of group
    C(agents), with a host for each of its addresses. Node C(jw2) has the host C(jw2-1). A fully
    qualified name is preferred to the address beside it.
  - An agent gets its name from the check box of its node, otherwise from its heading, without the
    word Agent. Several sections may name the same node, which then serves several agents.
  - The groups of nodes get C(agent_name), C(agent_purpose), C(agent_models_dir) and
    C(agent_adapters), the training server C(training_models_dir). Benchmarks are added to the
    quality of the adapters whose names contain their words. For a node with several agents, the rows
    name their agents, and C(agent_purpose) is by agent. Files to transfer that are not
    delivered anyway become C(extra_files). The rest of the training configuration becomes
    C(lorafleet_training).
  - Nothing is guessed. Unknown bullets are kept in C(agent_notes), or in C(lorafleet_notes) if they
    belong to no agent. A missing, repeated or contradictory statement is an error that names its
    line, and then nothing is read from the file.
  - What the file cannot contain, such as users, C(agent_python), C(agent_device) and the paths of
    bases, is set in C(group_vars) beside it or in another inventory. Variables in C(group_vars)
    override the file.
notes:
  - Enable it before the plugins that accept files of any name. Make unreadable inventories fatal,
    since Ansible would otherwise only warn and continue without hosts. See the examples.
  - Texts of the file are never templated.
options: {}
"""

EXAMPLES = r"""
# ansible.cfg
# [inventory]
# enable_plugins = lorafleet.delivery.manifest, host_list, script, auto, yaml, ini, toml
# any_unparsed_is_failed = True

# ansible-inventory -i MODEL_MANIFEST.md --graph --vars
# ansible-playbook -i MODEL_MANIFEST.md lorafleet.delivery.deploy

# MODEL_MANIFEST.md. An arrow may also be written ->, and an adapter may be a row of a table with a
# column for each bullet and one for Variant. LoRA rank, alpha and target modules may also be set
# for an adapter.
#
# # Training Server: trainer.example.org (192.0.2.1)
# ### Cleaner Agent (Grammar/Noise) → gpu1 (192.0.2.11)
# - **3B Default:**
#   - Source: `/home/models/llama32_3b_grammar_lora/`
#   - Target: `gpu1:/home/models/llama32_3b_grammar_lora/`
#   - Base: meta-llama/Llama-3.2-3B-Instruct
#   - Training: JFLEG dataset
# - **8B Appendix:**
#   - ...
# ## Training Configuration
# - LoRA rank: 16 (3B), 32 (8B)
# - LoRA alpha: 32
# ## Quality Benchmarks
# - Grammar models: tested on JFLEG
# ## Files to Transfer
# - adapter_config.json
# ## Status
# - [ ] Cleaner models → gpu1

# group_vars/agents.yml beside it
ansible_user: deploy
agent_python: /opt/lorafleet/bin/python
agent_bases:
  meta-llama/Llama-3.2-3B-Instruct:
    path: /data/base/Llama-3.2-3B-Instruct
"""

import os
import typing as t

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet_manifest import (
    Distribution,
    is_fleet_manifest,
    parse,
    variables_of,
)


class InventoryModule(BaseInventoryPlugin):
    NAME = "lorafleet.delivery.manifest"

    def verify_file(self, path: str) -> bool:
        return path.lower().endswith(".md") and super().verify_file(path) and is_fleet_manifest(_read(path))

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        try:
            self._populate(parse(_read(path), os.path.basename(path)))
        except DeliveryError as exc:
            raise AnsibleParserError(str(exc)) from None

    def _populate(self, fleet: Distribution) -> None:
        self._group("all", "training", {"training_models_dir": fleet.models_dir})
        self._host("training", fleet.server, fleet.address)
        self._group("all", "agents", {})
        for group, agents in fleet.groups.items():
            self._group("agents", group, variables_of(agents))
            for host, address in agents[0].hosts.items():
                self._host(group, host, address)
        self._set("all", {"lorafleet_training": fleet.training, "lorafleet_notes": list(fleet.notes)})

    def _group(self, parent: str, group: str, variables: dict[str, t.Any]) -> None:
        self.inventory.add_group(group)
        self.inventory.add_child(parent, group)
        self._set(group, variables)

    def _host(self, group: str, host: str, address: str) -> None:
        self.inventory.add_host(host, group=group)
        self._set(host, {"ansible_host": address})

    def _set(self, name: str, variables: dict[str, t.Any]) -> None:
        """Set the variables of a group or host. Empty ones are left out."""
        for variable, value in variables.items():
            if value:
                # A manifest text is data, but ansible-core before 2.19 would template it.
                self.inventory.set_variable(name, variable, wrap_var(value))


def _read(path: str) -> str:
    # Invalid UTF-8 does not make the file unreadable. In a name or a path it is rejected.
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        return stream.read()
