# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Load the adapters of a node with PEFT, and evaluate what the worker reports of them."""

from __future__ import annotations

import contextlib
import typing as t

from .._errors import DeliveryError, Problem
from .access import check_targets_readable
from .attempt import Attempt
from .evaluation import evaluate_report, not_loaded
from .launch import WorkerRun, run_worker
from .options import LoadTestOptions


def load_all(
    attempts: list[Attempt], options: LoadTestOptions, scratch: str, warn: t.Callable[[str], None]
) -> tuple[float, list[Problem]]:
    """Load adapters with PEFT in one worker process; returns its seconds and the problems."""
    targets = [attempt.case.target(attempt.case.directory) for attempt in attempts if attempt.case.directory is not None]
    # Only the active release is readable for the serving user; staged files are not yet.
    directories = [target.directory for target in targets]
    user = options.user
    try:
        with user.may_read(directories) if user else contextlib.nullcontext():
            if user is not None and user.throw_away:
                check_targets_readable(options.python, user, targets)
            outcome = run_worker(options.python, options.device, targets, options.timeout, scratch, user, options.memory_limit)
    except DeliveryError as exc:
        outcome = WorkerRun({}, 0.0, exc.problems)
    problems = list(outcome.problems)
    for attempt in attempts:
        report = outcome.reports.get(attempt.case.name)
        if report is None:
            problems.append(not_loaded(attempt, options.device))
            continue
        problems.extend(evaluate_report(attempt, report))
        attempt.result.isolation = list(outcome.isolation)
        for warning in report.warnings:
            warn(f"adapter {attempt.case.name}: {warning}")
    return outcome.seconds, problems
