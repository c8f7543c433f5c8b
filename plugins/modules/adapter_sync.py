#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_sync
short_description: Bring LoRA adapters to a node as staged releases
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Brings the files of given manifests from the source into the staging directories of a node's store, and compares every
    byte that arrived with the manifests, on the node. What is served is not touched.
  - The bytes pass through the controller as a stream, by rsync at both ends, over the connections that Ansible has for
    the two hosts; neither host needs a key for the other. The host keys of both are always checked. All adapters of a node
    share one connection to each end, which is not Ansible's own and ends with the task.
  - A file that is on the node already, in any release of any adapter or in the directory that is served, is taken from there.
    What an interrupted transfer left is gone on from.
  - Nothing is sent for a release that is in the store already, whole.
extends_documentation_fragment:
  - lorafleet.delivery._options.node
  - lorafleet.delivery._attributes
notes:
  - Both hosts need rsync 3.1 or newer, the node C(flock) of util-linux. The controller needs ssh, and rsync where it is one
    of the two. An rsync with known holes is warned of.
  - Keys, agents, passwords, jump hosts, ports and users are those of Ansible. A password of an ssh connection needs
    OpenSSH 8.5 or newer on the controller; it is given to its host alone, never to a jump host on the way.
  - The files are received by the user that modules run as on the node; C(become) is Ansible's, with its method and password.
    A method that needs a terminal is refused.
  - At the source they are read by the user that Ansible connects as there for a delegated task, before C(become).
attributes:
  action_group:
    membership:
      - lorafleet.delivery.node
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Says how many bytes travel, and in which files.
  idempotent:
    support: full
