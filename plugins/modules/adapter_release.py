#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module adapter_release: options in, results out; the work is in module_utils/_transaction.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_release
short_description: Make releases of adapters active on a node, or go back to earlier ones
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Makes staged and verified releases the ones that C(MODELS_DIR/NAME) opens, in one step each.
  - What stood there before is kept. It stays a release in the store where its bytes are those of a known manifest,
    otherwise it is set aside as C(adopted-TIME) in the store and never deleted.
  - Every byte of the release in the store and of the directory at C(MODELS_DIR/NAME) is hashed in every run.
    What differs is repaired from a whole copy on the node.
  - All adapters of the call are checked before the first one is changed.
  - After a crash at any point, the next run finishes or takes back what was begun.
  - A release needs a receipt of the load test. See O(level).
extends_documentation_fragment:
  - lorafleet.delivery._adapters.node
  - lorafleet.delivery._adapters.permissions
  - lorafleet.delivery._adapters.activation
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.activation
      - lorafleet.delivery.node
      - lorafleet.delivery.permissions
  check_mode:
    support: full
    details:
      - A release that is not staged, or has no receipt, is taken to be brought and verified by the tasks before.
      - Whether the file system can exchange is not probed. See O(activation).
  diff_mode:
    support: full
    details: Counts tensors and says what changed in the config. With C(-vv) it names every tensor and file.
  idempotent:
    support: partial
    details:
      - O(state=rolled_back) without O(release) goes to the previous release, so doing it twice returns.
