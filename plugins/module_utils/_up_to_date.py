# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Check whether a node already serves the described releases, with nothing left to do."""

from __future__ import annotations

import itertools
import typing as t

from ._errors import DeliveryError, about
from ._levels import LEVELS
from ._load_test.case import Case, find_cases
from ._load_test.declared import check_declaration
from ._load_test.options import LoadTestOptions
from ._store.plan import ActivationOptions, Request
from ._store.prediction import AdapterResult, predict
from ._store.recovery import needs_recovery

if t.TYPE_CHECKING:
    from ._engines.judgement import Judge, Judgement


def check_up_to_date(
    options: LoadTestOptions, activation: ActivationOptions, warn: t.Callable[[str], None], judge: Judge | None = None
) -> list[dict[str, t.Any]]:
    """Return the active release of each adapter as module adapter_up_to_date_info returns it.

    ``judge`` is that of a node whose engines are known. Reads only. Raises DeliveryError with the
    reasons if anything has to be done for any adapter, or if an engine blocks one. No file is
    hashed unless all receipts are valid.
    """
    cases, problems = find_cases(options)
    if problems:
        raise DeliveryError(*problems)
    judgements = [judge.judge(case.manifest, case.base["config"]) for case in cases] if judge else []
    problems = [problem for judgement in judgements for problem in judgement.problems()]
    if problems:
        raise DeliveryError(*problems)
    # A release that is new on this node has no receipt: no interpreter is started to find that out.
    for case in cases:
        if case.receipt is None:
            raise _no_valid_receipt(case)
    warnings: list[str] = []
    environment = None
    if any(case.required != LEVELS[0] for case in cases):
        # What starts an interpreter takes milliseconds to load.
        from ._load_test.interpreter import read_environment

        environment = read_environment(options.python, options.device, options.user, warnings.append).digest
    try:
        for case in cases:
            _check_receipt(case, environment)
        outcomes = _unchanged(cases, activation)
    except OSError as exc:
        raise DeliveryError.of(options.store, f"cannot be inspected: {exc}.") from exc
    warnings += [warning for judgement in judgements for warning in judgement.warnings()]
    # If the node is not up to date, adapter_sync and adapter_load_test give these warnings.
    for warning in warnings:
        warn(warning)
    return [_entry(case, outcome, judgement) for case, outcome, judgement in itertools.zip_longest(cases, outcomes, judgements)]


def _entry(case: Case, outcome: AdapterResult, judgement: Judgement | None) -> dict[str, t.Any]:
    released = outcome.to_json()
    keys = ("name", "release", "digest", "size", "files", "made_of", "previous", "history", "activation", "path", "receipt")
    engines = judgement.engines() if judgement else []
    return {**{key: released[key] for key in keys}, "required_level": case.required, "engines": engines}


def _no_valid_receipt(case: Case) -> DeliveryError:
    return case.error(f"no valid receipt for level {case.required} on this node.")


def _check_receipt(case: Case, environment: str | None) -> None:
    if not case.has_valid_receipt(case.required, environment):
        raise _no_valid_receipt(case)
    if needs_recovery(case.paths):
        raise case.error("an earlier run left unfinished work.")
    # The rest of the load test depends only on what the receipt is valid for.
    if case.directory is not None:
        with about(case.name):
            check_declaration(case, case.directory)


def _unchanged(cases: list[Case], options: ActivationOptions) -> list[AdapterResult]:
    """Return the outcomes of activating these releases. Raises DeliveryError for any change."""
    outcomes = predict([Request(case.paths, manifest=case.manifest) for case in cases], options)
    for case, outcome in zip(cases, outcomes):
        # A damaged state can record less about the same release.
        if outcome.changed or outcome.plan.after != outcome.plan.before:
            drift = "".join(f": {difference.line()}" for difference in outcome.plan.drift[:1])
            raise case.error(f"differs from the desired state{drift}.")
    return outcomes
