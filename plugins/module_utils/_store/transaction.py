# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The node's transaction: lock all adapters, recover, plan, prepare all, then activate each."""

from __future__ import annotations

import contextlib
import typing as t

from .._adapter.manifest_diff import manifest_diff
from .._errors import DeliveryError
from .._linux.rename import can_exchange
from .activate import activate, prepare
from .lock import locked
from .paths import AdapterPaths, make_store
from .plan import ActivationOptions, Plan, Request
from .prediction import AdapterResult, check_requests, os_errors, plan_all, predict, reason
from .recovery import recover, recovered
from .state import State, read_state


def carry_out(
    requests: t.Sequence[Request],
    options: ActivationOptions,
    check_mode: bool,
    done: list[AdapterResult],
    check: t.Callable[[Plan], None] | None = None,
) -> None:
    """Carry out all requests, appending each result to ``done`` as soon as it is known.

    All adapters are planned and prepared before the first served path changes; the first failure
    after planning stops the transaction with a DeliveryError. ``check`` gets each plan, and raises
    DeliveryError if it must not be carried out. Check mode predicts the results and writes nothing.
    """
    if check_mode:
        done += predict(requests, options, check)
        return
    check_requests(requests)
    before: list[State] = []
    with contextlib.ExitStack() as locks:
        # Sorted by name, so that two runs with the same adapters cannot deadlock.
        for request in sorted(requests, key=lambda request: request.paths.name):
            with os_errors(request.paths, "cannot be locked"):
                make_store(request.paths)
                locks.enter_context(locked(request.paths.lock, options.run, options.lock_timeout))
        quarantined = []
        for request in requests:
            with os_errors(request.paths, "recovery of an earlier run failed"):
                before.append(read_state(request.paths))
                quarantined.append(recover(request.paths)[1])
        plans = plan_all(requests, options, before, _can_exchange, check_mode, check)
        with _recovering(requests):
            displaced = [_attempt(prepare, plan, options) for plan in plans]
            for plan, by_recovery, by_promotion in zip(plans, quarantined, displaced):
                done.append(AdapterResult(plan, _attempt(activate, plan, options) or by_promotion or by_recovery))


def diff_of(result: AdapterResult, complete: bool = False) -> dict[str, t.Any]:
    """Return the difference in the form of Ansible's ``--diff``."""
    plan = result.plan
    changes: dict[str, t.Any] = manifest_diff(plan.before_manifest, plan.manifest, complete)
    if plan.drift:
        changes["before"]["drift"] = [difference.line() for difference in plan.drift]
    header = f"active release of {plan.request.paths.name}"
    return {"before_header": header, "after_header": header, **changes}


def _can_exchange(paths: AdapterPaths) -> bool:
    return can_exchange(paths.root, paths.models_dir, paths.name)


@contextlib.contextmanager
def _recovering(requests: t.Sequence[Request]) -> t.Iterator[None]:
    """Recover all adapters after an error, not only in the next run: a full disk needs space."""
    try:
        yield
    except DeliveryError:
        for request in requests:
            with contextlib.suppress(OSError, DeliveryError):
                recover(request.paths)
        raise


def _attempt(
    step: t.Callable[[Plan, State, ActivationOptions], t.Optional[str]], plan: Plan, options: ActivationOptions
) -> str | None:
    paths = plan.request.paths
    try:
        return step(plan, recovered(paths, read_state(paths)), options)
    except (OSError, DeliveryError) as exc:
        raise DeliveryError.of(
            f"release {plan.release}",
            f"activation failed: {reason(exc)}. {_active_release(paths)}",
            "Fix the problem and run again; the staged files have been kept.",
            paths.name,
        ) from exc


def _active_release(paths: AdapterPaths) -> str:
    try:
        active = recovered(paths, read_state(paths)).active
    except (OSError, DeliveryError):
        return f"Check {paths.served}: the active release is unknown."
    return f"Release {active} is active." if active else f"{paths.served} is unchanged."