options:
  manifests:
    description: Manifests as RV(lorafleet.delivery.adapter_info#module:manifests) gives them.
    type: list
    elements: str
    required: true
  source:
    description: The inventory name of the host that offers the adapters.
    type: str
    required: true
  source_models_dir:
    description: The directory at the source in which each adapter lies under its name. Absolute, or beginning with C(~/).
    type: path
    required: true
  transfer_timeout:
    description:
      - Seconds without a byte after which a transfer is given up; ten times as many with nothing but rsync's signs of life.
    type: int
    default: 60
  transfer_tries:
    description: How often a transfer that a connection broke off is tried; each try goes on where the last one stopped.
    type: int
    default: 3
  transfer_streams:
    description:
      - How many nodes of a run a source serves at the same time; the others wait for their turn.
      - Above ten, an sshd with the settings it comes with begins to refuse connections (C(MaxStartups)).
    type: int
    default: 10
  transfer_bwlimit:
    description:
      - The most that each of these streams may carry, as rsync's option of that name has it. V(20M) are 20 MiB per second,
        a number alone is in KiB per second. No limit when empty.
    type: str
    default: ""
  transfer_compress:
    description:
      - Compress with zstd on level 1. It makes weights in bfloat16 smaller by 22 %, in float32 by 7 %, and pays on links
        up to about 1 Gbit/s.
      - Both ends need an rsync that was built with zstd (3.2 or newer).
    type: bool
    default: false
  phase:
    description:
      - Which of its two steps on the node the module performs.
      - Set by the action plugin of the same name, which moves the bytes in between. Do not set it.
    type: str
    choices:
      - plan
      - settle
seealso:
  - module: lorafleet.delivery.adapter_info
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Bring what the training server offers to this node
  lorafleet.delivery.adapter_sync:
    manifests: "{{ frozen.manifests }}"
    source: sbs29
    source_models_dir: /home/models
    models_dir: /home/models
    store: /home/.lorafleet
"""

RETURN = r"""
adapters:
  description: What was done for each adapter.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The release that it is.
      type: str
      sample: 5f1c0f1f0f0b
    stored:
      description: Whether the release was in the store already.
      type: bool
      sample: false
    sent:
      description: Files that came from the source, or would in check mode.
      type: list
      elements: str
      sample:
        - adapter_config.json
        - adapter_model.safetensors
    sent_bytes:
      description: Bytes of these files.
      type: int
      sample: 97308719
    taken:
      description:
        - Files that were on the node already and were taken from there, with the path they were taken from.
        - In check mode without those that the first of two adapters would bring for both.
      type: dict
      sample:
        tokenizer.json: /home/.lorafleet/llama31_8b_grammar_lora/releases/0b1e2f3a4d5c/tokenizer.json
    taken_bytes:
      description: Bytes of these files.
      type: int
      sample: 17209920
wire_bytes:
  description:
    - Bytes that the node received from the source, in all tries together. They are fewer than RV(adapters[].sent_bytes)
      where an earlier transfer was gone on from.
  returned: when anything was sent
  type: int
  sample: 435322985
seconds:
  description:
    - What each part took. C(plan) and C(settle) are hashing on the node, C(wait) is for one of O(transfer_streams),
      C(transfer) is the connections and all tries.
  returned: when not in check mode
  type: dict
  sample:
    plan: 5.472
    settle: 2.902
    transfer: 31.85
    wait: 0.005
rsync:
  description: The version of rsync on the node.
  returned: success
  type: str
  sample: 3.5.0
source_rsync:
  description: The version of rsync at the source, empty where it was not reached.
  returned: when anything was sent
  type: str
  sample: 3.5.0
commands:
  description:
    - The commands that were run on the controller, the node's end and the source's end of each transfer.
    - What a C(ProxyCommand) consists of is left out, since it may hold a password.
  returned: when anything was sent
  type: list
  elements: list
  sample:
    - - ssh
      - -o
      - BatchMode=yes
      - -o
      - StrictHostKeyChecking=yes
      - "... and what Ansible has for this connection"
      - --
      - 192.0.2.29
      - env -u RSYNC_OLD_ARGS ... rsync --server --sender -s
problems:
  description: What is wrong, one entry for each thing.
  returned: failure
  type: list
  elements: dict
"""

import os
import re
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import NODE
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem, about
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import Rsync
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.fetch import Fetch, check_space, plan_fetches
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.preflight import check_directories
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.staging import prepare, verify_staged
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import count


def local_rsync(module: DeliveryModule) -> Rsync:
    """This host's rsync. Raises DeliveryError when there is none."""
    program = module.get_bin_path("rsync")
    if program is None:
        raise DeliveryError.of("rsync", "is not installed on this node.", "Install the package rsync on it.")
    _rc, out, _err = module.run_command([program, "--version"], check_rc=True)
    return Rsync.parse(out) or Rsync("unknown", zstd=False)


def check_limits(params: dict[str, t.Any]) -> None:
    """Raise DeliveryError for numbers that would let nothing through, or that rsync does not understand."""
    for name in ("transfer_timeout", "transfer_tries", "transfer_streams"):
        if params[name] < 1:
            raise DeliveryError.of(f"agent_{name}", f"is {params[name]}.", "Set it to 1 or more.")
    if not re.fullmatch(r"(\d+(\.\d+)?[KMG]?)?", params["transfer_bwlimit"], re.IGNORECASE | re.ASCII):
        raise DeliveryError.of(
            "agent_transfer_bwlimit",
            f"is {params['transfer_bwlimit']!r}, which rsync's option of that name does not take.",
            "Set it to a number of KiB per second, or one with K, M or G for 1024 bytes and so on per second.",
        )


def planned(item: Fetch) -> dict[str, t.Any]:
    return {
        "name": item.manifest.name,
        "release": item.manifest.release,
        "stored": item.stored,
        "sent": [entry.path for entry in item.to_download],
        "sent_bytes": sum(entry.size for entry in item.to_download),
        "taken": item.reusable,
        "taken_bytes": sum(entry.size for entry in item.missing if entry.path in item.reusable),
        # For the action plugin alone.
        "staging": item.staging,
        "staged_bytes": item.staged_bytes,
    }


def diff_of(plans: list[Fetch]) -> dict[str, str]:
    """What is to come, as Ansible shows it."""

    def text(item: Fetch) -> str:
        sent = f"{sum(entry.size for entry in item.to_download)} bytes to send"
        sent += f" ({', '.join(entry.path for entry in item.to_download)})" if item.to_download else ""
        others = len(item.missing) - len(item.to_download)
        return f"{item.manifest.name} {item.manifest.release}: {sent}, {count(others, 'file')} from this node\n"

    header = "releases to stage"
    after = "".join(text(item) for item in plans if item.missing)
    return {"before_header": header, "after_header": header, "before": "", "after": after}


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **NODE,
            "manifests": {"type": "list", "elements": "str", "required": True},
            "source": {"type": "str", "required": True},
            "source_models_dir": {"type": "path", "required": True},
            "transfer_timeout": {"type": "int", "default": 60},
            "transfer_tries": {"type": "int", "default": 3},
            "transfer_streams": {"type": "int", "default": 10},
            "transfer_bwlimit": {"type": "str", "default": ""},
            "transfer_compress": {"type": "bool", "default": False},
            "phase": {"type": "str", "choices": ["plan", "settle"]},
        },
    )
    # Nothing that is staged is for anybody else to read, whatever the umask of this session.
    os.umask(0o077)
    problems: list[Problem] = []
    told: dict[str, t.Any] = {}
    with module.failing_on_error():
        check_limits(module.params)
        manifests = [Manifest.from_text(manifest) for manifest in module.params["manifests"]]
        arrived = module.params["phase"] == "settle"
        plans = plan_fetches(manifests, module.params["models_dir"], module.params["store"], arrived)
        changed = any(item.missing for item in plans)
        if module.params["phase"] == "plan":
            check_directories(module.params["models_dir"], module.params["store"])
            found = local_rsync(module)
            # The action has the task's arguments alone, without the defaults.
            options = {name: value for name, value in module.params.items() if name.startswith("transfer_")}
            told = {"rsync": found.version, "zstd": found.zstd, "options": options}
            check_space(module.params["store"], plans)
            if not module.check_mode:
                for item in plans:
                    if item.missing:
                        with about(item.manifest.name):
                            prepare(item)
        elif module.params["phase"] == "settle":
            for item in plans:
                if not item.stored:
                    with about(item.manifest.name):
                        problems += verify_staged(item)
        else:
            raise DeliveryError.of(
                "adapter_sync", "was run without its action plugin.", "Call it as lorafleet.delivery.adapter_sync."
            )
        if problems:
            raise DeliveryError(*problems)
    module.exit_json(changed=changed, adapters=[planned(item) for item in plans], diff=diff_of(plans), **told)


if __name__ == "__main__":
    main()
