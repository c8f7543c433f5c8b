#!/usr/bin/python
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: adapter_load_test
short_description: Load LoRA adapters with PEFT on the device that will serve them
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Loads staged or active releases with PEFT on this host's device and proves that what PEFT has then is what the file holds.
    PEFT itself accepts missing tensors, tensors that overwrite the base, NaN and untrained weights without an error.
  - All adapters of a host are loaded in one child process of the interpreter that serves them, with a time limit, with
    access to the Hub switched off, and without any code from the adapters. A crash of that process is a failure of the task, no
    more.
  - Looks at the packages and the base of this host before anything is loaded. What is known to go wrong between the versions of
    the training and those here is refused, other differences are reported.
  - What passed gets a receipt in the store. As long as the release, the packages, the device and the base stay the same,
    the receipt stands and the adapter is not loaded again. So must the golden, at level V(golden).
extends_documentation_fragment:
  - lorafleet.delivery._adapters
  - lorafleet.delivery._adapters.node
  - lorafleet.delivery._adapters.permissions
  - lorafleet.delivery._adapters.loading
  - lorafleet.delivery._attributes
attributes:
  check_mode:
    support: full
    details: The structure of a release that is there is judged, nothing is loaded and no receipt is written.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  manifests:
    description:
      - Manifests of the releases to test, as RV(lorafleet.delivery.adapter_info#module:manifests) gives them, one for each
        of O(adapters).
      - When not set, the active release of each adapter is tested.
    type: list
    elements: str
  python:
    description: The interpreter that serves the adapters. It must have torch, transformers, peft and safetensors.
    type: path
    required: true
  level:
    description:
      - How far the test must go. Each level contains the ones before it, and an adapter that does not reach it has failed.
      - V(structure) reads the files alone - names, shapes and values of all tensors, the configuration. It needs no PEFT.
      - V(adapter) has PEFT build its layers over a base without weights, brings all tensors onto the device, compares them
        with the file bit by bit and computes with each module. It takes less than 1 GB of the device's memory.
      - V(model) also loads the base from O(bases) and the adapter through PEFT's own loading, and compares the answers of the
        model with and without the adapter. It looks first whether the memory that is free suffices.
      - V(golden) also compares the log-probabilities along the recorded answers, with the adapter and without it, with those
        that M(lorafleet.delivery.adapter_golden) recorded where the adapter was trained. It needs a golden in the manifest.
      - V(available) is V(golden) for an adapter whose base has a C(path) and whose manifest has a golden, V(model) for one whose
        base has a C(path), V(adapter) for others.
    type: str
    choices:
      - structure
      - adapter
      - model
      - golden
      - available
    default: available
  least_level:
    description:
      - The level that suffices where memory does not suffice for O(level). The test then goes as far as memory permits, the
        result says the level that was reached and why not more, and the test is tried again in every run.
      - When not set, nothing less than O(level) suffices. It is never a way around a test that was failed.
    type: str
    choices:
      - structure
      - adapter
      - model
      - golden
  base_binding:
    description:
      - What happens when the base on this host is another than the one that the adapter was trained on, as far as the manifest
        tells it. Both are compared by config.json and by a sample of every tensor, before anything is loaded.
      - V(enforce) refuses the adapter, V(report) says it in RV(adapters[].notes) and in a warning.
    type: str
    choices:
      - enforce
      - report
    default: enforce
  user:
    description:
      - The user that loads the adapters, best the one that serves them. It must be able to read what becomes active with
        O(owner), O(group), O(file_mode) and O(directory_mode), which is judged by these alone; whether it can pass through the
        directories above O(models_dir) is not looked at. The base it really reads.
      - When not set, the user that Ansible works as. To name another one takes O(ignore:become).
    type: str
  timeout:
    description: Seconds that the child process may take for all adapters together.
    type: int
    default: 900
  force:
    description: Test again even where a receipt stands.
    type: bool
    default: false
  record:
    description: Write receipts. Without them the module changes nothing.
    type: bool
    default: true
notes:
  - Bytes of the weights and the configuration are compared with the manifest whenever a release is tested.
    To compare all files, whatever the receipts say, is the work of M(lorafleet.delivery.adapter_sync) and
    M(lorafleet.delivery.adapter_release).
seealso:
  - module: lorafleet.delivery.adapter_info
  - module: lorafleet.delivery.adapter_release
"""

EXAMPLES = r"""
- name: Load what was staged, before it is activated
  lorafleet.delivery.adapter_load_test:
    adapters:
      - name: llama32_3b_grammar_lora
        base: meta-llama/Llama-3.2-3B-Instruct
        rank: 16
        alpha: 32
    bases:
      meta-llama/Llama-3.2-3B-Instruct:
        path: /data/base/Llama-3.2-3B-Instruct
    manifests: "{{ described.manifests }}"
    models_dir: /home/models
    store: /home/.lorafleet
    python: /opt/lorafleet/bin/python

- name: Load what is served once more, beside the process that serves it
  lorafleet.delivery.adapter_load_test:
    adapters: "{{ agent_adapters }}"
    bases: "{{ agent_bases }}"
    models_dir: /home/models
    store: /home/.lorafleet
    python: /opt/lorafleet/bin/python
    level: adapter
    force: true
    record: false
"""

RETURN = r"""
adapters:
  description: How far each adapter came, in the order of O(adapters).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the adapter.
      type: str
      sample: llama32_3b_grammar_lora
    release:
      description: The release that was tested. Not set when none is active.
      type: str
      sample: 5f1c0f1f0f0b
    required_level:
      description: The level that it must reach.
      type: str
      sample: model
    level:
      description: The level that it reached. Not set when it reached none, or was not tested because of check mode.
      type: str
      sample: model
    device:
      description: The device that it was loaded on. Not set at level V(structure).
      type: str
      sample: cuda:0
    device_name:
      description: What that device is.
      type: str
      sample: NVIDIA H200
    capability:
      description: Its compute capability. Not set on a CPU.
      type: str
      sample: "9.0"
    dtype:
      description: What the base was computed with. From level V(model).
      type: str
      sample: bfloat16
    versions:
      description: Versions of the interpreter and its packages, of CUDA and of the driver, as far as they are there.
      type: dict
      sample:
        python: 3.12.3
        torch: 2.10.0
        peft: 0.21.2
        transformers: 5.23.0
        safetensors: 0.8.0
        cuda: "12.8"
        driver: "570.86"
    load_seconds:
      description: Seconds that PEFT took to load the adapter, without the base.
      type: float
      sample: 1.26
    peak_memory_bytes:
      description: The most memory of the GPU that the test had at once. Not set on a CPU.
      type: int
      sample: 6700000000
    effect:
      description: By how much the adapter changes the model's answer, relative to the norm of its logits. From level V(model).
      type: float
      sample: 0.151
    distances:
      description:
        - How far the answers are from the golden, from level V(golden). C(on) and C(off) are the weighted mean differences of the
          log-probabilities with the adapter and without, C(direction) and C(strength) compare the adapter's effect (1 is equal),
          C(top1) is the share of tokens whose likeliest successor is the same.
      type: dict
      sample: {"on": 0.0081, "off": 0.0362, "direction": 0.9999, "strength": 1.0012, "top1": 1.0}
    notes:
      description:
        - What could not be compared, differs from the training, or should be known otherwise, without standing against the
          adapter. Warnings say the same.
      type: list
      elements: str
      sample:
        - The training had torch 2.12.0, this node has 2.13.0.
    why_not_more:
      description: Why the test did not go to a higher level. Not set when there is none.
      type: str
      sample: Its base has no path on this host.
    from_receipt:
      description: Whether a receipt stood, so that the adapter was not loaded.
      type: bool
      sample: false
    checks:
      description: What was proved, one short sentence each.
      type: list
      elements: str
      sample:
        - PEFT loaded 392 tensors - none missing, none unexpected, all bit-equal to the file.
seconds:
  description: Seconds that the child process took. 0 when none was started.
  returned: always
  type: float
  sample: 14.2
problems:
  description: What is wrong, one entry for each thing, over all adapters.
  returned: failure
  type: list
  elements: dict
  sample:
    - subject: adapter llama32_3b_grammar_lora
      problem: "failed the load test at level adapter on cuda: tensor x differs from the file after it was loaded on cuda:0."
      remedy: Try with the versions of PEFT and transformers that it was trained with.
"""

import contextlib
import dataclasses
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import DECLARED, LOADING, NODE, PERMISSIONS
from ansible_collections.lorafleet.delivery.plugins.module_utils._base_identity import Identities, differences
from ansible_collections.lorafleet.delivery.plugins.module_utils._base_model import read_base_json, with_config
from ansible_collections.lorafleet.delivery.plugins.module_utils._declared import Declared
from ansible_collections.lorafleet.delivery.plugins.module_utils._digest import sha256_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._environment import environment
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden import (
    Golden,
    distances,
    golden_of,
    problems,
    unusual,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._layout import make_store
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test import (
    Target,
    base_fingerprint,
    check_device,
    digest_of,
    load_test,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._lora_config import config_problems, read_lora_config
from ansible_collections.lorafleet.delivery.plugins.module_utils._manifest import (
    CONFIG_FILE,
    SAFETENSORS_FILE,
    Manifest,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._minimum_versions import (
    version_problems,
    version_warnings,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._permissions import permissions_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._receipt import LEVELS, reaches, read_receipt, write_receipt
from ansible_collections.lorafleet.delivery.plugins.module_utils._runtime import runtime_notes, runtime_problems
from ansible_collections.lorafleet.delivery.plugins.module_utils._safetensors import scan
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving_user import ServingUser, check_readable
from ansible_collections.lorafleet.delivery.plugins.module_utils._state import read_state
from ansible_collections.lorafleet.delivery.plugins.module_utils._store import AdapterPaths, read_json
from ansible_collections.lorafleet.delivery.plugins.module_utils._structure import (
    structure_checks,
    structure_problems,
    unchecked,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import first
from ansible_collections.lorafleet.delivery.plugins.module_utils._tokenizer import tokenizer_problems

# What a receipt keeps of a test, and what the result says of it.
FACTS = (
    "level",
    "device",
    "device_name",
    "capability",
    "dtype",
    "versions",
    "load_seconds",
    "peak_memory_bytes",
    "effect",
    "distances",
    "notes",
    "why_not_more",
    "checks",
)
TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclasses.dataclass
class Case:
    """One adapter to test: what is known of it before, and C(facts), what the test found."""

    declared: Declared
    base: dict[str, t.Any]
    paths: AdapterPaths
    manifest: Manifest
    required: str
    least: str
    golden: t.Optional[Golden]
    directory: t.Optional[str]
    base_digest: str
    receipt: t.Optional[dict[str, t.Any]]
    notes: list[str] = dataclasses.field(default_factory=list)
    facts: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    passed: bool = False
    from_receipt: bool = False
    # What was loaded spoke against it.
    refuted: bool = False

    @property
    def subject(self) -> str:
        return f"adapter {self.declared.name}"

    def result(self) -> dict[str, t.Any]:
        return {
            "name": self.declared.name,
            "release": self.manifest.release,
            "required_level": self.required,
            "from_receipt": self.from_receipt,
            **{fact: self.facts.get(fact) for fact in FACTS},
            "versions": self.facts.get("versions") or {},
            "notes": self.facts.get("notes") or self.notes,
            "checks": self.facts.get("checks") or [],
        }

    @property
    def golden_digest(self) -> t.Optional[str]:
        return None if self.golden is None else digest_of(self.manifest.golden)

    def stands(self, level: str, environment_digest: t.Optional[str]) -> bool:
        """Whether its receipt is of this level, this base and, where anything is loaded, this environment and golden."""
        receipt = self.receipt
        if receipt is None or receipt.get("base") != self.base_digest or not reaches(receipt["level"], level):
            return False
        if level == "golden" and receipt.get("golden") != self.golden_digest:
            return False
        return level == "structure" or receipt.get("environment") == environment_digest

    def tells_more(self, level: str, environment_digest: t.Optional[str]) -> bool:
        """Whether a test that reaches this level tells more than the receipt, which must stand for all that it says itself."""
        receipt = self.receipt
        return receipt is None or not (reaches(receipt["level"], level) and self.stands(receipt["level"], environment_digest))

    def target(self, directory: str) -> Target:
        return Target(
            name=self.declared.name,
            directory=directory,
            weights_file=self.manifest.weights_file,
            level=self.required,
            base_config=self.base.get("config"),
            base_path=self.base.get("path") or None,
            allow_pickle=self.declared.allow_pickle,
            questions=self.golden.questions if self.golden else None,
        )


def case_of(params: dict[str, t.Any], row: dict[str, t.Any], manifests: t.Optional[dict[str, Manifest]]) -> Case:
    """What is to be tested for one row of the inventory. Raises DeliveryError."""
    known = with_config({row["base"]: params["bases"].get(row["base"]) or {}})[row["base"]]
    declared = Declared.from_row(row, known)
    subject = f"adapter {declared.name}"
    paths = AdapterPaths(params["models_dir"], params["store"], declared.name)
    manifest = manifest_of(paths, manifests)
    required = params["level"]
    if required == "available":
        required = "adapter" if not known.get("path") else "model" if manifest.golden is None else "golden"
    least = params["least_level"] or required
    if not reaches(required, least):
        required = least
    if reaches(required, "model") and not known.get("path"):
        raise DeliveryError.of(
            subject,
            f"cannot reach level {required}: base {declared.base} has no path on this host.",
            "Set the base's path in the inventory, or ask for level adapter.",
        )
    if required == "adapter" and not known.get("path") and not known.get("config"):
        raise DeliveryError.of(
            subject,
            f"cannot reach level adapter: of base {declared.base} neither path nor config is known.",
            "Put one of them into the inventory, or ask for level structure.",
        )
    places = (paths.release(manifest.release), paths.staged(manifest.release))
    return Case(
        declared=declared,
        base=known,
        paths=paths,
        manifest=manifest,
        required=required,
        least=least,
        golden=golden_of(manifest) if required == "golden" else None,
        directory=next((place for place in places if os.path.isdir(place)), None),
        # What was only reported is not to stand where it would be refused.
        base_digest=digest_of([base_fingerprint(known), manifest.base, params["base_binding"]]),
        receipt=read_receipt(paths, manifest.release),
    )


def manifest_of(paths: AdapterPaths, manifests: t.Optional[dict[str, Manifest]]) -> Manifest:
    """The manifest that was given for an adapter, or else the recorded one of its active release. Raises DeliveryError."""
    if manifests is not None:
        if paths.name not in manifests:
            raise DeliveryError.of(
                f"adapter {paths.name}", "has no manifest among those given.", "Describe it with adapter_info first."
            )
        return manifests[paths.name]
    active = read_state(paths).active
    if active is None:
        raise DeliveryError.of(f"adapter {paths.name}", "has no active release on this host.", "Deploy it first.")
    manifest = paths.read_manifest(active)
    if manifest is None:
        raise DeliveryError.of(f"adapter {paths.name}", f"has no manifest of its active release {active}.", "Deploy it again.")
    return manifest


def judge_config(case: Case, directory: str) -> dict[str, t.Any]:
    """The adapter's configuration, known to be as declared. Raises DeliveryError."""
    config = read_lora_config(os.path.join(directory, CONFIG_FILE))
    problems = config_problems(config, case.declared)
    if problems:
        raise DeliveryError(*problems)
    return config


def judge_structure(case: Case, directory: str) -> None:
    """Take a case to level structure. Raises DeliveryError."""
    weights_file = case.manifest.weights_file
    weights = os.path.join(directory, weights_file)
    config = judge_config(case, directory)
    seen = {CONFIG_FILE: sha256_of(os.path.join(directory, CONFIG_FILE))}
    tensors = None
    if weights_file == SAFETENSORS_FILE:
        found = scan(weights, tensor_digests=False)
        seen[weights_file] = (found.size, found.sha256)
        tensors = found.tensors
    elif case.required == "structure":
        raise DeliveryError.of(
            case.subject,
            f"has a pickle ({weights_file}), which level structure cannot judge.",
            "Save it as safetensors, or ask for level adapter.",
        )
    else:
        seen[weights_file] = sha256_of(weights)
    for entry in case.manifest.files:
        if entry.path in seen and seen[entry.path] != (entry.size, entry.sha256):
            raise DeliveryError.of(
                case.subject,
                f"{os.path.join(directory, entry.path)} is not what the manifest of release {case.manifest.release} says.",
                "Deploy again: it is brought anew.",
            )
    problems = tokenizer_problems(directory, [entry.path for entry in case.manifest.files], case.declared.name)
    if problems:
        raise DeliveryError(*problems)
    if tensors is None:
        return
    problems = structure_problems(case.declared.name, tensors, config, case.declared.base_config)
    if problems:
        raise DeliveryError(*problems)
    case.facts.update(
        level="structure",
        checks=[*structure_checks(tensors, config), f"{first(sorted(seen))} have the sha256 of the manifest."],
    )
    case.notes.extend(unchecked(case.declared.base_config))


def judge_base(case: Case, identities: Identities, enforce: bool) -> None:
    """Compare the base on this host with the one trained on. Raises DeliveryError."""
    path = case.base.get("path")
    if not path:
        return
    if case.manifest.base is None:
        case.notes.append("The training server does not tell its base, so nothing says that the base here is the same.")
        return
    wrong, notes = differences(case.manifest.base, t.cast("dict[str, t.Any]", identities.at(path)))
    problem = f"was trained on another base than the one at {path}: {'; '.join(wrong)}."
    if wrong and enforce:
        raise DeliveryError.of(
            case.subject, problem, "Bring the base that it was trained on to this host, or correct the base's path."
        )
    case.notes.extend([f"It {problem}", *notes] if wrong else notes)
    if not wrong:
        sampled = f"a sample of {case.manifest.base['tensors']} tensors"
        case.facts["checks"].append(f"The base is the one that it was trained on, by its config and {sampled}.")


def judge_runtime(case: Case, directory: str, here: dict[str, str]) -> None:
    """Compare the packages of this host with those of the training. Raises DeliveryError."""
    path = case.base.get("path")
    trained = case.manifest.versions
    found = runtime_problems(
        case.subject,
        case.manifest.config.get("peft_version"),
        here,
        tokenizer_config=read_json(os.path.join(directory, TOKENIZER_CONFIG), "Save the tokenizer again."),
        base_config=read_base_json(path, "config.json") if path else None,
        base_tokenizer_config=read_base_json(path, TOKENIZER_CONFIG) if path else None,
    )
    if found:
        raise DeliveryError(*found)
    case.notes.extend(runtime_notes(trained, here))
    if "transformers" not in trained:
        case.notes.append("The library versions of the training are not known beyond what the adapter itself tells.")


def explain_level(case: Case) -> t.Optional[str]:
    """Why a case that reached what is required was not taken further."""
    if case.required == "golden":
        return None
    if case.required == "model" and case.manifest.golden is None:
        return "No golden was recorded of this release."
    if case.required == "adapter" and not case.base.get("path"):
        return "Its base has no path on this host."
    return f"Level {case.required} was asked for."


def take_report(case: Case, report: dict[str, t.Any], versions: dict[str, str]) -> list[Problem]:
    """Put what the child found into the case; returns what is wrong."""
    reached = report["level"] or case.facts.get("level")
    if report["level"] or report["problems"]:
        checks = [*case.facts["checks"], *report["checks"]]
        case.facts.update({fact: report[fact] for fact in FACTS if fact in report})
        case.facts.update(level=reached, checks=checks)
        case.facts["versions"] = {**versions, **({"driver": report["driver"]} if report.get("driver") else {})}
    else:
        # Nothing was loaded, so nothing is known but of the files.
        case.facts["why_not_more"] = report["why_not_more"]
    where = f"the load test at level {case.required} on {report['device']}"
    if report["problems"]:
        case.refuted = True
        return [Problem(case.subject, f"failed {where}: {found['problem']}", found["remedy"]) for found in report["problems"]]
    if case.golden is not None and report["answer"] is not None:
        return take_answer(case, case.golden, report["answer"])
    if report["passed"]:
        case.passed = True
        case.facts["why_not_more"] = explain_level(case)
        return []
    # Of a pickle level structure says nothing.
    case.passed = reached is not None and reaches(reached, case.least)
    if case.passed:
        return []
    remedy = f"Make room on {report['device']}, name another device"
    return [
        Problem(
            case.subject,
            f"reached {f'level {reached}' if reached else 'no level'} in {where}: {report['why_not_more']}",
            f"{remedy}, or permit level {reached} as the least level." if reached else f"{remedy}.",
        )
    ]


def take_answer(case: Case, golden: Golden, answer: dict[str, t.Any]) -> list[Problem]:
    """Compare an answer with the golden; returns what is wrong."""
    try:
        found = distances(golden.answer, answer)
    except DeliveryError as exc:
        case.facts["level"] = "model"
        case.refuted = True
        found_wrong = [(f"failed level golden: the {one.subject} {one.problem}", one.remedy) for one in exc.problems]
        return [Problem(case.subject, *one) for one in found_wrong]
    case.facts["distances"] = found.to_json()
    wrong = problems(case.subject, found, golden.permitted)
    case.passed, case.refuted = not wrong, bool(wrong)
    if wrong:
        case.facts["level"] = "model"
        return wrong
    case.notes.extend(unusual(found))
    recorded, limits = golden.recorded, golden.permitted
    case.facts["checks"].append(
        f"Along {golden.positions} recorded tokens it answers as where it was trained, by {found.on:.3f} with the adapter"
        f" (permitted {limits['on']:.3f}) and {found.off:.3f} without (permitted {limits['off']:.3f}); recorded in"
        f" {recorded['dtype']} on {recorded['device_name']}."
    )
    return []


def receipt_of(case: Case, environment_digest: t.Optional[str]) -> dict[str, t.Any]:
    bound = {"environment": environment_digest, "base": case.base_digest, "golden": case.golden_digest}
    return {**{fact: case.result()[fact] for fact in FACTS}, **bound}


def said(receipt: t.Optional[dict[str, t.Any]]) -> str:
    """A receipt in a few words, for the diff."""
    if receipt is None:
        return "not tested"
    packages = " ".join(f"{name} {version}" for name, version in sorted(receipt["versions"].items()))
    return " ".join(filter(None, (f"level {receipt['level']}", receipt.get("device"), receipt.get("device_name"), packages)))


def diff_of(cases: list[Case], after: t.Callable[[Case], str]) -> dict[str, str]:
    def text(words: t.Callable[[Case], str]) -> str:
        return "".join(f"{case.declared.name} {case.manifest.release}: {words(case)}\n" for case in cases)

    return {
        "before_header": "receipts",
        "after_header": "receipts",
        "before": text(lambda case: said(case.receipt)),
        "after": text(after),
    }


def prepare(params: dict[str, t.Any]) -> tuple[list[Case], list[Problem]]:
    """The cases of all rows of the inventory, and what is wrong with the rest. Raises DeliveryError for a bad manifest."""
    manifests = None
    if params["manifests"] is not None:
        manifests = {manifest.name: manifest for manifest in map(Manifest.from_text, params["manifests"])}
    cases: list[Case] = []
    problems: list[Problem] = []
    for row in params["adapters"]:
        try:
            cases.append(case_of(params, row, manifests))
        except DeliveryError as exc:
            problems.extend(exc.problems)
    return cases, problems


@dataclasses.dataclass(frozen=True)
class Host:
    """What the interpreter on this host is; nothing is known where it does not work."""

    digest: t.Optional[str] = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)