options:
  state:
    description:
      - V(active) makes the releases of O(manifests) active.
      - V(rolled_back) goes back to the previous release of each of O(names), or to O(release).
        It needs nothing but the store.
    type: str
    choices: [active, rolled_back]
    default: active
  manifests:
    description: The manifests of the releases to make active, as RV(lorafleet.delivery.adapter_info#module:manifests) gives them.
    type: list
    elements: str
  names:
    description: The adapters to roll back.
    type: list
    elements: str
  release:
    description: The release to go back to, instead of the previous one. Only with a single one in O(names).
    type: str
  level:
    description: The least level of the load test that a release must have passed on this node.
    type: str
    choices: [structure, adapter, model, golden]
    default: structure
  lock_timeout:
    description: How many seconds to wait for another run that changes the same adapter.
    type: float
    default: 10
  run:
    description: Who runs this. It is shown to a run that finds an adapter locked by this one.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Make the frozen adapters active
  lorafleet.delivery.adapter_release:
    models_dir: /home/models
    store: /home/.lorafleet
    manifests: "{{ described.manifests }}"
    level: adapter
    owner: root
    group: models

- name: Go back to the release before, without the training server
  lorafleet.delivery.adapter_release:
    models_dir: /home/models
    store: /home/.lorafleet
    state: rolled_back
    names:
      - llama32_3b_grammar_lora

- name: Go back to a certain release
  lorafleet.delivery.adapter_release:
    models_dir: /home/models
    store: /home/.lorafleet
    state: rolled_back
    names:
      - llama32_3b_grammar_lora
    release: 0a1b2c3d4e5f
"""

RETURN = r"""
adapters:
  description:
    - One entry for each adapter, in the order of O(manifests) or O(names).
    - When the module fails, only those that were done before.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The release that is active now.
      type: str
      sample: 0a1b2c3d4e5f
    digest:
      description: The digest of its files, of which RV(adapters[].release) is the beginning.
      type: str
      sample: 0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9
    previous:
      description: The release that O(state=rolled_back) would go to, V(none) when there is none.
      type: str
      sample: 9f3c5d7e1a2b
    action:
      description:
        - V(activated) or V(rolled_back) when another release was active before.
        - V(repaired) when it was active already and something had drifted.
        - V(unchanged) when nothing had to be done to it.
      type: str
      sample: activated
    activation:
      description: How C(MODELS_DIR/NAME) leads to the release, V(exchange) or V(symlink).
      type: str
      sample: exchange
    path:
      description: The directory of the release itself, which never has other bytes. This is what an engine is to be given.
      type: str
      sample: /home/.lorafleet/llama32_3b_grammar_lora/releases/0a1b2c3d4e5f
    live:
      description: What people open.
      type: str
      sample: /home/models/llama32_3b_grammar_lora
    size:
      description: Bytes of all files of the release.
      type: int
      sample: 97307528
    files:
      description: The files of the release, with C(path), C(size) in bytes and C(sha256).
      type: list
      elements: dict
    history:
      description: The releases in the store with the time at which each was last made active, the latest at the end.
      type: list
      elements: dict
      sample:
        - release: 9f3c5d7e1a2b
          at: "2026-01-24T12:00:00+00:00"
        - release: 0a1b2c3d4e5f
          at: "2026-01-31T12:00:00+00:00"
    receipt:
      description: What was verified of the release on this node. V(none) in check mode when it was not verified yet.
      type: dict
      sample:
        level: model
        device: cuda:0
        at: "2026-01-31T12:00:00+00:00"
    adopted:
      description:
        - Where something unknown that stood in the way was set aside.
        - In check mode a name of this kind. V(none) when there was nothing.
      type: str
      sample: /home/.lorafleet/llama32_3b_grammar_lora/adopted-20260131T120000Z
    pruned:
      description: Releases that were deleted from the store.
      type: list
      elements: str
      sample: [5e6f7a8b9c0d]
    drift:
      description: What was found to differ from the release that was active already, one line each.
      type: list
      elements: str
      sample:
        - changed  /home/models/llama32_3b_grammar_lora/adapter_model.safetensors  sha256 0a1b2c3d4e5f.. instead of 9f3c5d7e1a2b..
problems:
  description: What went wrong.
  returned: failure
  type: list
  elements: dict
  contains:
    subject:
      description: The adapter, release or file.
      type: str
      sample: llama32_3b_grammar_lora, release 0a1b2c3d4e5f
    problem:
      description: What is wrong with it.
      type: str
      sample: was not verified on this node, level model is required.
    remedy:
      description: What to do.
      type: str
      sample: Run the load test at that level first; nothing was activated.
"""

import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import ACTIVATION, NODE, PERMISSIONS
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._levels import LEVELS
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._names import is_release_name
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import permissions_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import Options, Request
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.transaction import Outcome, carry_out


def _requests(params: dict[str, t.Any]) -> list[Request]:
    def paths(name: str) -> AdapterPaths:
        return AdapterPaths(params["models_dir"], params["store"], name)

    if params["state"] == "active":
        manifests = [Manifest.from_text(text) for text in params["manifests"]]
        return [Request(paths(manifest.name), manifest=manifest) for manifest in manifests]
    release = params["release"]
    if release is not None and (len(params["names"]) != 1 or not is_release_name(release)):
        raise DeliveryError.of(
            f"release {release}", "does not fit.", "Give the 12 digits of one release, and the one adapter that it is of."
        )
    return [Request(paths(name), release=release) for name in params["names"]]


def _options(params: dict[str, t.Any]) -> Options:
    return Options(
        level=params["level"],
        activation=params["activation"],
        keep=params["keep"],
        permissions=permissions_of(params),
        run=params["run"],
        lock_timeout=params["lock_timeout"],
    )


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **NODE,
            **PERMISSIONS,
            **ACTIVATION,
            "state": {"type": "str", "choices": ["active", "rolled_back"], "default": "active"},
            "manifests": {"type": "list", "elements": "str"},
            "names": {"type": "list", "elements": "str"},
            "release": {"type": "str"},
            "level": {"type": "str", "choices": list(LEVELS), "default": LEVELS[0]},
            "lock_timeout": {"type": "float", "default": 10},
            "run": {"type": "str", "default": ""},
        },
        required_if=[("state", "active", ("manifests",)), ("state", "rolled_back", ("names",))],
        required_by={"release": ("names",)},
        mutually_exclusive=[("manifests", "names")],
    )
    done: list[Outcome] = []

    def result() -> dict[str, t.Any]:
        return {
            "changed": any(outcome.changed for outcome in done),
            "adapters": [outcome.to_json() for outcome in done],
            "diff": [outcome.diff(complete=module._verbosity >= 2) for outcome in done],
        }

    try:
        carry_out(_requests(module.params), _options(module.params), module.check_mode, done)
    except DeliveryError as exc:
        module.fail(exc.problems, **result())
    module.exit_json(**result())


if __name__ == "__main__":
    main()
