#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_golden
short_description: Record what LoRA adapters answer where they were trained
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Runs on the training server. Loads each adapter as M(lorafleet.delivery.adapter_load_test) does at its level V(model), lets
    it answer its prompts greedily, and records the log-probabilities of the likeliest tokens along those answers, with the
    adapter and without it. That is the adapter's golden.
  - The tokenizer and its chat template are used here alone. What is recorded are token ids, so that nodes need neither.
  - A golden belongs to the digest of the release that it was recorded of. It lies in O(golden_dir) and not in the adapter's
    directory, so it changes no digest, and M(lorafleet.delivery.adapter_info) puts it into the manifest.
  - A golden is kept as long as release, base, prompts and O(length) stay the same. Goldens of earlier releases stay where
    they are, so that a release that comes back has its own.
extends_documentation_fragment:
  - lorafleet.delivery._adapters
  - lorafleet.delivery._adapters.source
  - lorafleet.delivery._adapters.loading
  - lorafleet.delivery._attributes
attributes:
  check_mode:
    support: full
    details: Nothing is loaded, and nothing is written.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  prompts:
    description:
      - For each adapter the prompts that it answers, four or more of the kind that it was trained for.
      - Each is a text, which is taken as it stands, or a dictionary with C(user) and optionally C(system), to which the chat
        template of the adapter's tokenizer is applied.
    type: dict
    required: true
  length:
    description: How many tokens of each answer are recorded at most. An answer that ends before is recorded to its end.
    type: int
    default: 16
  python:
    description: The interpreter of the training environment. It must have torch, transformers, peft and safetensors.
    type: path
    required: true
  timeout:
    description: Seconds that the child process may take for all adapters together.
    type: int
    default: 3600
  force:
    description: Record anew even where a golden is there.
    type: bool
    default: false
seealso:
  - module: lorafleet.delivery.adapter_info
  - module: lorafleet.delivery.adapter_load_test
"""

EXAMPLES = r"""
- name: Record what the cleaner answers on the training server
  lorafleet.delivery.adapter_golden:
    models_dir: /home/models
    adapters:
      - name: llama32_3b_grammar_lora
        base: meta-llama/Llama-3.2-3B-Instruct
        rank: 16
        alpha: 32
    bases:
      meta-llama/Llama-3.2-3B-Instruct:
        path: /data/base/Llama-3.2-3B-Instruct
    prompts:
      llama32_3b_grammar_lora:
        - user: "Correct the grammar: She go to school every day."
        - user: "Correct the grammar: He have two brother."
        - user: "Correct the grammar: I am agree with you."
        - user: "Correct the grammar: They was late for the meeting."
    python: /opt/training/bin/python
"""

RETURN = r"""
adapters:
  description: The golden of each adapter, in the order of O(adapters), but for those that have a problem.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The release that the golden is of.
      type: str
      sample: 5f1c0f1f0f0b
    action:
      description: V(recorded) now (in check mode, would be), or V(kept) as it was.
      type: str
      sample: recorded
    path:
      description: Where the golden lies.
      type: str
      sample: /home/trainer/.local/share/lorafleet/goldens/llama32_3b_grammar_lora/5f1c0f1f0f0b.json
    positions:
      description: How many tokens nodes compare. Not set in check mode where it is to be recorded.
      type: int
      sample: 64
    recorded:
      description: When and with what it was recorded - C(at), C(device), C(device_name), C(dtype), C(attention), C(versions).
      type: dict
    noise:
      description: What the training server differed by from itself with another attention kernel, by its name.
      type: dict
      sample:
        eager: {"on": 0.0081, "off": 0.0362, "direction": 0.9999, "strength": 1.0012, "top1": 1.0}
    permitted:
      description: What a node may differ by.
      type: dict
      sample: {"on": 0.12, "off": 0.08, "direction": 0.98, "strength": 0.1}
seconds:
  description: Seconds that the child process took. 0 when none was started.
  returned: always
  type: float
  sample: 64.2
problems:
  description: What is wrong, one entry for each thing, over all adapters.
  returned: failure
  type: list
  elements: dict
  sample:
    - subject: adapter llama32_3b_grammar_lora
      problem: has no prompt(s), 4 or more are needed.
      remedy: Give it more in the inventory (agent_prompts), of the kind that it was trained for.