def judge(case: Case, host: Host, params: dict[str, t.Any], identities: Identities, check_mode: bool) -> None:
    """Take a case as far as it goes without loading. Raises DeliveryError."""
    if case.directory is None:
        if not check_mode:
            raise DeliveryError.of(
                case.subject,
                f"release {case.manifest.release} is not on this host, neither staged nor in the store.",
                "Bring it with adapter_sync first.",
            )
        case.facts["why_not_more"] = "Not tested in check mode: the release is not on this host yet."
    elif not params["force"] and case.stands(case.required, host.digest):
        judge_config(case, case.directory)
        case.facts = dict(case.receipt or {})
        case.from_receipt = case.passed = True
    else:
        judge_structure(case, case.directory)
        case.passed = case.required == "structure"
        if not case.passed:
            case.facts.setdefault("checks", [])
            judge_runtime(case, case.directory, host.versions)
            judge_base(case, identities, params["base_binding"] == "enforce")
        case.facts["why_not_more"] = explain_level(case) if case.passed else "Not loaded in check mode."


def load(module: AnsibleModule, cases: list[Case], user: t.Optional[ServingUser]) -> tuple[float, list[Problem]]:
    """Load cases with PEFT in one child process; returns its seconds and what is wrong."""
    params = module.params
    targets = [case.target(case.directory) for case in cases if case.directory is not None]
    # It will be able to read them once they are active; what is staged nobody else can read yet.
    directories = [target.directory for target in targets]
    with user.may_read(directories) if user else contextlib.nullcontext():
        outcome = load_test(
            params["python"], params["device"], targets, params["timeout"], module.tmpdir, user, params["memory_limit"]
        )
    wrong = list(outcome.problems)
    for case in cases:
        report = outcome.reports.get(case.declared.name)
        if report is None:
            wrong.append(not_loaded(case, params["device"]))
            continue
        wrong.extend(take_report(case, report, outcome.versions))
        for warning in report["warnings"]:
            module.warn(f"{case.subject}: {warning}")
    return outcome.seconds, wrong


