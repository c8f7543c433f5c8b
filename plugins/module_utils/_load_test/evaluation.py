# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Derive the verdict on an adapter from the worker's report and from its golden."""

from __future__ import annotations

import dataclasses

from .._errors import DeliveryError, Problem
from .._golden.comparison import distances, problems, unusual
from .._golden.golden import Golden
from .._levels import reaches
from .attempt import Attempt, Verdict
from .checks import reason_for_level
from .worker.protocol import Report


def evaluate_report(attempt: Attempt, report: Report) -> list[Problem]:
    """Set the result and the verdict from the worker's report; returns the problems."""
    case, found = attempt.case, report.result
    where = f"the load test at level {case.required} on {found.device}"
    if found.level or report.failures:
        before = attempt.result
        attempt.result = dataclasses.replace(
            found, level=found.level or before.level, checks=[*before.checks, *found.checks], notes=[*before.notes, *found.notes]
        )
    else:
        # Nothing was loaded, so only the facts about the files are known.
        attempt.result.limited_by = found.limited_by
    if report.failures:
        attempt.verdict = Verdict.FAILED
        return [case.problem(f"failed {where}: {failure.problem}", failure.remedy) for failure in report.failures]
    if case.golden is not None and report.answer is not None:
        return _compare_with_golden(attempt, case.golden, report.answer)
    if report.passed:
        attempt.verdict = Verdict.PASSED
        attempt.result.limited_by = reason_for_level(case)
        return []
    # Level structure checks nothing of a pickle, so no level may be reached at all.
    level = attempt.result.level
    if level is not None and reaches(level, case.minimum):
        attempt.verdict = Verdict.PASSED
        return []
    remedy = f"Free memory on {found.device}, set another device"
    return [
        case.problem(
            f"reached {f'level {level}' if level else 'no level'} in {where}: {found.limited_by}",
            f"{remedy}, or set minimum_level to {level}." if level else f"{remedy}.",
        )
    ]


def not_loaded(attempt: Attempt, device: str) -> Problem:
    """Return the problem of a case that the aborted worker did not reach."""
    attempt.result.limited_by = f"It was not loaded: the load test on {device} was aborted."
    return attempt.case.problem(
        f"was not tested at level {attempt.case.required} on {device}, because the load test was aborted.",
        "See the other messages for the cause.",
    )


def _compare_with_golden(attempt: Attempt, golden: Golden, answer: dict[str, list[list[list[float]]]]) -> list[Problem]:
    """Set the verdict from the distances between answer and golden; returns the problems."""
    case, result = attempt.case, attempt.result
    attempt.verdict = Verdict.FAILED
    try:
        found = distances(golden.answer, answer)
    except DeliveryError as exc:
        result.level = "model"
        return [case.problem(f"failed level golden: the {one.subject} {one.problem}", one.remedy) for one in exc.problems]
    result.distances, result.permitted = found.to_json(), golden.permitted
    wrong = [case.problem(*one) for one in problems(found, golden.permitted)]
    if wrong:
        result.level = "model"
        return wrong
    attempt.verdict = Verdict.PASSED
    result.notes.extend(unusual(found))
    recorded, limits = golden.recorded, golden.permitted
    result.checks.append(
        f"Along {golden.positions} recorded tokens it answers as on the training server, within {found.on:.3f} with the adapter"
        f" (permitted {limits['on']:.3f}) and {found.off:.3f} without (permitted {limits['off']:.3f}); recorded in"
        f" {recorded['dtype']} on {recorded['device_name']}."
    )
    return []
