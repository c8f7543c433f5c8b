# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Whether a node serves what is offered already, so that nothing is to be brought, loaded or made active."""

from __future__ import annotations

import typing as t

from ._base.identity import Identities
from ._errors import DeliveryError
from ._levels import LEVELS
from ._load_test.case import Case, cases_of
from ._load_test.checks import judge
from ._load_test.host import Host, look_at_host
from ._load_test.interpreter import check_device
from ._load_test.serving_user import ServingUser, check_readable
from ._store.permissions import permissions_of
from ._store.plan import Options, Request
from ._store.recovery import is_settled
from ._store.transaction import Outcome, carry_out


def look_at_all(params: dict[str, t.Any], warn: t.Callable[[str], None]) -> list[dict[str, t.Any]]:
    """Each adapter as adapter_release returns one to which nothing had to be done, and what its load test has to reach.

    C(params) are those of module adapter_current. Reads only. Raises DeliveryError, with what speaks against it, where
    anything has to be done to any of them. No file is hashed unless all receipts stand.
    """
    check_device(params["device"])
    permissions = permissions_of(params)
    user = ServingUser.named(params["user"]) if params["user"] else None
    if user is not None:
        check_readable(user, permissions)
    options = Options(LEVELS[0], params["activation"], params["keep"], permissions)
    cases, problems = cases_of(params)
    if problems:
        raise DeliveryError(*problems)
    # What is new here has none, and asks no interpreter for its versions.
    for case in cases:
        if case.receipt is None:
            raise _not_verified(case)
    warnings: list[str] = []
    host = Host()
    if any(case.required != LEVELS[0] for case in cases):
        host = look_at_host(params["python"], params["device"], user, warnings.append)
    try:
        for case in cases:
            _check_receipt(case, host, params)
        done = _unchanged(cases, options)
    except OSError as exc:
        raise DeliveryError.of(params["store"], f"cannot be looked at: {exc}.") from exc
    # Otherwise the tasks that follow say them.
    for warning in warnings:
        warn(warning)
    return [{**outcome.to_json(), "required_level": case.required, "from_receipt": True} for case, outcome in zip(cases, done)]


def _not_verified(case: Case) -> DeliveryError:
    return DeliveryError.of(case.subject, f"has no receipt of level {case.required} that stands here.")


def _check_receipt(case: Case, host: Host, params: dict[str, t.Any]) -> None:
    if not case.stands(case.required, host.digest):
        raise _not_verified(case)
    if not is_settled(case.paths):
        raise DeliveryError.of(case.subject, "has something left of an earlier run.")
    judge(case, host, {**params, "force": False}, Identities(), check_mode=True)


def _unchanged(cases: list[Case], options: Options) -> list[Outcome]:
    """What making them active would do, which is nothing."""
    done: list[Outcome] = []
    carry_out([Request(case.paths, manifest=case.manifest) for case in cases], options, True, done)
    for case, outcome in zip(cases, done):
        # The state too: a damaged one may say less of the same release.
        if outcome.changed or outcome.plan.after != outcome.plan.before:
            drift = "".join(f": {difference.line()}" for difference in outcome.plan.drift[:1])
            raise DeliveryError.of(case.subject, f"is not as it is to be{drift}.")
    return done
