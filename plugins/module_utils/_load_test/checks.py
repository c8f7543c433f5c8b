# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What is said of one adapter that is load tested: by its files, the packages and the base here, then by what was loaded."""

from __future__ import annotations

import os
import typing as t

from .._adapter.files import CONFIG_FILE, SAFETENSORS_FILE, TOKENIZER_CONFIG
from .._adapter.lora_config import config_problems, read_lora_config
from .._adapter.structure import structure_checks, structure_problems, unchecked
from .._adapter.tokenizer import tokenizer_problems
from .._base.config import read_base_json
from .._base.identity import Identities, differences
from .._errors import DeliveryError, Problem
from .._files import read_json
from .._formats.tensor_scan import scan
from .._golden.golden import Golden, distances, problems, unusual
from .._hashing import sha256_of
from .._levels import reaches
from .._text import first
from .case import FACTS, Case
from .compatibility import runtime_notes, runtime_problems
from .host import Host


def judge(case: Case, host: Host, params: dict[str, t.Any], identities: Identities, check_mode: bool) -> None:
    """Take a case as far as it goes without loading. Raises DeliveryError."""
    if case.directory is None:
        if not check_mode:
            raise DeliveryError.of(
                case.subject,
                f"release {case.manifest.release} is not on this host, neither staged nor in the store.",
                "Bring it with adapter_sync first.",
            )
        case.facts["limited_by"] = "Not tested in check mode: the release is not on this host yet."
    elif not params["force"] and case.stands(case.required, host.digest):
        _judge_config(case, case.directory)
        case.facts = dict(case.receipt or {})
        case.from_receipt = case.passed = True
    else:
        _judge_structure(case, case.directory)
        case.passed = case.required == "structure"
        if not case.passed:
            case.facts.setdefault("checks", [])
            _judge_runtime(case, case.directory, host.versions)
            _judge_base(case, identities, params["base_binding"] == "enforce")
        case.facts["limited_by"] = _explain_level(case) if case.passed else "Not loaded in check mode."


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
        case.facts["limited_by"] = report["limited_by"]
    where = f"the load test at level {case.required} on {report['device']}"
    if report["problems"]:
        case.refuted = True
        return [Problem(case.subject, f"failed {where}: {found['problem']}", found["remedy"]) for found in report["problems"]]
    if case.golden is not None and report["answer"] is not None:
        return _take_answer(case, case.golden, report["answer"])
    if report["passed"]:
        case.passed = True
        case.facts["limited_by"] = _explain_level(case)
        return []
    # Of a pickle level structure says nothing.
    case.passed = reached is not None and reaches(reached, case.least)
    if case.passed:
        return []
    remedy = f"Make room on {report['device']}, name another device"
    return [
        Problem(
            case.subject,
            f"reached {f'level {reached}' if reached else 'no level'} in {where}: {report['limited_by']}",
            f"{remedy}, or permit level {reached} as the least level." if reached else f"{remedy}.",
        )
    ]


def not_loaded(case: Case, device: str) -> Problem:
    """What is wrong with a case to which the load test did not come."""
    case.facts["limited_by"] = f"It was not loaded: the load test on {device} broke off."
    return Problem(
        case.subject,
        f"was not tested at level {case.required} on {device}, because the load test broke off.",
        "The cause stands above.",
        case.declared.name,
    )


def _judge_config(case: Case, directory: str) -> dict[str, t.Any]:
    """The adapter's configuration, known to be as declared. Raises DeliveryError."""
    config = read_lora_config(os.path.join(directory, CONFIG_FILE))
    problems = config_problems(config, case.declared)
    if problems:
        raise DeliveryError(*problems)
    return config


def _judge_structure(case: Case, directory: str) -> None:
    """Take a case to level structure. Raises DeliveryError."""
    weights_file = case.manifest.weights_file
    weights = os.path.join(directory, weights_file)
    config = _judge_config(case, directory)
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


def _judge_runtime(case: Case, directory: str, here: dict[str, str]) -> None:
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


def _judge_base(case: Case, identities: Identities, enforce: bool) -> None:
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


def _take_answer(case: Case, golden: Golden, answer: dict[str, t.Any]) -> list[Problem]:
    """Compare an answer with the golden; returns what is wrong."""
    try:
        found = distances(golden.answer, answer)
    except DeliveryError as exc:
        case.facts["level"] = "model"
        case.refuted = True
        found_wrong = [(f"failed level golden: the {one.subject} {one.problem}", one.remedy) for one in exc.problems]
        return [Problem(case.subject, *one) for one in found_wrong]
    case.facts.update(distances=found.to_json(), permitted=golden.permitted)
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


def _explain_level(case: Case) -> t.Optional[str]:
    """Why a case that reached what is required was not taken further."""
    if case.required == "golden":
        return None
    if case.required == "model" and case.manifest.golden is None:
        return "No golden was recorded of this release."
    if case.required == "adapter" and not case.base.get("path"):
        return "Its base has no path on this host."
    return f"Level {case.required} was asked for."
