# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory plugin manifest: hosts, groups and variables out of a manifest text; plugin_utils/_manifest_text.py reads it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: manifest
short_description: Takes the fleet from the manifest text that a training pipeline writes
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Reads a Markdown file (C(.md)) that has the title C(Model Distribution Manifest) or an agent's heading, so that playbooks run
    on the file as it comes. Which parts of it are read, and how they may be written, is in the examples.
  - The training server becomes the one host of group C(training). A node becomes a child of group C(agents), with a host for each
    of its addresses. Node C(jw2) has the host C(jw2-1). A fully qualified name is preferred to the address beside it.
  - An agent is called as the check box of its node calls it, otherwise as its heading does, without the word Agent.
  - The groups of nodes get C(agent_name), C(agent_purpose), C(agent_models_dir) and C(agent_adapters), the training server
    C(training_models_dir). Benchmarks are added to the quality of the adapters that have their words in the name. Files to
    transfer that are not among the usual ones become C(extra_files). The rest of the training configuration becomes
    C(lorafleet_training).
  - Nothing is guessed at. Bullets that are not known are kept in C(agent_notes), or in C(lorafleet_notes) where they are about no
    agent. What is missing, repeated or contradictory is an error with its line, and then nothing of the file is taken.
  - What the file cannot know, such as users, C(agent_python), C(agent_device) and the paths of bases, is set in C(group_vars)
    beside it or by another inventory, as usual. Variables in C(group_vars) win over the file.
notes:
  - Enable it before the plugins that try files of any name. Let a file that cannot be read end the run, since Ansible would
    otherwise only warn and go on without hosts. See the examples.
  - Texts of the file are never templates.
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
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.manifest_text import (
    Distribution,
    is_manifest_text,
    parse,
    variables_of,
)


class InventoryModule(BaseInventoryPlugin):
    NAME = "lorafleet.delivery.manifest"

    def verify_file(self, path: str) -> bool:
        return path.lower().endswith(".md") and super().verify_file(path) and is_manifest_text(_read(path))

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        try:
            self._populate(parse(_read(path), os.path.basename(path)))
        except DeliveryError as exc:
            raise AnsibleParserError(str(exc)) from None

    def _populate(self, said: Distribution) -> None:
        self._group("all", "training", {"training_models_dir": said.models_dir})
        self._host("training", said.server, said.address)
        self._group("all", "agents", {})
        for agent in said.agents:
            self._group("agents", agent.group, variables_of(agent))
            for host, address in agent.hosts.items():
                self._host(agent.group, host, address)
        self._set("all", {"lorafleet_training": said.training, "lorafleet_notes": list(said.notes)})

    def _group(self, parent: str, group: str, variables: dict[str, t.Any]) -> None:
        self.inventory.add_group(group)
        self.inventory.add_child(parent, group)
        self._set(group, variables)

    def _host(self, group: str, host: str, address: str) -> None:
        self.inventory.add_host(host, group=group)
        self._set(host, {"ansible_host": address})

    def _set(self, name: str, variables: dict[str, t.Any]) -> None:
        """Set what the text says of a group or host."""
        for variable, value in variables.items():
            if value:
                # ansible-core before 2.19 would template it: a manifest text is data.
                self.inventory.set_variable(name, variable, wrap_var(value))


def _read(path: str) -> str:
    # A byte that is no UTF-8 must not keep the file from being read: where it matters, a name or a path is refused.
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        return stream.read()