"""

import dataclasses
import datetime
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import DECLARED, LOADING, SOURCE
from ansible_collections.lorafleet.delivery.plugins.module_utils._base_identity import Identities, differences
from ansible_collections.lorafleet.delivery.plugins.module_utils._base_model import with_config
from ansible_collections.lorafleet.delivery.plugins.module_utils._declared import Declared
from ansible_collections.lorafleet.delivery.plugins.module_utils._describe import cache_entry, describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden import (
    Golden,
    distances,
    golden_path,
    permitted,
    read_golden,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test import (
    LoadTest,
    Target,
    check_device,
    digest_of,
    load_test,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._store import write_json

# How many tokens are compared at each position, with the adapter and without it.
TOP = 20
# Along the tokens of fewer answers noise is not told from what is wrong.
LEAST_PROMPTS = 4


@dataclasses.dataclass
class Case:
    """One adapter: what it is, what it is to answer, the golden that is there and the one that was recorded now."""

    declared: Declared
    directory: str
    manifest: Manifest
    base_path: str
    base: dict[str, t.Any]
    prompts: list[t.Any]
    prompts_digest: str
    before: t.Optional[Golden]
    record: bool
    recorded: t.Optional[Golden] = None

    @property
    def subject(self) -> str:
        return f"adapter {self.declared.name}"

    def target(self, length: int) -> Target:
        return Target(
            name=self.declared.name,
            directory=self.directory,
            weights_file=self.manifest.weights_file,
            level="model",
            base_config=None,
            base_path=self.base_path,
            allow_pickle=self.declared.allow_pickle,
            recording={"prompts": self.prompts, "length": length, "top": TOP},
        )

    def result(self, golden_dir: str) -> dict[str, t.Any]:
        golden = self.recorded if self.record else self.before
        return {
            "name": self.declared.name,
            "release": self.manifest.release,
            "action": "recorded" if self.record else "kept",
            "path": golden_path(golden_dir, self.declared.name, self.manifest.release),
            "positions": golden and golden.positions,
            **{key: golden and getattr(golden, key) for key in ("recorded", "noise", "permitted")},
        }


def prompts_of(subject: str, prompts: t.Any) -> list[t.Any]:
    """The prompts as they were given, known to be of a form that can be asked. Raises DeliveryError."""
    given = prompts if isinstance(prompts, list) else []
    if len(given) < LEAST_PROMPTS:
        raise DeliveryError.of(
            subject,
            f"has {len(given) or 'no'} prompt(s), {LEAST_PROMPTS} or more are needed.",
            "Give it more in the inventory (agent_prompts), of the kind that it was trained for.",
        )
    for prompt in given:
        words = list(prompt.values()) if isinstance(prompt, dict) else [prompt]
        keys = set(prompt) if isinstance(prompt, dict) else {"user"}
        if not {"user"} <= keys <= {"user", "system"} or not all(isinstance(word, str) and word for word in words):
            remedy = "Give a text, or a dictionary with user and perhaps system."
            raise DeliveryError.of(subject, f"has a prompt of an unknown form: {prompt!r}.", remedy)
    return given


def case_of(params: dict[str, t.Any], row: dict[str, t.Any], identities: Identities, remember: bool) -> Case:
    """What is to be recorded for one row of the inventory. Raises DeliveryError."""
    base = with_config({row["base"]: params["bases"].get(row["base"]) or {}})[row["base"]]
    declared = Declared.from_row(row, base)
    subject = f"adapter {declared.name}"
    prompts = prompts_of(subject, params["prompts"].get(declared.name))
    identity = identities.at(base.get("path"))
    if identity is None:
        raise DeliveryError.of(
            subject,
            f"cannot be recorded: base {declared.base} has no path on this host.",
            "Set the base's path for the training server (training_bases).",
        )
    directory = os.path.join(params["models_dir"], declared.name)
    manifest = describe(directory, declared, {}, cache_entry(params["cache_dir"], directory), remember).manifest
    prompts_digest = digest_of([prompts, params["length"]])
    try:
        before = read_golden(params["golden_dir"], manifest)
    except DeliveryError:
        # Of another form, or damaged: it is recorded anew.
        before = None
    stands = before is not None and before.prompts == prompts_digest and not differences(before.base, identity)[0]
    return Case(
        declared=declared,
        directory=directory,
        manifest=manifest,
        base_path=base["path"],
        base=identity,
        prompts=prompts,
        prompts_digest=prompts_digest,
        before=before,
        record=params["force"] or not stands,
    )


def golden_from(case: Case, report: dict[str, t.Any], versions: dict[str, str]) -> Golden:
    """The golden that a report of the child holds. Raises DeliveryError when there is none, or it is of no use."""
    where = f"on {report['device']}"
    if report["problems"]:
        raise DeliveryError(
            *(Problem(case.subject, f"was not recorded {where}: {one['problem']}", one["remedy"]) for one in report["problems"])
        )
    if report["recorded"] is None:
        remedy = f"Make room on {report['device']}, or name another device."
        raise DeliveryError.of(case.subject, f"was not recorded {where}: {report['why_not_more']}", remedy)
    found = report["recorded"]
    # The same kernel once more gives the same bits; a model that has no other kernel tells nothing of its noise.
    noise = {found["other_attention"]: distances(found["answer"], found["other"])} if found["other"] else {}
    try:
        limits = permitted(list(noise.values()))
    except DeliveryError as exc:
        raise DeliveryError(*(dataclasses.replace(one, subject=f"golden of {case.subject}") for one in exc.problems)) from None
    return Golden(
        name=case.declared.name,
        digest=case.manifest.digest,
        prompts=case.prompts_digest,
        base=case.base,
        recorded={
            "at": datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds"),
            "device": report["device"],
            "device_name": report["device_name"],
            "dtype": report["dtype"],
            "attention": found["attention"],
            "versions": {**versions, **({"driver": report["driver"]} if report.get("driver") else {})},
        },
        questions=found["questions"],
        answer=found["answer"],
        noise={name: one.to_json() for name, one in noise.items()},
        permitted=limits,
    )


def keep(params: dict[str, t.Any], case: Case, outcome: LoadTest) -> None:
    """Write down what was recorded of one adapter. Raises DeliveryError."""
    name = case.declared.name
    if name not in outcome.reports:
        raise DeliveryError.of(case.subject, "was not recorded, because the run broke off.", "The cause stands above.")
    golden = golden_from(case, outcome.reports[name], outcome.versions)
    # What answered must be what the digest was made of.
    cache = cache_entry(params["cache_dir"], case.directory)
    if describe(case.directory, case.declared, {}, cache).manifest.digest != golden.digest:
        raise DeliveryError.of(case.subject, "changed while it was recorded.", "Wait until the training has ended, record again.")
    path = golden_path(params["golden_dir"], name, case.manifest.release)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write_json(path, golden.to_json())
    except OSError as exc:
        raise DeliveryError.of(path, f"cannot be written: {exc.strerror}.", "Correct training_golden_dir.") from exc
    case.recorded = golden


def said(case: Case, after: bool) -> str:
    """One line of the diff."""
    words = "no golden"
    if after:
        words = f"a golden of {len(case.prompts)} prompts"
    elif case.before is not None:
        words = f"a golden recorded at {case.before.recorded['at']} on {case.before.recorded['device_name']}"
    return f"{case.declared.name} {case.manifest.release}: {words}\n"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DECLARED,
            **SOURCE,
            **LOADING,
            "prompts": {"type": "dict", "required": True},
            "length": {"type": "int", "default": 16},
            "python": {"type": "path", "required": True},
            "timeout": {"type": "int", "default": 3600},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        check_device(params["device"])
    except DeliveryError as exc:
        module.fail_json(msg=str(exc), problems=exc.to_json())
    if params["length"] < 1:
        module.fail_json(msg=f"length is {params['length']}: expected 1 or more.")
    cases: list[Case] = []
    problems: list[Problem] = []
    identities = Identities()
    for row in params["adapters"]:
        try:
            cases.append(case_of(params, row, identities, not module.check_mode))
        except DeliveryError as exc:
            problems.extend(exc.problems)

    due = [case for case in cases if case.record]
    diff = {
        "before_header": "goldens",
        "after_header": "goldens",
        **{key: "".join(said(case, key == "after") for case in due) for key in ("before", "after")},
    }
    seconds = 0.0
    if due and not module.check_mode:
        targets = [case.target(params["length"]) for case in due]
        limit = params["memory_limit"]
        outcome = load_test(params["python"], params["device"], targets, params["timeout"], module.tmpdir, memory_limit=limit)
        problems.extend(outcome.problems)
        seconds = outcome.seconds
        for case in due:
            try:
                keep(params, case, outcome)
            except DeliveryError as exc:
                problems.extend(exc.problems)
                cases.remove(case)
    results: dict[str, t.Any] = {
        "changed": any(case.record for case in cases),
        "adapters": [case.result(params["golden_dir"]) for case in cases],
        "seconds": seconds,
        "diff": diff,
    }
    if problems:
        error = DeliveryError(*problems)
        module.fail_json(msg=str(error), problems=error.to_json(), **results)
    module.exit_json(**results)


if __name__ == "__main__":
    main()
