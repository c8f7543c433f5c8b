# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The node's transaction: for all adapters of a host, lock, settle, check all of them, then one after the other."""

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
from .plan import UNCHANGED, Options, Plan, Request, make_plan
from .preflight import check_places
from .recovery import settle, settled
from .state import State, read_state


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was done (in check mode: what would be) for one adapter."""

    plan: Plan
    adopted: t.Optional[str]

    @property
    def changed(self) -> bool:
        return self.plan.action != UNCHANGED or self.plan.record_manifest or bool(self.adopted) or bool(self.plan.prune)

    def to_json(self) -> dict[str, t.Any]:
        """As adapter_release returns it."""
        plan, paths, manifest = self.plan, self.plan.request.paths, self.plan.manifest
        return {
            "name": paths.name,
            "release": manifest.release,
            **manifest.content(),
            "previous": plan.after.previous,
            "history": [dataclasses.asdict(entry) for entry in plan.after.without(plan.prune).history],
            "action": plan.action,
            "activation": plan.way,
            "path": paths.release(manifest.release),
            "served": paths.live,
            "receipt": plan.receipt,
            "adopted": self.adopted,
            "pruned": list(plan.prune),
            "drift": [difference.line() for difference in plan.drift],
        }

    def diff(self, complete: bool = False) -> dict[str, t.Any]:
        """As Ansible shows it."""
        changes: dict[str, t.Any] = manifest_diff(self.plan.before_manifest, self.plan.manifest, complete)
        if self.plan.drift:
            changes["before"]["drift"] = [difference.line() for difference in self.plan.drift]
        header = f"active release of {self.plan.request.paths.name}"
        return {"before_header": header, "after_header": header, **changes}


def carry_out(requests: t.Sequence[Request], options: Options, check_mode: bool, done: list[Outcome]) -> None:
    """Do what is wanted of each adapter, appending to C(done) as it goes; in check mode predict it and write nothing.

    Raises DeliveryError. All adapters are checked before the first one is changed; the first failure after that stops.
    """
    for request in requests:
        with _told(request.paths, "could not be looked at"):
            _check_request(request, requests)
    if check_mode:
        before = [read_state(request.paths) for request in requests]
        plans = _plan_all(requests, options, before, check_mode)
        done += [Outcome(plan, plan.adopted) for plan in plans]
        return
    with contextlib.ExitStack() as locks:
        # In the order of names, so that two runs with the same adapters cannot wait for each other.
        for request in sorted(requests, key=lambda request: request.paths.name):
            with _told(request.paths, "could not be locked"):
                make_store(request.paths)
                locks.enter_context(locked(request.paths.lock, request.paths.name, options.run, options.lock_timeout))
        before, set_aside = [], []
        for request in requests:
            with _told(request.paths, "what an earlier run left could not be brought in order"):
                before.append(read_state(request.paths))
                set_aside.append(settle(request.paths)[1])
        plans = _plan_all(requests, options, before, check_mode)
        for plan, adopted in zip(plans, set_aside):
            done.append(Outcome(plan, _apply(plan, options) or adopted))


def _check_request(request: Request, requests: t.Sequence[Request]) -> None:
    paths = request.paths
    check_places(paths.models_dir, os.path.dirname(paths.root))
    if [other.paths.name for other in requests].count(paths.name) > 1:
        raise DeliveryError.of("", "is named more than once.", "Name each adapter once.")
    if request.manifest is not None and request.manifest.name != paths.name:
        raise DeliveryError.of("", f"got the manifest of {request.manifest.name}.", "Freeze it again.")
    if request.manifest is None and not os.path.isdir(paths.root):
        raise DeliveryError.of("", "was never deployed to this node.", "Deploy it first.")


def _plan_all(requests: t.Sequence[Request], options: Options, before: t.Sequence[State], check_mode: bool) -> list[Plan]:
    plans: list[Plan] = []
    problems: list[Problem] = []
    for request, state in zip(requests, before):
        with collected(problems, request.paths.name), _told(request.paths, "could not be looked at"):
            plans.append(make_plan(request, options, state, _prober(request.paths, check_mode), check_mode))
    if problems:
        raise DeliveryError(*problems)
    return plans


def _prober(paths: AdapterPaths, check_mode: bool) -> t.Callable[[], bool]:
    """A probe writes, so check mode takes it that the file system can, as nearly all do."""
    if check_mode:
        return lambda: True
    return lambda: can_exchange(paths.root, paths.models_dir, paths.name)


def _apply(plan: Plan, options: Options) -> t.Optional[str]:
    paths = plan.request.paths
    try:
        return apply_plan(plan, settled(paths, read_state(paths)), options)
    except (OSError, DeliveryError) as exc:
        # Not for the next run only: a full disk needs its space back now.
        with contextlib.suppress(OSError, DeliveryError):
            settle(paths)
        raise DeliveryError.of(
            f"release {plan.release}",
            f"was not made active to the end: {_reason(exc)}. {_what_is_active(paths)}",
            "Mend that and run again; what was staged is kept.",
            paths.name,
        ) from exc


@contextlib.contextmanager
def _told(paths: AdapterPaths, what: str) -> t.Iterator[None]:
    """Attribute errors to the adapter, those of the operating system too."""
    with about(paths.name):
        try:
            yield
        except OSError as exc:
            raise DeliveryError.of("", f"{what}: {_reason(exc)}.", "Mend that and run again.") from exc


def _reason(exc: t.Union[OSError, DeliveryError]) -> str:
    if isinstance(exc, DeliveryError):
        return str(exc).rstrip(".")
    names = " -> ".join(str(name) for name in (exc.filename, exc.filename2) if name)
    return f"{exc.strerror}: {names}" if names else str(exc.strerror or exc)


def _what_is_active(paths: AdapterPaths) -> str:
    try:
        active = settled(paths, read_state(paths)).active
    except (OSError, DeliveryError):
        return f"See {paths.live} for what is active."
    return f"Active is release {active}." if active else "What stood there before still does."
