#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_serve
short_description: Make the inference engines of a node serve the active releases, and prove that they do
version_added: 0.2.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Loads the active release of each adapter into the engines of the node that have a C(url), under
    the name C(NAME@DIGEST12) and from its own directory in O(store).
  - Proves it there with the golden of the release. The engine answers the recorded questions with
    the adapter and without it, and the answers must have the recorded distance from each other. The
    base and all other adapters must answer as before.
  - Switches the public name C(NAME) to it, where the engine does that safely, and proves that name
    again, through the prefix cache and without it. Where the engine does not, a gateway has to lead
    C(NAME) to C(NAME@DIGEST12).
  - Records what is served, and unloads the release before it once its answers have ended. Where a
    gateway leads to names of releases, that one stays loaded until the next release is served.
  - If anything fails, returns to the release that was served before, proves that one and fails with
    both figures. All of this happens in one call on the node. If that call is killed, the next one
    returns to what was recorded.
  - A release that the engine has already is proved again. So a second run after a restart of the
    engine loads what is missing.
  - Needs neither the training server nor the inventory's declarations.
extends_documentation_fragment:
  - lorafleet.delivery._options.node
  - lorafleet.delivery._options.permissions
  - lorafleet.delivery._options.activation
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.activation
      - lorafleet.delivery.bases
      - lorafleet.delivery.node
      - lorafleet.delivery.permissions
  check_mode:
    support: full
    details:
      - Compares the lists of the engines with the active releases, and asks for no answers.
      - RV(adapters[].action) is then what would be done, and RV(adapters[].served) what the engine
        has now.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  names:
    description: Names of the adapters.
    type: list
    elements: str
    required: true
  engines:
    description:
      - The engines of the node, as in O(lorafleet.delivery.adapter_sync#module:engines). Those with
        a C(url) load and serve the adapters of their base.
      - C(url) must be an address of this node, unless C(allow_remote) is V(true). C(api_key_file) is
        a file on the node that contains the engine's API key.
      - C(base) is the name of the base that the engine has, a key of O(bases). It is needed where
        the engine's own list does not tell.
      - C(public_name) is V(alias) (default) if the engine has the names of the adapters, or V(none)
        if a gateway leads them to the names of releases. Then the release before stays loaded.
      - C(drain_timeout) is the number of seconds to wait for answers of the old release (60),
        C(start_timeout) that for an engine that starts (300), and C(probe_timeout) that for the
        questions about one adapter (300).
      - C(restart) is a systemd unit, or the arguments of a program. It is run for an engine that
        cannot load adapters at run time. For others, messages quote it.
      - C(convert) are the arguments of a program that turns a release into a GGUF file, for
        llama-server. The directory of the release and the path of the file follow.
    type: raw
    required: true
  failure:
    description:
      - What becomes of the files of an adapter whose release is not served.
      - V(previous) activates the release that the engine has gone back to. A later rollback leads
        to the one before it, not to the refused one.
      - V(keep) leaves the new one active.
    type: str
    choices: [previous, keep]
    default: previous
  lock_timeout:
    description: Seconds to wait for another run that tells the same engine something.
    type: float
    default: 10
  run:
    description: The name of this run, which is shown to other runs that wait.
    type: str
    default: ""
seealso:
  - module: lorafleet.delivery.adapter_release
  - module: lorafleet.delivery.adapter_serve_info
"""

EXAMPLES = r"""
- name: Serve the active releases
  lorafleet.delivery.adapter_serve:
    models_dir: /home/models
    store: /home/.lorafleet
    names:
      - llama32_3b_grammar_lora
    engines:
      - name: vllm
        url: http://127.0.0.1:8000
        dtype: bfloat16

- name: Serve releases under names that a gateway leads to
  lorafleet.delivery.adapter_serve:
    models_dir: /home/models
    store: /home/.lorafleet
    names: "{{ adapters }}"
    engines:
      name: vllm
      url: http://127.0.0.1:8000
      api_key_file: /etc/vllm/api_key
      public_name: none
    failure: keep
"""

RETURN = r"""
adapters:
  description: The adapters, one entry for each engine that was to serve them.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The release that was to be served.
      type: str
      sample: 0a1b2c3d4e5f
    engine:
      description: The engine.
      type: str
      sample: vllm
    url:
      description: Its address.
      type: str
      sample: http://127.0.0.1:8000
    version:
      description: Its version, V(none) if it does not tell.
      type: str
      sample: 0.32.0
    action:
      description:
        - V(served) if the engine serves the release now, V(unchanged) if it did before.
        - V(went back) if it serves what it served before, V(failed) if what it serves is not known.
      type: str
      sample: served
    served:
      description: The release that the engine serves now, V(none) if there is none.
      type: str
      sample: 0a1b2c3d4e5f
    names:
      description: The names that the engine has for RV(adapters[].release).
      type: list
      elements: str
      sample: [llama32_3b_grammar_lora]
    root:
      description: The directory that the engine loaded.
      type: str
      sample: /home/.lorafleet/llama32_3b_grammar_lora/releases/0a1b2c3d4e5f
    proof:
      description:
        - V(served) if the engine has answered as the golden demands. V(unproved) if it only has
          answers other than those of the base. V(none) if the release is not served.
      type: str
      sample: served
    why_unproved:
      description: Why a release is V(unproved).
      type: str
      sample: It has no golden. Record one on the training server with adapter_golden and deploy again.
    why:
      description: Why the release is not served, V(none) if it is.
      type: str
    previous:
      description:
        - The release that was served before, which stays loaded under its own name for a gateway
          that still leads to it. V(none) without a gateway.
      type: str
      sample: 1b2c3d4e5f60
    figures:
      description:
        - The C(distances) of the answers from the golden, the C(permitted) ones, and the number of
          compared C(tokens). V(none) without a golden.
      type: dict
    seconds:
      description: The seconds of each step.
      type: dict
      sample: {load: 0.3, probe: 1.2, switch: 0.2}
    notes:
      description: What else is to be known.
      type: list
      elements: str
notes:
  description: What is to be known about the engines.
  returned: always
  type: list
  elements: str
rolled_back:
  description: The adapters whose earlier release was activated again.
  returned: always
  type: list
  elements: str
problems:
  description: What went wrong, one entry for each problem.
  returned: failure
  type: list
  elements: dict
  contains:
    adapter:
      description: The adapter that the problem belongs to, V(none) if it belongs to the host.
      type: str
      sample: llama32_3b_grammar_lora
    subject:
      description: The adapter, engine, file or option.
      type: str
      sample: adapter llama32_3b_grammar_lora, engine vllm at http://127.0.0.1:8000
    problem:
      description: What is wrong with it.
      type: str
    remedy:
      description: What to do.
      type: str
"""

import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import ACTIVATION, BASES, NODE, PERMISSIONS
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._levels import LEVELS
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.table import client_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.node import Node
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.node_engine import node_engines
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import permissions_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import ActivationOptions, Request
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.transaction import carry_out


def _going_back(node: Node, params: dict[str, t.Any]) -> t.Callable[[str, str], None] | None:
    """Return a function that activates an earlier release, None if the files stay."""
    if params["failure"] == "keep":
        return None
    options = ActivationOptions(
        # It was verified when it was deployed.
        required_level=LEVELS[0],
        activation=params["activation"],
        keep=params["keep"],
        permissions=permissions_of(params),
        run=params["run"],
        lock_timeout=params["lock_timeout"],
        # The next activation prunes: the engines that it asks are told something else now.
        in_engines=lambda _name: None,
    )

    def go_back(name: str, release: str) -> None:
        carry_out([Request(node.paths(name), release=release, refused=True)], options, False, [])

    return go_back


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **NODE,
            **PERMISSIONS,
            **ACTIVATION,
            **BASES,
            "names": {"type": "list", "elements": "str", "required": True},
            "engines": {"type": "raw", "required": True},
            "failure": {"type": "str", "choices": ["previous", "keep"], "default": "previous"},
            "lock_timeout": {"type": "float", "default": 10},
            "run": {"type": "str", "default": ""},
        },
    )
    params = module.params
    node = Node(params["models_dir"], params["store"], params["bases"])
    with module.failing_on_error():
        engines = node_engines(declared_engines(params["engines"], "engines"), params["store"], client_of)
        if not engines:
            raise DeliveryError.of("engines", "has no engine with a url.", "Add the url that an engine serves adapters at.")
        result = node.serve(
            engines, params["names"], _going_back(node, params), params["run"], params["lock_timeout"], module.check_mode
        )
    for note in (*result["notes"], *(note for entry in result["adapters"] for note in entry["notes"])):
        module.warn(note)
    problems = result["problems"]
    done = {key: value for key, value in result.items() if key != "problems"}
    if problems:
        module.fail(problems, **done)
    module.exit_json(**done)


if __name__ == "__main__":
    main()
