#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_status
short_description: Say what is active on a node, since when, how it was verified and what differs
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Looks at what the store has recorded and at names and sizes of files. Opens no file of an adapter, so it takes no longer for
    large ones, and cannot see a byte that has changed. M(lorafleet.delivery.adapter_audit) can.
  - Changes nothing and does not need the training server. What differs is returned, the module does not fail for it.
extends_documentation_fragment:
  - lorafleet.delivery._adapters.node
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.node
  check_mode:
    support: full
    details: The module only looks.
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
options:
  names:
    description: The adapters to look at.
    type: list
    elements: str
    required: true
  expected:
    description: All adapters that the inventory names for this node. Those of O(names) when not set.
    type: list
    elements: str
  level:
    description: The least level of the load test that an active release is to have passed on this node.
    type: str
    choices: [structure, adapter, model, golden]
    default: structure
seealso:
  - module: lorafleet.delivery.adapter_audit
"""

EXAMPLES = r"""
- name: What is active here?
  lorafleet.delivery.adapter_status:
    names:
      - llama32_3b_grammar_lora
    models_dir: /home/models
    store: /home/.lorafleet
  register: looked

- name: Say it
  ansible.builtin.debug:
    var: looked.summary
"""

RETURN = r"""
adapters:
  description: What was found of each adapter.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The active release, V(none) when there is none.
      type: str
      sample: 5f1c0f1f0f0b
    digest:
      description: The digest of its files, of which RV(adapters[].release) is the beginning.
      type: str
    size:
      description: Bytes of all its files.
      type: int
      sample: 97307528
    files:
      description: Its files as they were verified, with C(path), C(size) in bytes and C(sha256).
      type: list
      elements: dict
    previous:
      description: The release that a rollback goes to, V(none) when there is none.
      type: str
      sample: 0a9b5d7c6b1e
    since:
      description: When it was made active, V(none) when that is not known.
      type: str
      sample: "2026-01-31T12:00:00+00:00"
    activation:
      description: How C(MODELS_DIR/NAME) leads to the release, V(exchange) or V(symlink).
      type: str
      sample: exchange
    history:
      description: The releases in the store with the time at which each was last made active, the latest at the end.
      type: list
      elements: dict
      sample:
        - release: 0a9b5d7c6b1e
          at: "2026-01-24T12:00:00+00:00"
        - release: 5f1c0f1f0f0b
          at: "2026-01-31T12:00:00+00:00"
    receipt:
      description: What was verified of the active release on this node, V(none) when there is no receipt.
      type: dict
    wrong:
      description: What differs from what was delivered or from O(level), one line each.
      type: list
      elements: str
others:
  description: Adapters in the store or the models directory that O(expected) does not name.
  returned: success
  type: list
  elements: str
  sample: []
summary:
  description: The same for people, a few lines for each adapter and for those that are not named.
  returned: success
  type: dict
  sample:
    llama32_3b_grammar_lora:
      - release 5f1c0f1f0f0b active since 2026-01-31T12:00:00+00:00
      - level golden on cuda:0 NVIDIA H200 verified 2026-01-31T11:59:12+00:00
      - golden distance 0.008, permitted 0.100
      - previous release 0a9b5d7c6b1e
problems:
  description: Why nothing could be said.
  returned: failure
  type: list
  elements: dict
"""

import contextlib
import dataclasses
import os
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.files import CONFIG_FILE
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import NODE
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import golden_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._levels import LEVELS, reaches
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.active import Active, look_at_active
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.compare import differences
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths


def look_at(paths: AdapterPaths, level: str) -> Active:
    """What is active of an adapter, and all that is wrong with it. One that is damaged must not hide the others."""
    try:
        found = look_at_active(paths)
    except DeliveryError as exc:
        return Active(wrong=(f"changed  {exc}",))
    wrong = [*found.wrong]
    if found.receipt is not None and not reaches(found.receipt["level"], level):
        wrong.append(f"lower    level {found.receipt['level']} was verified, the inventory requires {level}")
    if found.manifest is not None:
        for directory in found.directories:
            wrong += [difference.line(directory) for difference in differences(directory, found.manifest, content=False)]
    return dataclasses.replace(found, wrong=tuple(wrong))


def in_words(found: Active) -> list[str]:
    lines = []
    if found.release is not None:
        lines.append(f"release {found.release} active" + (f" since {found.since}" if found.since else ""))
    if found.receipt is not None:
        device = " ".join(str(found.receipt[key]) for key in ("device", "device_name") if found.receipt.get(key))
        place = f" on {device}" if device else ""
        lines.append(f"level {found.receipt['level']}{place} verified {found.receipt.get('at')}")
        if found.receipt.get("distances"):
            lines.append(f"golden distance {found.receipt['distances']['on']:.3f}" + permitted(found))
    if found.previous is not None:
        lines.append(f"previous release {found.previous}")
    return [*lines, *found.wrong]


def permitted(found: Active) -> str:
    """What the golden permits, as far as there still is one."""
    with contextlib.suppress(DeliveryError):
        if found.manifest is not None:
            return f", permitted {golden_of(found.manifest).permitted['on']:.3f}"
    return ""


def not_expected(models_dir: str, store: str, expected: t.Collection[str]) -> list[str]:
    """What looks like an adapter, or was delivered once, and is none of C(expected)."""
    marks = ((models_dir, CONFIG_FILE), (store, "state.json"))
    return sorted(
        {
            name
            for place, mark in marks
            if os.path.isdir(place)
            for name in os.listdir(place)
            if name not in expected and os.path.lexists(os.path.join(place, name, mark))
        }
    )


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **NODE,
            "names": {"type": "list", "elements": "str", "required": True},
            "expected": {"type": "list", "elements": "str"},
            "level": {"type": "str", "choices": list(LEVELS), "default": LEVELS[0]},
        },
    )
    names, models_dir, store = (module.params[option] for option in ("names", "models_dir", "store"))
    try:
        found = {name: look_at(AdapterPaths(models_dir, store, name), module.params["level"]) for name in names}
        summary = {name: in_words(active) for name, active in found.items()}
        others = not_expected(models_dir, store, module.params["expected"] or names)
    except DeliveryError as exc:
        module.fail(exc.problems)
    except OSError as exc:
        error = DeliveryError.of(str(exc.filename), f"cannot be read: {exc.strerror}.", "Run with become.")
        module.fail(error.problems)
    summary.update({name: ["extra    the inventory does not name it for this node"] for name in others})
    adapters = [{"name": name, **active.to_json(), "wrong": list(active.wrong)} for name, active in found.items()]
    module.exit_json(changed=False, adapters=adapters, others=others, summary=summary)


if __name__ == "__main__":
    main()
