# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Check and plan the requests of a transaction, and predict its results. Reads only."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import typing as t

from .._errors import DeliveryError, Problem, about, collected
from .paths import AdapterPaths, check_owners
from .plan import UNCHANGED, ActivationOptions, Plan, Request, make_plan
from .preflight import check_directories
from .state import State, read_state


@dataclasses.dataclass(frozen=True)
class AdapterResult:
    """The result of the transaction for one adapter; in check mode, the predicted result."""

    plan: Plan
    # Where displaced content was quarantined, if there was any.
    adopted: str | None

    @property
    def changed(self) -> bool:
        return self.plan.action != UNCHANGED or self.plan.save_manifest or bool(self.adopted) or bool(self.plan.expired)

    def to_json(self) -> dict[str, t.Any]:
        """Return one entry of the results of adapter_release."""
        plan, paths, manifest = self.plan, self.plan.request.paths, self.plan.manifest
        return {
            "name": paths.name,
            "release": manifest.release,
            **manifest.content(),
            "previous": plan.after.previous,
            "history": [dataclasses.asdict(entry) for entry in plan.after.without(plan.expired).history],
            "action": plan.action,
            "activation": plan.method,
            "path": paths.release(manifest.release),
            "served": paths.served,
            "receipt": plan.receipt,
            "adopted": self.adopted,
            "pruned": list(plan.expired),
            "drift": [difference.line() for difference in plan.drift],
        }


def predict(
    requests: t.Sequence[Request], options: ActivationOptions, check: t.Callable[[Plan], None] | None = None
) -> list[AdapterResult]:
    """Return the results that the transaction would have now. Raises DeliveryError.

    A probe of the file system would write, so exchange counts as supported, as it nearly always is.
    """
    check_requests(requests)
    before: list[State] = []
    for request in requests:
        with about(request.paths.name):
            before.append(read_state(request.paths))
    plans = plan_all(requests, options, before, lambda _paths: True, True, check)
    return [AdapterResult(plan, plan.adopted) for plan in plans]


def check_requests(requests: t.Sequence[Request]) -> None:
    """Raises DeliveryError for the first request that cannot be carried out."""
    for request in requests:
        with os_errors(request.paths, "cannot be inspected"):
            _check_request(request, requests)


def _check_request(request: Request, requests: t.Sequence[Request]) -> None:
    paths = request.paths
    check_directories(paths.models_dir, paths.store)
    check_owners(paths)
    if [other.paths.name for other in requests].count(paths.name) > 1:
        raise DeliveryError.of("", "is named more than once.", "Name each adapter once.")
    if request.manifest is not None and request.manifest.name != paths.name:
        raise DeliveryError.of("", f"got the manifest of {request.manifest.name}.", "Describe it again.")
    if request.manifest is None and not os.path.isdir(paths.root):
        raise DeliveryError.of("", "was never deployed to this node.", "Deploy it first.")


def plan_all(
    requests: t.Sequence[Request],
    options: ActivationOptions,
    before: t.Sequence[State],
    can_exchange: t.Callable[[AdapterPaths], bool],
    check_mode: bool,
    check: t.Callable[[Plan], None] | None = None,
) -> list[Plan]:
    """Plan all requests. Raises DeliveryError with the problems of all of them."""
    plans: list[Plan] = []
    problems: list[Problem] = []
    for request, state in zip(requests, before):
        with collected(problems, request.paths.name), os_errors(request.paths, "cannot be inspected"):
            probe = functools.partial(can_exchange, request.paths)
            plan = make_plan(request, options, state, probe, check_mode)
            if check is not None:
                check(plan)
            plans.append(plan)
    if problems:
        raise DeliveryError(*problems)
    return plans


@contextlib.contextmanager
def os_errors(paths: AdapterPaths, what: str) -> t.Iterator[None]:
    """Attribute the errors of the block to the adapter, and raise an OSError as a DeliveryError."""
    with about(paths.name):
        try:
            yield
        except OSError as exc:
            raise DeliveryError.of("", f"{what}: {reason(exc)}.", "Fix the problem and run again.") from exc


def reason(exc: OSError | DeliveryError) -> str:
    """Return an error as a part of a sentence."""
    if isinstance(exc, DeliveryError):
        return str(exc).rstrip(".")
    names = " -> ".join(str(name) for name in (exc.filename, exc.filename2) if name)
    return f"{exc.strerror}: {names}" if names else str(exc.strerror or exc)
