# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Test all adapters of a node and record the receipts: the work of module adapter_load_test."""

from __future__ import annotations

import typing as t

from .._base.identity import Identities
from .._errors import DeliveryError, Problem, collected
from .attempt import Attempt, Verdict, describe_receipt, receipts_diff
from .case import find_cases
from .checks import check_before_loading
from .evaluation import not_loaded
from .interpreter import Environment, read_environment
from .options import LoadTestOptions

Warn = t.Callable[[str], None]


def run_load_test(options: LoadTestOptions, scratch: str, check_mode: bool, warn: Warn) -> tuple[dict[str, t.Any], list[Problem]]:
    """Test all adapters and record the receipts; returns the module's results and the problems.

    ``scratch`` is a directory for temporary files. Raises DeliveryError for a bad manifest.
    """
    cases, problems = find_cases(options)
    attempts = [Attempt(case) for case in cases]
    environment = Environment()
    if any(case.required != "structure" for case in cases):
        try:
            environment = read_environment(options.python, options.device, options.user, warn)
        except DeliveryError as exc:
            # In check mode, an earlier task of the same run may be about to install the
            # interpreter.
            if not check_mode:
                problems.extend(exc.problems)

    pending, found = _check_all(attempts, environment, options, check_mode)
    problems.extend(found)
    seconds = 0.0
    to_load = [attempt for attempt in pending if attempt.case.required != "structure"]
    if to_load and not check_mode:
        if environment.digest is None:
            problems.extend(not_loaded(attempt, options.device) for attempt in to_load)
        else:
            # Level structure needs no worker, whose files take longer to load than all the rest.
            from .loading import load_all

            seconds, found = load_all(to_load, options, scratch, warn)
            problems.extend(found)
    for attempt in pending:
        for note in attempt.result.notes:
            warn(f"adapter {attempt.case.name}: {note}")

    new = _new_receipts(pending, environment, options, check_mode)
    results = {"changed": bool(new), "adapters": [attempt.to_json() for attempt in attempts], "seconds": seconds}
    if check_mode:
        diff = receipts_diff(new, lambda attempt: f"to be tested at level {attempt.case.required} on {options.device}")
    else:
        diff = receipts_diff(new, lambda attempt: describe_receipt(attempt.to_json()))
        problems.extend(_write_all(new, environment))
    if options.record:
        problems.extend(_withdraw_failed(pending))
    return {**results, "diff": diff}, problems


def _check_all(
    attempts: list[Attempt], environment: Environment, options: LoadTestOptions, check_mode: bool
) -> tuple[list[Attempt], list[Problem]]:
    """Check all cases before loading; returns those without a valid receipt, and the problems."""
    pending: list[Attempt] = []
    problems: list[Problem] = []
    identities = Identities()
    for attempt in attempts:
        try:
            check_before_loading(attempt, environment, options, identities, check_mode)
        except DeliveryError as exc:
            problems.extend(exc.problems)
        else:
            if attempt.verdict is not Verdict.FROM_RECEIPT:
                pending.append(attempt)
    return pending, problems


def _new_receipts(pending: list[Attempt], environment: Environment, options: LoadTestOptions, check_mode: bool) -> list[Attempt]:
    """Return the attempts that get a new receipt; in check mode, those that are expected to."""
    if not options.record:
        return []
    if check_mode:
        # An adapter that could not reach more the last time is not expected to reach it now.
        levels = [(attempt, attempt.case.minimum) for attempt in pending]
    else:
        levels = [(attempt, t.cast(str, attempt.result.level)) for attempt in pending if attempt.verdict is Verdict.PASSED]
    return [attempt for attempt, level in levels if options.force or attempt.case.improves_receipt(level, environment.digest)]


def _write_all(attempts: list[Attempt], environment: Environment) -> list[Problem]:
    problems: list[Problem] = []
    for attempt in attempts:
        with collected(problems, attempt.case.name):
            attempt.write_receipt(environment.digest)
    return problems


def _withdraw_failed(attempts: list[Attempt]) -> list[Problem]:
    problems: list[Problem] = []
    for attempt in attempts:
        if attempt.verdict is Verdict.FAILED and attempt.case.receipt is not None:
            with collected(problems, attempt.case.name):
                attempt.withdraw_receipt()
    return problems
