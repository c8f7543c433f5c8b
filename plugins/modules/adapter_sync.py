#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_sync
short_description: Transfer LoRA adapters to a node as staged releases
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Transfers the files of the given manifests from the source into the staging directories of a
    node's store, and verifies every byte on the node against the manifests. Served files are not
    changed.
  - The data is streamed through the controller, with rsync at both ends, over Ansible's connection
    settings for the two hosts. Neither host needs a key for the other. The host keys of both are
    always checked. All adapters of a node share one connection to each end. It is not Ansible's
    own connection, and it is closed at the end of the task.
  - A file that the node already has, in any release of any adapter or in the served directory, is
    reused from there. Interrupted transfers are resumed.
  - Nothing is transferred for a release that the store already has intact.
  - Fails before anything is transferred if a manifest has other files, sizes or tensors than the
    row of O(adapters) permits. The training server has checked this before, and so has the action
    plugin of M(lorafleet.delivery.adapter_info) on the controller.
  - Fails before anything is transferred if one of O(engines) refuses or misreads an adapter, unless
    O(engine_policy=report).
extends_documentation_fragment:
  - lorafleet.delivery._options.declared
  - lorafleet.delivery._options.node
  - lorafleet.delivery._options.target
  - lorafleet.delivery._options.transfer
  - lorafleet.delivery._options.engines
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._attributes
notes:
  - Both hosts need rsync 3.1 or newer, and the node needs C(flock) of util-linux. The controller
    needs ssh, and rsync if it is one of the two hosts. Warns about rsync versions with known
    vulnerabilities.
  - Keys, agents, passwords, jump hosts, ports and users are those of Ansible. A password for ssh
    needs OpenSSH 8.5 or newer on the controller. It is given to its host only, never to a jump
    host.
  - On the node, the files are received by the user that modules run as. At the source, they are
    read by the user that a task delegated to that host runs as. C(become) is Ansible's at both
    ends, with its method and password. Become methods that need a terminal are refused.
attributes:
  action_group:
    membership:
      - lorafleet.delivery.bases
      - lorafleet.delivery.declared
      - lorafleet.delivery.engines
      - lorafleet.delivery.node
      - lorafleet.delivery.target
      - lorafleet.delivery.transfer
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Lists the files to download and their bytes.
  idempotent:
    support: full
