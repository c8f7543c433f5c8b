#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_release
short_description: Activate releases of adapters on a node, or roll back to earlier ones
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Serves staged and verified releases as C(MODELS_DIR/NAME). Each adapter is replaced in one
    atomic step.
  - Keeps what the release replaces. A directory with the files of a known release is kept as that
    release in the store. Anything else is moved to C(adopted-TIME) in the store and never deleted.
  - Hashes every file of the release in the store and of C(MODELS_DIR/NAME) in each run, and repairs
    differences from an intact copy on the node.
  - Checks all adapters of the call, and prepares their releases and served copies, before it
    changes what is served of the first one.
  - After a crash at any point, the next run completes or reverts the interrupted step.
  - A release needs a receipt of the load test. See O(required_level).
  - If the node trusts signers (C(/etc/lorafleet/trust)), a release needs a statement in
    O(signatures) that it accepts. What it accepts is recorded before the served directory changes.
    A rollback needs a release that was accepted on this node before, and no statement.
  - A rollback fails before anything is changed if one of O(engines) refuses or misreads the release
    that it would activate, unless O(engine_policy=report).
  - O(engines) does not judge for O(state=active), since M(lorafleet.delivery.adapter_sync) has
    judged what it delivered.
  - A release that an engine with a C(url) lists, or may read again, is not deleted. If such an
    engine does not answer, no release is deleted in this run, and the module warns.
extends_documentation_fragment:
  - lorafleet.delivery._options.node
  - lorafleet.delivery._options.permissions
  - lorafleet.delivery._options.activation
  - lorafleet.delivery._options.signatures
  - lorafleet.delivery._options.engines
  - lorafleet.delivery._options.bases
  - lorafleet.delivery._attributes
attributes:
  action_group:
    membership:
      - lorafleet.delivery.activation
      - lorafleet.delivery.bases
      - lorafleet.delivery.engines
      - lorafleet.delivery.node
      - lorafleet.delivery.permissions
      - lorafleet.delivery.signatures
  check_mode:
    support: full
    details:
      - A release that is not staged or has no receipt is assumed to be staged and verified by
        earlier tasks.
      - Does not probe whether the file system can exchange two directories. See O(activation).
  diff_mode:
    support: full
    details:
      - Shows the number of changed tensors and the changes of the configuration. With C(-vv) it
        lists every tensor and file.
  idempotent:
    support: partial
    details:
      - Two runs of O(state=rolled_back) without O(release) return to the release that was active at
        first.
