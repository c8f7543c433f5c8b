# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The node's transaction: lock all adapters, recover, check them, then activate one by one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from .._adapter.manifest_diff import manifest_diff
from .._errors import DeliveryError, Problem, about, collected
from .._linux.rename import can_exchange
from .activate import apply_plan
from .lock import locked
from .paths import AdapterPaths, make_store
from .plan import UNCHANGED, ActivationOptions, Plan, Request, make_plan
from .preflight import check_directories
from .recovery import recover, recovered
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

    def diff(self, complete: bool = False) -> dict[str, t.Any]:
        """Return the difference in the form of Ansible's ``--diff``."""
        changes: dict[str, t.Any] = manifest_diff(self.plan.before_manifest, self.plan.manifest, complete)
        if self.plan.drift:
            changes["before"]["drift"] = [difference.line() for difference in self.plan.drift]
        header = f"active release of {self.plan.request.paths.name}"
        return {"before_header": header, "after_header": header, **changes}


def carry_out(requests: t.Sequence[Request], options: ActivationOptions, check_mode: bool, done: list[AdapterResult]) -> None:
    """Carry out all requests, appending each result to ``done`` as soon as it is known.

    All adapters are checked before the first one changes; the first failure after that stops the
    transaction with a DeliveryError. Check mode predicts the results and writes nothing.
    """
    for request in requests:
        with _os_errors(request.paths, "cannot be inspected"):
            _check_request(request, requests)
    before: list[State] = []
    if check_mode:
        for request in requests:
            with about(request.paths.name):
                before.append(read_state(request.paths))
        plans = _plan_all(requests, options, before, check_mode)
        done += [AdapterResult(plan, plan.adopted) for plan in plans]
        return
    with contextlib.ExitStack() as locks:
        # Sorted by name, so that two runs with the same adapters cannot deadlock.
        for request in sorted(requests, key=lambda request: request.paths.name):
            with _os_errors(request.paths, "cannot be locked"):
                make_store(request.paths)
                locks.enter_context(locked(request.paths.lock, options.run, options.lock_timeout))
        quarantined = []
        for request in requests:
            with _os_errors(request.paths, "recovery of an earlier run failed"):
                before.append(read_state(request.paths))
                quarantined.append(recover(request.paths)[1])
        plans = _plan_all(requests, options, before, check_mode)
        for plan, adopted in zip(plans, quarantined):
            done.append(AdapterResult(plan, _apply(plan, options) or adopted))


def _check_request(request: Request, requests: t.Sequence[Request]) -> None:
    paths = request.paths
    check_directories(paths.models_dir, paths.store)
    if [other.paths.name for other in requests].count(paths.name) > 1:
        raise DeliveryError.of("", "is named more than once.", "Name each adapter once.")
    if request.manifest is not None and request.manifest.name != paths.name:
        raise DeliveryError.of("", f"got the manifest of {request.manifest.name}.", "Describe it again.")
    if request.manifest is None and not os.path.isdir(paths.root):
        raise DeliveryError.of("", "was never deployed to this node.", "Deploy it first.")


def _plan_all(
    requests: t.Sequence[Request], options: ActivationOptions, before: t.Sequence[State], check_mode: bool
) -> list[Plan]:
    plans: list[Plan] = []
    problems: list[Problem] = []
    for request, state in zip(requests, before):
        with collected(problems, request.paths.name), _os_errors(request.paths, "cannot be inspected"):
            plans.append(make_plan(request, options, state, _exchange_probe(request.paths, check_mode), check_mode))
    if problems:
        raise DeliveryError(*problems)
    return plans


def _exchange_probe(paths: AdapterPaths, check_mode: bool) -> t.Callable[[], bool]:
    """Return a function that tells whether the file system supports exchange.

    The probe writes, so check mode assumes that it does, as nearly all file systems do.
    """
    if check_mode:
        return lambda: True
    return lambda: can_exchange(paths.root, paths.models_dir, paths.name)


def _apply(plan: Plan, options: ActivationOptions) -> str | None:
    paths = plan.request.paths
    try:
        return apply_plan(plan, recovered(paths, read_state(paths)), options)
    except (OSError, DeliveryError) as exc:
        # Recover now, not only in the next run: a full disk needs its space back.
        with contextlib.suppress(OSError, DeliveryError):
            recover(paths)
        raise DeliveryError.of(
            f"release {plan.release}",
            f"activation failed: {_reason(exc)}. {_active_release(paths)}",
            "Fix the problem and run again; the staged files have been kept.",
            paths.name,
        ) from exc


@contextlib.contextmanager
def _os_errors(paths: AdapterPaths, what: str) -> t.Iterator[None]:
    """Attribute the errors of the block to the adapter, and raise an OSError as a DeliveryError."""
    with about(paths.name):
        try:
            yield
        except OSError as exc:
            raise DeliveryError.of("", f"{what}: {_reason(exc)}.", "Fix the problem and run again.") from exc


def _reason(exc: OSError | DeliveryError) -> str:
    if isinstance(exc, DeliveryError):
        return str(exc).rstrip(".")
    names = " -> ".join(str(name) for name in (exc.filename, exc.filename2) if name)
    return f"{exc.strerror}: {names}" if names else str(exc.strerror or exc)


def _active_release(paths: AdapterPaths) -> str:
    try:
        active = recovered(paths, read_state(paths)).active
    except (OSError, DeliveryError):
        return f"Check {paths.served}: the active release is unknown."
    return f"Release {active} is active." if active else f"{paths.served} is unchanged."
