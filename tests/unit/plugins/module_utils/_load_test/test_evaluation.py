# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict on an adapter by the worker's report."""

from __future__ import annotations

import dataclasses
import os
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import PERMITTED
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import Golden
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.attempt import Attempt, Verdict
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.case import Case
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.evaluation import evaluate_report, not_loaded
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Failure, LoadTestResult, Report

# Two tokens. The adapter makes the first id likelier.
ANSWER: dict[str, t.Any] = {"on": [[[-0.2, -2.0], [-0.3, -1.5]]], "off": [[[-1.0, -0.5], [-1.2, -0.4]]]}


def checked(case: Case, **changes: t.Any) -> Attempt:
    """An attempt whose files passed level structure."""
    result = LoadTestResult(level="structure", checks=["files"], notes=["a note"], limited_by="Not loaded in check mode.")
    return Attempt(dataclasses.replace(case, **changes), result)


def report(level: str | None = "model", limited_by: str | None = None, **found: t.Any) -> Report:
    """A worker's report that level model passed, except for the keywords."""
    result = LoadTestResult(
        level=level, device="cpu", device_name="a CPU", versions={"torch": "2.13.0"}, checks=["loaded"], limited_by=limited_by
    )
    return Report(**{"result": result, "passed": True, **found})


def golden(case: Case, answer: dict[str, t.Any]) -> Golden:
    return Golden(
        name=case.name,
        digest=case.manifest.digest,
        prompts="",
        base={},
        recorded={"dtype": "bfloat16", "device_name": "a GPU"},
        questions=[{"ids": [1, 2, 3], "start": 1, "tokens": [[2], [3]]}],
        answer=answer,
        noise={},
        permitted=PERMITTED,
    )


def test_evaluate_report_reached_level_passes(case: Case) -> None:
    attempt = checked(case)
    assert evaluate_report(attempt, report()) == []
    assert attempt.verdict is Verdict.PASSED
    assert attempt.result == LoadTestResult(
        level="model",
        device="cpu",
        device_name="a CPU",
        versions={"torch": "2.13.0"},
        notes=["a note"],
        checks=["files", "loaded"],
        limited_by="No golden was recorded for this release.",
    )


def test_evaluate_report_lower_level_passes_from_minimum_level(case: Case) -> None:
    short = report(level="adapter", passed=False, limited_by="the base does not fit.")
    attempt = checked(case)
    (problem,) = evaluate_report(attempt, short)
    assert problem.problem == "reached level adapter in the load test at level model on cpu: the base does not fit."
    assert problem.remedy == "Free memory on cpu, set another device, or set minimum_level to adapter."
    assert attempt.verdict is Verdict.OPEN
    attempt = checked(case, minimum="adapter")
    assert evaluate_report(attempt, short) == []
    assert (attempt.verdict, attempt.result.limited_by) == (Verdict.PASSED, "the base does not fit.")


def test_evaluate_report_pickle_without_any_level_does_not_pass(pickle_case: Case) -> None:
    # Level structure checks nothing of a pickle, so even this minimum is not reached.
    attempt = Attempt(dataclasses.replace(pickle_case, minimum="structure"))
    (problem,) = evaluate_report(attempt, report(level=None, passed=False, limited_by="no room."))
    assert problem.problem == "reached no level in the load test at level model on cpu: no room."
    assert problem.remedy == "Free memory on cpu, set another device."
    assert attempt.verdict is Verdict.OPEN


def test_evaluate_report_failure_fails_at_any_minimum_level(case: Case) -> None:
    attempt = checked(case, minimum="structure")
    failures = [Failure("tensor x differs.", "Try again.")]
    (problem,) = evaluate_report(attempt, report(level="adapter", passed=False, failures=failures))
    assert str(problem) == "adapter adapter: failed the load test at level model on cpu: tensor x differs. Try again."
    assert attempt.verdict is Verdict.FAILED


def test_evaluate_report_equal_answer_passes_golden(case: Case) -> None:
    attempt = checked(case, required="golden", minimum="golden", golden=golden(case, ANSWER))
    assert evaluate_report(attempt, report(level="golden", answer=ANSWER)) == []
    assert (attempt.verdict, attempt.result.level) == (Verdict.PASSED, "golden")
    assert attempt.result.distances == {"on": 0, "off": 0, "direction": 1, "strength": 1, "top1": 1}
    assert attempt.result.permitted == PERMITTED
    assert attempt.result.checks[-1].startswith("Along 2 recorded tokens it answers as on the training server, within 0.000 with")
    assert attempt.result.checks[-1].endswith("recorded in bfloat16 on a GPU.")
    assert attempt.result.limited_by is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"on": ANSWER["off"], "off": ANSWER["off"]}, "answers as if the adapter were not there"),
        ({"on": [], "off": []}, "failed level golden: the golden has an answer whose form does not match"),
    ],
)
def test_evaluate_report_other_answer_fails_at_level_model(case: Case, answer: dict[str, t.Any], words: str) -> None:
    attempt = checked(case, required="golden", minimum="golden", golden=golden(case, ANSWER))
    (problem,) = evaluate_report(attempt, report(level="golden", answer=answer))
    assert words in problem.problem
    assert (attempt.verdict, attempt.result.level) == (Verdict.FAILED, "model")


def test_not_loaded_names_the_aborted_test(case: Case) -> None:
    attempt = checked(case)
    problem = not_loaded(attempt, "cuda").problem
    assert problem == "was not tested at level model on cuda, because the load test was aborted."
    assert attempt.result.limited_by == "It was not loaded: the load test on cuda was aborted."
    assert attempt.verdict is Verdict.OPEN
    assert not os.path.exists(case.paths.root)
