# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Check whether a node already serves the described releases, so that no later task has anything to do."""

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
from ._store.recovery import needs_recovery
from ._store.transaction import AdapterResult, carry_out


def check_up_to_date(params: dict[str, t.Any], warn: t.Callable[[str], None]) -> list[dict[str, t.Any]]:
    """Return the active release of each adapter as module adapter_up_to_date_info returns it.

    Reads only. Raises DeliveryError with the reasons if anything has to be done for any adapter. No file is hashed unless all
    receipts are valid.
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
    # A release that is new on this node has no receipt: no interpreter has to be started to find that out.
    for case in cases:
        if case.receipt is None:
            raise _no_valid_receipt(case)
    warnings: list[str] = []
    host = Host()
    if any(case.required != LEVELS[0] for case in cases):
        host = look_at_host(params["python"], params["device"], user, warnings.append)
    try:
        for case in cases:
            _check_receipt(case, host, params)
        outcomes = _unchanged(cases, options)
    except OSError as exc:
        raise DeliveryError.of(params["store"], f"cannot be inspected: {exc}.") from exc
    # If the node is not up to date, adapter_load_test gives these warnings.
    for warning in warnings:
        warn(warning)
    return [_entry(case, outcome) for case, outcome in zip(cases, outcomes)]


def _entry(case: Case, outcome: AdapterResult) -> dict[str, t.Any]:
    released = outcome.to_json()
    keys = ("name", "release", "digest", "size", "files", "previous", "history", "activation", "path", "receipt")
    return {**{key: released[key] for key in keys}, "required_level": case.required}


def _no_valid_receipt(case: Case) -> DeliveryError:
    return DeliveryError.of(case.subject, f"no valid receipt for level {case.required} on this node.")


def _check_receipt(case: Case, host: Host, params: dict[str, t.Any]) -> None:
    if not case.stands(case.required, host.digest):
        raise _no_valid_receipt(case)
    if needs_recovery(case.paths):
        raise DeliveryError.of(case.subject, "an earlier run left unfinished work.")
    judge(case, host, {**params, "force": False}, Identities(), check_mode=True)


def _unchanged(cases: list[Case], options: Options) -> list[AdapterResult]:
    """The outcomes of activating these releases, none of which changes anything. Raises DeliveryError if one would."""
    outcomes: list[AdapterResult] = []
    carry_out([Request(case.paths, manifest=case.manifest) for case in cases], options, True, outcomes)
    for case, outcome in zip(cases, outcomes):
        # A damaged state can record less about the same release.
        if outcome.changed or outcome.plan.after != outcome.plan.before:
            drift = "".join(f": {difference.line()}" for difference in outcome.plan.drift[:1])
            raise DeliveryError.of(case.subject, f"differs from the desired state{drift}.")
    return outcomes
