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
  - By default, the data is streamed through the controller, with rsync at both ends. See
    O(transfer) for other ways.
  - In all ways, the controller connects to both hosts with Ansible's connection settings for them.
    Neither host needs a key for the other. The host keys of both are always checked. All adapters
    of a node share one connection to each end. It is not Ansible's own connection, and it is closed
    at the end of the task.
  - A file that the node already has, in any release of any adapter or in the served directory, is
    reused from there. Interrupted transfers are resumed.
  - Nothing is transferred for a release that the store already has intact.
  - Fails before anything is transferred if a manifest has other files, sizes or tensors than the
    row of O(adapters) permits. The training server has checked this before, and so has the action
    plugin of M(lorafleet.delivery.adapter_info) on the controller.
  - Fails before anything is transferred if the node does not accept what O(signatures) has about a
    release. If O(trust) is set, fails before the node is asked if every node with that trust would
    refuse it.
  - Fails before anything is transferred if one of O(engines) refuses or misreads an adapter, unless
    O(engine_policy=report).
  - Asks each engine with a C(url) what it has. Fails before anything is transferred if it demands
    another API key or has another base, and, unless O(engine_policy=report), if it has no room for
    all adapters and a second release of one of them.
extends_documentation_fragment:
  - lorafleet.delivery._options.declared
  - lorafleet.delivery._options.node
  - lorafleet.delivery._options.target
  - lorafleet.delivery._options.transfer
  - lorafleet.delivery._options.signatures
  - lorafleet.delivery._options.engines
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._attributes
notes:
  - The controller needs ssh.
  - If O(transfer) is V(relay) or V(auto), both hosts need rsync 3.1 or newer, also where one of
    them is the controller, and the node needs C(flock) of util-linux. Warns about rsync versions
    with known vulnerabilities.
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
      - lorafleet.delivery.signatures
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
  trust:
    description:
      - The directory on the controller with the policy and the signers of the nodes, as
        O(lorafleet.delivery.node_trust#module:source).
      - The controller compares the releases and their statements in O(signatures) with it before it
        asks the node, once for all nodes of a run. It judges no serials, times and certificates.
      - The node decides with what it trusts itself. When empty, the node alone compares them.
    type: str
    default: ""
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

- name: Transfer them from a port of the source, and through the controller where that fails
  lorafleet.delivery.adapter_sync:
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    manifests: "{{ described.manifests }}"
    source: sbs29
    source_models_dir: /home/models
    models_dir: /home/models
    store: /home/.lorafleet
    transfer: auto
    transfer_direct_ports: 8700-8709
    transfer_direct_address: 192.0.2.10

- name: Transfer them through the ssh server of the source, which has its keys in another place
  lorafleet.delivery.adapter_sync:
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    manifests: "{{ described.manifests }}"
    source: sbs29
    source_models_dir: /home/models
    models_dir: /home/models
    store: /home/.lorafleet
    transfer: auto
    transfer_direct_ssh: true
    transfer_direct_authorized_keys: ~/.ssh/authorized_keys2

- name: Let the nodes get them from the source and from each other
  lorafleet.delivery.adapter_sync:
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    manifests: "{{ described.manifests }}"
    source: sbs29
    source_models_dir: /home/models
    models_dir: /home/models
    store: /home/.lorafleet
    transfer: swarm
    transfer_swarm_ports: 8710-8719
    transfer_swarm_python: /opt/swarm/bin/python

- name: Let a program on the node get them from a registry
  lorafleet.delivery.adapter_sync:
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    manifests: "{{ described.manifests }}"
    source: sbs29
    source_models_dir: /home/models
    models_dir: /home/models
    store: /home/.lorafleet
    transfer: command
    transfer_command:
      - /usr/local/bin/fetch-blobs
      - https://registry.example/v2/adapters
      - "{files}"
      - "{staging}"
"""

RETURN = r"""
adapters:
  description:
    - The transfer of each adapter. If an engine blocks one, only name, engines and
      engine_notes.
  returned: success, or if an engine blocks an adapter
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
    way:
      description: The way that these files took, V(relay), V(direct), V(direct_ssh), V(swarm)
        or V(command).
      returned: when O(transfer) is not V(relay) and files were transferred
      type: str
      sample: relay
    not_taken:
      description: The ways that come before it in O(transfer=auto), and why they brought no files.
      returned: when O(transfer) is not V(relay) and files were transferred
      type: list
      elements: dict
      sample:
        - way: command
          why: "did not bring the files: it ended with status 1."
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
    - Bytes that the node received, in all tries together. Fewer than
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
  returned: success if O(transfer) is V(relay) or V(auto)
  type: str
  sample: 3.5.0
source_rsync:
  description: The version of rsync at the source; empty if one of the ends was not reached.
  returned: when anything was transferred, and if O(transfer) is V(relay) or V(auto)
  type: str
  sample: 3.5.0
commands:
  description:
    - The commands that were run on the controller for each try of a relay, that of the node's end
      and that of the source's end.
    - Of ssh's options, the values that may contain a secret are left out, such as those of
      C(ProxyCommand) and C(ProxyJump).
  returned: when anything was transferred, and if O(transfer) is V(relay) or V(auto)
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
import sys
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import (
    BASES,
    DECLARED,
    ENGINES,
    NODE,
    SIGNATURES,
    TARGET,
    TRANSFER,
)
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
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import is_set_up
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import RELAY, ways_of


def verdicts_on(module: DeliveryModule, manifests: list[Manifest]) -> dict[str, dict[str, t.Any]]:
    """Return the verdicts on each adapter by name.

    Fails if an engine blocks one, or could not serve them all.
    """
    # For the phase that plans, as in check_manifests.
    from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.judgement import Judge, config_of_base
    from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import Checklist

    judge = Judge(module.params)
    judgements = [judge.judge(manifest, config_of_base(manifest, module.params["bases"])) for manifest in manifests]
    found = {
        judgement.adapter: {"engines": judgement.engines(), "engine_notes": list(judgement.notes)} for judgement in judgements
    }
    serving = Checklist()
    if judge.serves:
        # The clients of engines take longer to load than all the rest.
        from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.serving import check_serving

        check_serving(serving, module.params, manifests)
    problems = [*(problem for judgement in judgements for problem in judgement.problems()), *serving.problems()]
    if problems:
        module.fail(problems, adapters=[{"name": name, **entry} for name, entry in found.items()])
    verdicts = [warning for judgement in judgements for warning in judgement.warnings()]
    for warning in (*map(str, judge.missing), *verdicts, *map(str, serving.warnings())):
        module.warn(warning)
    return found


def check_manifests(params: dict[str, t.Any], manifests: list[Manifest]) -> None:
    """Raise DeliveryError for manifests that the inventory does not permit."""
    # The phase that verifies gets the same manifests, and need not load what checks them.
    from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.offered import check_offered, declared_in
    from ansible_collections.lorafleet.delivery.plugins.module_utils._base.config import with_config

    bases: dict[str, t.Any] = {}
    for name, base in params["bases"].items():
        # What is wrong with the base is for the load test to say.
        with contextlib.suppress(DeliveryError):
            bases.update(with_config({name: base}))
    check_offered(manifests, declared_in(params["adapters"], bases))


def check_signed(params: dict[str, t.Any], manifests: list[Manifest]) -> None:
    """Raise DeliveryError for releases that this node would not activate, signed or unsigned."""
    if params["signed"] or is_set_up():
        # What verifies signatures takes milliseconds to load.
        from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.acceptance import Acceptance

        Acceptance.of_options(params).check_all(manifests, params["models_dir"], params["store"])


def plan(module: DeliveryModule, fetches: list[Fetch]) -> dict[str, t.Any]:
    """Check that the transfer can be received and prepare the staging directories."""
    store = module.params["store"]
    check_directories(module.params["models_dir"], store)
    rsync = installed_rsync() if RELAY in ways_of(module.params) else None
    if not module.check_mode:
        for fetch in fetches:
            drop_other_offers(fetch)
            drop_excess(fetch)
    check_space(store, fetches)
    if not module.check_mode:
        for fetch in fetches:
            if fetch.missing:
                prepare(fetch)
    versions = {"rsync": rsync.version, "zstd": rsync.zstd} if rsync else {}
    # The interpreter of the programs that take part in a transfer.
    return {**versions, "python": sys.executable}


def verify(fetches: list[Fetch]) -> None:
    """Complete the staging directories and verify every file.

    Raises DeliveryError for all problems. Then no file is longer than it was described: otherwise
    the disk would stay full.
    """
    problems: list[Problem] = []
    for fetch in fetches:
        if not fetch.stored:
            problems += verify_staged(fetch)
    if problems:
        for fetch in fetches:
            drop_excess(fetch)
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
            **SIGNATURES,
            "manifests": {"type": "list", "elements": "str", "required": True},
            "source": {"type": "str", "required": True},
            "source_models_dir": {"type": "path", "required": True},
            "trust": {"type": "str", "default": ""},
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
        manifests = [Manifest.from_argument(manifest) for manifest in module.params["manifests"]]
        verdicts: dict[str, dict[str, t.Any]] = {}
        if phase == "plan":
            # Before anything is hashed or written.
            check_manifests(module.params, manifests)
            check_signed(module.params, manifests)
            verdicts = verdicts_on(module, manifests)
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