def not_loaded(case: Case, device: str) -> Problem:
    case.facts["why_not_more"] = f"It was not loaded: the load test on {device} broke off."
    return Problem(
        case.subject,
        f"was not tested at level {case.required} on {device}, because the load test broke off.",
        "The cause stands above.",
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DECLARED,
            **NODE,
            **PERMISSIONS,
            **LOADING,
            "manifests": {"type": "list", "elements": "str"},
            "python": {"type": "path", "required": True},
            "level": {"type": "str", "choices": [*LEVELS, "available"], "default": "available"},
            "least_level": {"type": "str", "choices": list(LEVELS)},
            "base_binding": {"type": "str", "choices": ["enforce", "report"], "default": "enforce"},
            "user": {"type": "str"},
            "timeout": {"type": "int", "default": 900},
            "force": {"type": "bool", "default": False},
            "record": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        check_device(params["device"])
        user = ServingUser.named(params["user"]) if params["user"] else None
        if user is not None:
            check_readable(user, permissions_of(params))
        cases, wrong = prepare(params)
    except DeliveryError as exc:
        module.fail_json(msg=str(exc), problems=exc.to_json())

    host = Host()
    host_works = True
    if any(case.required != "structure" for case in cases):
        try:
            found = environment(params["python"], params["device"], user)
            outdated = version_problems(params["python"], found["versions"])
            if outdated:
                raise DeliveryError(*outdated)
            host = Host(digest_of(found), found["versions"])
            for warning in version_warnings(params["python"], found["versions"]):
                module.warn(warning)
        except DeliveryError as exc:
            host_works = False
            # In check mode it may be what an earlier task of the same run would install.
            if not module.check_mode:
                wrong.extend(exc.problems)

    pending: list[Case] = []
    identities = Identities()
    for case in cases:
        try:
            judge(case, host, params, identities, module.check_mode)
        except DeliveryError as exc:
            wrong.extend(exc.problems)
        else:
            if not case.from_receipt:
                pending.append(case)

    seconds = 0.0
    to_load = [case for case in pending if case.required != "structure"]
    if to_load and not module.check_mode:
        if host_works:
            seconds, failed = load(module, to_load, user)
            wrong.extend(failed)
        else:
            wrong.extend(not_loaded(case, params["device"]) for case in to_load)

    for case in pending:
        for note in case.notes:
            module.warn(f"{case.subject}: {note}")

    new: list[Case] = []
    if params["record"] and module.check_mode:
        # What could not reach more the last time is not expected to reach it now.
        new = [case for case in pending if params["force"] or case.tells_more(case.least, host.digest)]
    elif params["record"]:
        new = [
            case for case in pending if case.passed and (params["force"] or case.tells_more(case.facts["level"], host.digest))
        ]
    results: dict[str, t.Any] = {"changed": bool(new), "adapters": [case.result() for case in cases], "seconds": seconds}
    if module.check_mode:
        results["diff"] = diff_of(new, lambda case: f"to be tested at level {case.required} on {params['device']}")
    else:
        results["diff"] = diff_of(new, lambda case: said(case.result()))
        for case in new:
            try:
                make_store(case.paths)
                write_receipt(case.paths, case.manifest.release, receipt_of(case, host.digest))
            except OSError as exc:
                problem = f"passed, but its receipt cannot be written: {exc}."
                wrong.append(Problem(case.subject, problem, "Run with become, and look for space in the store."))
    if params["record"]:
        for case in pending:
            # An earlier receipt must not let it pass the next time.
            if case.refuted and case.receipt is not None:
                try:
                    os.unlink(case.paths.receipt(case.manifest.release))
                except OSError as exc:
                    problem = f"failed, but its earlier receipt cannot be removed: {exc}."
                    wrong.append(Problem(case.subject, problem, "Run with become, and mount the store writable."))
    if wrong:
        error = DeliveryError(*wrong)
        module.fail_json(msg=str(error), problems=error.to_json(), **results)
    module.exit_json(**results)


if __name__ == "__main__":
    main()
