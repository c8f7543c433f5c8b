# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The checks of an adapter before it is loaded: its files, the packages and the base here."""

from __future__ import annotations

import os
import typing as t

from .._adapter.files import CONFIG_FILE, SAFETENSORS_FILE, TOKENIZER_CONFIG
from .._adapter.lora_config import config_notes
from .._adapter.offered import manifest_problems
from .._adapter.structure import structure_checks, structure_notes, structure_problems
from .._adapter.tokenizer import read_tokenizer, tokenizer_problems
from .._adapter.vocabulary import vocabulary_problems
from .._base.config import read_base_json
from .._base.identity import Identities, differences
from .._errors import DeliveryError, about
from .._files import read_json
from .._formats.tensor_scan import scan
from .._hashing import sha256_of
from .._text import first
from .attempt import Attempt, Verdict
from .case import Case
from .compatibility import Settings, runtime_notes, runtime_problems
from .declared import check_declaration
from .interpreter import Environment
from .options import LoadTestOptions
from .worker.protocol import LoadTestResult


def check_before_loading(
    attempt: Attempt, environment: Environment, options: LoadTestOptions, identities: Identities, check_mode: bool
) -> None:
    """Check a case as far as possible without loading it. Raises DeliveryError."""
    with about(attempt.case.name):
        _check(attempt, environment, options, identities, check_mode)


def _check(
    attempt: Attempt, environment: Environment, options: LoadTestOptions, identities: Identities, check_mode: bool
) -> None:
    case, result = attempt.case, attempt.result
    if case.directory is None:
        if not check_mode:
            raise case.error(
                f"release {case.manifest.release} is not on this host, neither staged nor in the store.",
                "Transfer it with adapter_sync first.",
            )
        result.limited_by = "Not tested in check mode: the release is not on this host yet."
        return
    if not options.force and case.receipt is not None and case.has_valid_receipt(case.required, environment.digest):
        check_declaration(case, case.directory)
        attempt.result = LoadTestResult.from_receipt(case.receipt)
        attempt.verdict = Verdict.FROM_RECEIPT
        return
    _check_structure(attempt, case.directory)
    if case.required == "structure":
        attempt.verdict = Verdict.PASSED
        result.limited_by = reason_for_level(case)
        return
    tokenizer_config = read_json(os.path.join(case.directory, TOKENIZER_CONFIG), "Save the tokenizer again.")
    check_runtime(attempt, tokenizer_config, environment.versions)
    check_base(attempt, identities, options.base_binding == "enforce")
    result.limited_by = "Not loaded in check mode."


def reason_for_level(case: Case) -> str | None:
    """Return why no higher level than the required one was tested, None if there is none."""
    if case.required == "golden":
        return None
    if case.required == "model" and case.manifest.golden is None:
        return "No golden was recorded for this release."
    if case.required == "adapter" and not case.base.get("path"):
        return "Its base has no path on this host."
    return f"Level {case.required} was requested."


def _check_structure(attempt: Attempt, directory: str) -> None:
    """Check level structure. Raises DeliveryError."""
    case, result = attempt.case, attempt.result
    weights_file = case.manifest.weights_file
    weights = os.path.join(directory, weights_file)
    config = check_declaration(case, directory)
    result.notes.extend(config_notes(config, case.declared))
    hashed = {CONFIG_FILE: sha256_of(os.path.join(directory, CONFIG_FILE))}
    tensors = None
    if weights_file == SAFETENSORS_FILE:
        found = scan(weights, tensor_digests=False)
        hashed[weights_file] = (found.size, found.sha256)
        tensors = found.tensors
    elif case.required == "structure":
        raise _unchecked_pickle(case)
    else:
        hashed[weights_file] = sha256_of(weights)
    for entry in case.manifest.files:
        if entry.path in hashed and hashed[entry.path] != (entry.size, entry.sha256):
            raise case.error(
                f"{os.path.join(directory, entry.path)} differs from the manifest of release {case.manifest.release}.",
                "Deploy again, which transfers the file again.",
            )
    paths = {entry.path: os.path.join(directory, entry.path) for entry in case.manifest.files}
    beyond, notes = vocabulary_problems(read_tokenizer(paths, case.name), paths, tensors or (), case.declared)
    problems = [*tokenizer_problems(paths, case.name), *beyond]
    if problems:
        raise DeliveryError(*problems)
    result.notes.extend(notes)
    if tensors is None:
        return
    problems = structure_problems(case.name, tensors, config, case.declared.base_config, case.declared.target_modules)
    if problems:
        raise DeliveryError(*problems)
    result.level = "structure"
    result.checks = [*structure_checks(tensors, config), f"{first(sorted(hashed))} have the sha256 of the manifest."]
    result.notes.extend(structure_notes(tensors, config, case.declared.base_config))


def _unchecked_pickle(case: Case) -> DeliveryError:
    return case.error(
        f"has a pickle ({case.manifest.weights_file}), which level structure cannot check.",
        "Save it as safetensors, or set level to adapter.",
    )


def check_manifest(case: Case) -> None:
    """Check level structure on this host as far as the manifest shows it, without the files.

    What the inventory says of adapter and base may differ between hosts. Raises DeliveryError.
    """
    problems = manifest_problems(case.manifest, case.declared)
    if case.manifest.weights_file != SAFETENSORS_FILE and case.required == "structure":
        problems += _unchecked_pickle(case).problems
    if problems:
        raise DeliveryError(*problems)


def check_runtime(attempt: Attempt, tokenizer_config: Settings, here: dict[str, str]) -> None:
    """Compare the packages of this host with those of the training. Raises DeliveryError."""
    case = attempt.case
    path = case.base.get("path")
    trained = case.manifest.versions
    problems = runtime_problems(
        case.manifest.config,
        here,
        tokenizer_config=tokenizer_config,
        base_config=read_base_json(path, "config.json") if path else None,
        base_tokenizer_config=read_base_json(path, TOKENIZER_CONFIG) if path else None,
    )
    if problems:
        raise DeliveryError(*problems)
    attempt.result.notes.extend(runtime_notes(trained, here))
    if "transformers" not in trained:
        attempt.result.notes.append("The library versions of the training are unknown beyond those in the adapter's files.")


def check_base(attempt: Attempt, identities: Identities, enforce: bool) -> None:
    """Compare the base on this host with the one of the training. Raises DeliveryError."""
    case, result = attempt.case, attempt.result
    path = case.base.get("path")
    if not path:
        return
    if case.manifest.base is None:
        result.notes.append("The manifest does not identify the base of the training, so it was not compared.")
        return
    here = t.cast("dict[str, t.Any]", identities.at(path))
    try:
        wrong, notes = differences(case.manifest.base, here)
    except (KeyError, TypeError, AttributeError) as exc:
        remedy = "Describe it again, and inspect the host that described it."
        raise case.error("has a manifest that identifies its base in another form.", remedy) from exc
    if wrong:
        problem = f"was trained on another base than the one at {path}: {'; '.join(wrong)}."
        if enforce:
            remedy = "Copy the base of the training to this host, or correct the path of the base in bases."
            raise case.error(problem, remedy)
        result.notes.extend([f"It {problem}", *notes])
        return
    result.notes.extend(notes)
    tensors = case.manifest.base["tensors"]
    result.checks.append(f"The base matches that of the training, by its config and a sample of {tensors} tensors.")