options:
  manifests:
    description: Manifests from RV(lorafleet.delivery.adapter_info#module:manifests).
    type: list
    elements: str
    required: true
  source:
    description: The inventory name of the host that has the adapters.
    type: str
    required: true
  source_models_dir:
    description:
      - The directory at the source with a directory for each adapter, named after it. Used for
        adapters that are not in O(source_directories).
      - Absolute, or beginning with C(~/).
    type: path
    required: true
  phase:
    description:
      - The step that the module performs on the node.
      - Set by the action plugin of the same name, which transfers the files in between. Do not set
        it.
    type: str
    choices:
      - plan
      - verify
      - clean
seealso:
  - module: lorafleet.delivery.adapter_info
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Transfer the described adapters to this node
  lorafleet.delivery.adapter_sync:
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    manifests: "{{ described.manifests }}"
    source: sbs29
    source_models_dir: /home/models
    source_directories: "{{ described.directories }}"
    models_dir: /home/models
    store: /home/.lorafleet
"""

RETURN = r"""
adapters:
  description:
    - The transfer of each adapter. If an engine holds one back, only name, engines and
      engine_notes.
  returned: success, or if an engine holds an adapter back
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: ID of the release.
      type: str
      sample: 5f1c0f1f0f0b
    stored:
      description: Whether the store already had the release.
      type: bool
      sample: false
    downloaded:
      description: Files that were transferred from the source, or would be in check mode.
      type: list
      elements: str
      sample:
        - adapter_config.json
        - adapter_model.safetensors
    downloaded_bytes:
      description: Size of these files in bytes.
      type: int
      sample: 97308719
    reused:
      description:
        - Files that the node already had, with the path of the file that was reused.
        - In check mode, files that two adapters share and the first would download are missing.
      type: dict
      sample:
        tokenizer.json: /home/.lorafleet/llama31_8b_grammar_lora/releases/0b1e2f3a4d5c/tokenizer.json
    reused_bytes:
      description: Size of these files in bytes.
      type: int
      sample: 17209920
    engines:
      description: The verdict on each of O(engines).
      type: list
      elements: dict
      contains:
        engine:
          description: Name of the engine.
          type: str
          sample: openvino_genai
        version:
          description: Its version, V(none) if it is not known.
          type: str
          sample: 2026.4.1.0
        state:
          description: V(right), V(refused), V(wrong) or V(unknown).
          type: str
          sample: wrong
        kinds:
          description: The kinds of the adapter that this is due to, all of its kinds if it is V(right).
          type: list
          elements: str
          sample: [rslora]
        message:
          description: What the engine makes of the adapter.
          type: str
        figure:
          description:
            - The largest difference from PEFT's log-probabilities that was measured with an adapter
              of this kind, V(none) if there is none.
          type: float
          sample: 1.302
        remedy:
          description: What helps. Empty if nothing is wrong.
          type: str
        held_back:
          description: Whether the adapter is not delivered because of this verdict.
          type: bool
          sample: true
    engine_notes:
      description: If O(engines) is not set, a note for each kind of the adapter that some common engine misreads.
      type: list
      elements: str
      sample: []
wire_bytes:
  description:
    - Bytes that the node received from the source, in all tries together. Fewer than
      RV(adapters[].downloaded_bytes) if an earlier transfer was resumed.
  returned: when anything was transferred
  type: int
  sample: 435322985
seconds:
  description:
    - Duration of each part. C(plan) and C(verify) are hashing on the node, C(wait) is waiting for
      one of O(transfer_streams), C(transfer) is the connections and all tries.
  returned: when not in check mode
  type: dict
  sample:
    plan: 5.472
    transfer: 31.85
    verify: 2.902
    wait: 0.005
rsync:
  description: The version of rsync on the node.
  returned: success
  type: str
  sample: 3.5.0
source_rsync:
  description: The version of rsync at the source; empty if one of the ends was not reached.
  returned: when anything was transferred
  type: str
  sample: 3.5.0
commands:
  description:
    - The commands that were run on the controller, the node's end and the source's end of each try.
    - The content of a C(ProxyCommand) is left out, since it may contain a password.
  returned: when anything was transferred
  type: list
  elements: list
  sample:
    - - ssh
      - -o
      - BatchMode=yes
      - -o
      - StrictHostKeyChecking=yes
      - "... and the options of Ansible's connection"
      - --
      - 192.0.2.29
      - env -u RSYNC_OLD_ARGS ... rsync --server --sender ...
problems:
  description: The problems, one entry for each.
  returned: failure
  type: list
  elements: dict
  sample:
    - adapter: llama32_3b_grammar_lora
      subject: adapter llama32_3b_grammar_lora
      problem: >-
        could not be transferred from sbs29:/home/models/llama32_3b_grammar_lora to jw2-1: the
        connection between the two ends broke.
      remedy: The received files were kept; run again to resume. The served files were not changed.
"""

import contextlib
import os
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.offered import check_offered, declared_in
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import BASES, DECLARED, ENGINES, NODE, TARGET, TRANSFER
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.config import with_config
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.judgement import Judge, config_of_base
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import check_transfer_options, installed_rsync
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.fetch import (
    Fetch,
    check_space,
    diff_of,
    plan_fetches,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.preflight import check_directories
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.source import check_not_source
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.staging import (
    drop_excess,
    drop_other_offers,
    prepare,
    verify_staged,
)


def verdicts_on(module: DeliveryModule, manifests: list[Manifest]) -> dict[str, dict[str, t.Any]]:
    """Return the verdicts on each adapter by name. Fails if an engine holds one back."""
    judge = Judge(module.params)
    judgements = [judge.judge(manifest, config_of_base(manifest, module.params["bases"])) for manifest in manifests]
    found = {
        judgement.adapter: {"engines": judgement.engines(), "engine_notes": list(judgement.notes)} for judgement in judgements
    }
    problems = [problem for judgement in judgements for problem in judgement.problems()]
    if problems:
        module.fail(problems, adapters=[{"name": name, **entry} for name, entry in found.items()])
    for warning in (*map(str, judge.missing), *(warning for judgement in judgements for warning in judgement.warnings())):
        module.warn(warning)
    return found


def check_manifests(params: dict[str, t.Any], manifests: list[Manifest]) -> None:
    """Raise DeliveryError for manifests that the inventory does not permit."""
    bases: dict[str, t.Any] = {}
    for name, base in params["bases"].items():
        # What is wrong with the base is for the load test to say.
        with contextlib.suppress(DeliveryError):
            bases.update(with_config({name: base}))
    check_offered(manifests, declared_in(params["adapters"], bases))


def plan(module: DeliveryModule, fetches: list[Fetch]) -> dict[str, t.Any]:
    """Check that the transfer can be received and prepare the staging directories."""
    store = module.params["store"]
    check_directories(module.params["models_dir"], store)
    rsync = installed_rsync()
    if not module.check_mode:
        for fetch in fetches:
            drop_other_offers(fetch)
            drop_excess(fetch)
    check_space(store, fetches)
    if not module.check_mode:
        for fetch in fetches:
            if fetch.missing:
                prepare(fetch)
    return {"rsync": rsync.version, "zstd": rsync.zstd}


def verify(fetches: list[Fetch]) -> None:
    """Complete the staging directories and verify every file.

    Raises DeliveryError for all problems.
    """
    problems: list[Problem] = []
    for fetch in fetches:
        if not fetch.stored:
            problems += verify_staged(fetch)
    if problems:
        raise DeliveryError(*problems)


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **DECLARED,
            **NODE,
            **TARGET,
            **TRANSFER,
            **ENGINES,
            **BASES,
            "manifests": {"type": "list", "elements": "str", "required": True},
            "source": {"type": "str", "required": True},
            "source_models_dir": {"type": "path", "required": True},
            "phase": {"type": "str", "choices": ["plan", "verify", "clean"]},
        },
    )
    # No other user may read staged files, whatever the umask of this session.
    os.umask(0o077)
    phase = module.params["phase"]
    results: dict[str, t.Any] = {}
    with module.failing_on_error():
        if phase is None:
            remedy = "Call it as lorafleet.delivery.adapter_sync."
            raise DeliveryError.of("adapter_sync", "was run without its action plugin.", remedy)
        check_transfer_options(module.params)
        check_not_source(module.params["models_dir"], module.params["store"], module.params["source_directories"])
        manifests = [Manifest.from_text(manifest) for manifest in module.params["manifests"]]
        # Before anything is hashed or written.
        check_manifests(module.params, manifests)
        verdicts = verdicts_on(module, manifests) if phase == "plan" else {}
        fetches = plan_fetches(manifests, module.params["models_dir"], module.params["store"], phase != "plan")
        if phase == "plan":
            results = plan(module, fetches)
        elif phase == "clean":
            for fetch in fetches:
                drop_excess(fetch)
        else:
            verify(fetches)
    changed = any(fetch.missing for fetch in fetches)
    adapters = [{**fetch.to_json(), **verdicts.get(fetch.manifest.name, {})} for fetch in fetches]
    module.exit_json(changed=changed, adapters=adapters, diff=diff_of(fetches), **results)


if __name__ == "__main__":
    main()