options:
  state:
    description:
      - V(active) activates the releases in O(manifests).
      - V(rolled_back) activates the previous release of each adapter in O(names), or O(release).
        It needs only the store.
    type: str
    choices: [active, rolled_back]
    default: active
  manifests:
    description:
      - The manifests of the releases to activate, as
        RV(lorafleet.delivery.adapter_info#module:manifests) returns them.
    type: list
    elements: str
  names:
    description: The adapters to roll back.
    type: list
    elements: str
  release:
    description:
      - The release to roll back to instead of the previous one. Requires exactly one adapter in
        O(names).
    type: str
  required_level:
    description: The level of the load test that a release must have passed on this node.
    type: str
    choices: [structure, adapter, model, golden]
    default: structure
  lock_timeout:
    description: Seconds to wait for another run that changes the same adapter.
    type: float
    default: 10
  run:
    description: The name of this run, which is shown to other runs that wait for the adapter.
    type: str
    default: ""
seealso:
  - module: lorafleet.delivery.adapter_sync
  - module: lorafleet.delivery.adapter_load_test
  - module: lorafleet.delivery.adapter_release_info
"""

EXAMPLES = r"""
- name: Activate the described adapters
  lorafleet.delivery.adapter_release:
    models_dir: /home/models
    store: /home/.lorafleet
    manifests: "{{ described.manifests }}"
    required_level: adapter
    owner: root
    group: models

- name: Roll back to the previous release
  lorafleet.delivery.adapter_release:
    models_dir: /home/models
    store: /home/.lorafleet
    state: rolled_back
    names:
      - llama32_3b_grammar_lora

- name: Roll back to a given release
  lorafleet.delivery.adapter_release:
    models_dir: /home/models
    store: /home/.lorafleet
    state: rolled_back
    names:
      - llama32_3b_grammar_lora
    release: 0a1b2c3d4e5f

- name: Roll back to a release that the engine reads as PEFT does, or fail
  lorafleet.delivery.adapter_release:
    models_dir: /home/models
    store: /home/.lorafleet
    state: rolled_back
    names:
      - llama32_3b_grammar_lora
    engines: vllm
"""

RETURN = r"""
adapters:
  description:
    - The adapters, in the order of O(manifests) or O(names).
    - If the module fails, the adapters that it completed before.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The release that is active now.
      type: str
      sample: 0a1b2c3d4e5f
    digest:
      description: The digest of its files. RV(adapters[].release) is its beginning.
      type: str
      sample: 0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9
    made_of:
      description:
        - What a folded adapter was made of, V(none) for an adapter as trained. See
          RV(lorafleet.delivery.adapter_info#module:manifests[].made_of).
      type: dict
    previous:
      description: The release that O(state=rolled_back) would activate, V(none) if there is none.
      type: str
      sample: 9f3c5d7e1a2b
    action:
      description:
        - V(activated) or V(rolled_back) if another release was active before.
        - V(repaired) if the release was active and something differed from it.
        - V(unchanged) if there was nothing to do.
      type: str
      sample: activated
    activation:
      description: How C(MODELS_DIR/NAME) leads to the release, V(exchange) or V(symlink).
      type: str
      sample: exchange
    path:
      description:
        - The directory of the release in the store, whose files never change. Configure the
          inference engine with this path.
      type: str
      sample: /home/.lorafleet/llama32_3b_grammar_lora/releases/0a1b2c3d4e5f
    served:
      description: The path C(MODELS_DIR/NAME), which always leads to the active release.
      type: str
      sample: /home/models/llama32_3b_grammar_lora
    size:
      description: Size of all files of the release in bytes.
      type: int
      sample: 97307528
    files:
      description: The files of the release, with C(path), C(size) in bytes and C(sha256).
      type: list
      elements: dict
    history:
      description:
        - The releases in the store with the time when each was last activated, the latest at the
          end.
      type: list
      elements: dict
      sample:
        - release: 9f3c5d7e1a2b
          at: "2026-01-24T12:00:00+00:00"
        - release: 0a1b2c3d4e5f
          at: "2026-01-31T12:00:00+00:00"
    receipt:
      description:
        - The load test that the release passed on this node. V(none) in check mode if it was not
          tested yet.
      type: dict
      sample:
        level: model
        device: cuda:0
        at: "2026-01-31T12:00:00+00:00"
    engines:
      description:
        - The verdict on each of O(engines), as
          RV(lorafleet.delivery.adapter_sync#module:adapters[].engines). Empty if O(state=active).
      type: list
      elements: dict
    signed:
      description:
        - By whom the release is signed, as
          RV(lorafleet.delivery.adapter_release_info#module:adapters[].signed).
      type: dict
    adopted:
      description:
        - Where an unknown directory that the release replaced was quarantined. V(none) if there was
          none.
        - In check mode, a path of this form.
      type: str
      sample: /home/.lorafleet/llama32_3b_grammar_lora/adopted-20260131T120000Z
    pruned:
      description: Releases that were deleted from the store.
      type: list
      elements: str
      sample: [5e6f7a8b9c0d]
    drift:
      description: What differed from the release that was active already, one line each.
      type: list
      elements: str
      sample:
        - changed  /home/models/llama32_3b_grammar_lora/adapter_model.safetensors  sha256
          0a1b2c3d4e5f.. instead of 9f3c5d7e1a2b..
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
      description: The adapter, release, file or option.
      type: str
      sample: adapter llama32_3b_grammar_lora, release 0a1b2c3d4e5f
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
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import (
    ACTIVATION,
    BASES,
    ENGINES,
    NODE,
    PERMISSIONS,
    SIGNATURES,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._levels import LEVELS
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._names import is_release_name
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import permissions_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import ActivationOptions, Plan, Request
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.prediction import AdapterResult
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.transaction import carry_out, diff_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import is_set_up


def _requests(params: dict[str, t.Any]) -> list[Request]:
    """Return one request per adapter. Raises DeliveryError for a bad manifest, name or release."""

    def paths(name: str) -> AdapterPaths:
        return AdapterPaths(params["models_dir"], params["store"], name)

    if params["state"] == "active":
        manifests = [Manifest.from_argument(text) for text in params["manifests"]]
        return [Request(paths(manifest.name), manifest=manifest) for manifest in manifests]
    release = params["release"]
    if release is not None and (len(params["names"]) != 1 or not is_release_name(release)):
        raise DeliveryError.of(
            f"release {release}",
            "is not a valid release ID.",
            "Set `release` to 12 hexadecimal digits and `names` to exactly one adapter.",
        )
    return [Request(paths(name), release=release) for name in params["names"]]


def _in_engines(module: DeliveryModule) -> t.Callable[[str], frozenset[str] | None]:
    """Return a function that returns the releases of an adapter that engines use."""
    if not module.params["engines"]:
        return lambda _name: frozenset()
    # Most nodes have none with a url.
    from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines
    from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.table import client_of
    from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.in_use import releases_in_use
    from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.node_engine import node_engines

    store = module.params["store"]
    engines = node_engines(declared_engines(module.params["engines"], "engines"), store, client_of)
    used = releases_in_use((engine.options.title, engine.client, engine.paths) for engine in engines)
    for sentence in used.silent:
        module.warn(f"No release is deleted, because it is not known which ones are in use. {sentence}")
    return lambda name: used.releases(store, name)


class _Acceptance:
    """Accepts or refuses the planned releases of a node that trusts signers. Accepts all elsewhere.

    Raises DeliveryError.
    """

    def __init__(self, params: dict[str, t.Any]) -> None:
        self._accepted: dict[str, t.Any] = {}
        self._acceptance: t.Any = None
        # By whom each release is signed, by the name of its adapter.
        self.signed: dict[str, dict[str, t.Any]] = {}
        if params["signed"] or is_set_up():
            # What verifies signatures takes milliseconds to load.
            from ansible_collections.lorafleet.delivery.plugins.module_utils._signing import acceptance, serials

            self._acceptance = acceptance.Acceptance.of_options(params)
            self._read, self._write, self._entry = serials.read_record, acceptance.record_accepted, acceptance.signed_entry

    def check(self, plan: Plan) -> None:
        if self._acceptance is None:
            return
        paths, manifest = plan.request.paths, plan.manifest
        record = self._read(paths.accepted)
        if plan.request.manifest is None:
            self._acceptance.accept_return(manifest, record)
            accepted = None if record is None else record.of(manifest.digest)
        else:
            active = plan.before.active == manifest.release
            accepted = self._accepted[paths.name] = self._acceptance.accept(manifest, record, active)
        self.signed[paths.name] = self._entry(accepted)

    def record(self, plan: Plan) -> None:
        """Record what was accepted, durably."""
        paths = plan.request.paths
        if self._accepted.get(paths.name) is not None:
            self._write(paths.accepted, self._accepted[paths.name], paths.release_names())


def _options(module: DeliveryModule, acceptance: _Acceptance) -> ActivationOptions:
    params = module.params
    return ActivationOptions(
        required_level=params["required_level"],
        activation=params["activation"],
        keep=params["keep"],
        permissions=permissions_of(params),
        run=params["run"],
        lock_timeout=params["lock_timeout"],
        in_engines=_in_engines(module),
        before_swap=acceptance.record,
    )


def _judge(module: DeliveryModule, verdicts: dict[str, list[dict[str, t.Any]]]) -> t.Callable[[Manifest], None] | None:
    """Return a function that adds the verdicts on a release to ``verdicts``, by its adapter's name.

    The function raises DeliveryError if an engine blocks the release. Returns None unless
    engines are to judge.
    """
    if module.params["state"] == "active" or not module.params["engines"]:
        return None
    # As in adapter_up_to_date_info.
    from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.judgement import Judge, config_of_base

    judge = Judge(module.params)
    for missing in judge.missing:
        module.warn(str(missing))

    def check(manifest: Manifest) -> None:
        judgement = judge.judge(manifest, config_of_base(manifest, module.params["bases"]))
        problems = judgement.problems("roll back to it")
        if problems:
            raise DeliveryError(*problems)
        for warning in judgement.warnings():
            module.warn(warning)
        verdicts[manifest.name] = judgement.engines()

    return check


def main() -> None:
    module = DeliveryModule(
        argument_spec={
            **NODE,
            **PERMISSIONS,
            **ACTIVATION,
            **ENGINES,
            **BASES,
            **SIGNATURES,
            "state": {"type": "str", "choices": ["active", "rolled_back"], "default": "active"},
            "manifests": {"type": "list", "elements": "str"},
            "names": {"type": "list", "elements": "str"},
            "release": {"type": "str"},
            "required_level": {"type": "str", "choices": list(LEVELS), "default": LEVELS[0]},
            "lock_timeout": {"type": "float", "default": 10},
            "run": {"type": "str", "default": ""},
        },
        required_if=[("state", "active", ("manifests",)), ("state", "rolled_back", ("names",))],
        required_by={"release": ("names",)},
        mutually_exclusive=[("manifests", "names")],
    )
    done: list[AdapterResult] = []
    verdicts: dict[str, list[dict[str, t.Any]]] = {}
    signed: dict[str, dict[str, t.Any]] = {}

    def entry(outcome: AdapterResult) -> dict[str, t.Any]:
        name = outcome.plan.manifest.name
        return {**outcome.to_json(), "engines": verdicts.get(name, []), "signed": signed.get(name)}

    def result() -> dict[str, t.Any]:
        return {
            "changed": any(outcome.changed for outcome in done),
            "adapters": [entry(outcome) for outcome in done],
            "diff": [diff_of(outcome, complete=module._verbosity >= 2) for outcome in done],
        }

    try:
        acceptance = _Acceptance(module.params)
        signed = acceptance.signed
        judge = _judge(module, verdicts)

        def check(plan: Plan) -> None:
            acceptance.check(plan)
            if judge is not None:
                judge(plan.manifest)

        carry_out(_requests(module.params), _options(module, acceptance), module.check_mode, done, check)
    except DeliveryError as exc:
        module.fail(exc.problems, **result())
    module.exit_json(**result())


if __name__ == "__main__":
    main()
