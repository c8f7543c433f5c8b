# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The preflight of serving: whether the engines of a node have room for its adapters.

A switch has two releases of an adapter side by side. An engine that has no place for the second one
refuses it, or drops another adapter, and that would be found out after the transfer only.
"""

from __future__ import annotations

import functools
import math
import typing as t

from .._adapter.manifest import Manifest
from .._engines.declared import DeclaredEngine, declared_engines
from .._engines.judgement import ENFORCE
from .._engines.rules.form import Adapter, Places
from .._engines.rules.table import rules_of
from .._errors import DeliveryError
from .._load_test.worker.device import available_memory
from .._serving.assignment import Candidate, engines_of
from .._serving.contract import Busy, Capacity, Dead, EngineError, EngineState, Unanswered
from .._serving.desired import Desired, read_desired
from .._serving.engines.table import client_of
from .._serving.names import public_name
from .._serving.node_engine import NodeEngine, node_engines, title_of
from .._text import count, human_bytes
from .checklist import FAILED, WARNING, Checklist
from .host import adapter_check

# An engine that serves answers these requests at once.
_TIMEOUT = 10
_ANYWAY = "To deliver nevertheless, set engine_policy to report."


class _Asked(t.NamedTuple):
    """What an engine says of itself, and what it has to serve. ``names`` are those of its list."""

    engine: NodeEngine
    answers: bool
    state: EngineState
    capacity: Capacity
    names: frozenset[str]
    desired: Desired

    @property
    def title(self) -> str:
        return self.engine.options.title

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.title, self.engine.endpoint.base, self.state)


def check_serving(checklist: Checklist, params: dict[str, t.Any], manifests: t.Collection[Manifest]) -> None:
    """Add a check for each engine that has a url, which is to get the adapters in ``manifests``.

    Takes the options ``engines``, ``engine_policy``, ``bases`` and ``store``. Raises DeliveryError
    for bad engines.
    """
    declared = [one for one in declared_engines(params["engines"], "engines") if one.endpoint is not None]
    asked = [one for one in (_ask(checklist, engine, params["store"]) for engine in declared) if one is not None]
    assigned: list[list[Manifest]] = [[] for _engine in asked]
    for manifest in manifests if asked else ():
        try:
            for number in engines_of(manifest, [one.candidate for one in asked], params["bases"]):
                assigned[number].append(manifest)
        except DeliveryError as exc:
            # The engine of this adapter may be one that does not answer.
            if len(asked) == len(declared) and all(one.answers for one in asked):
                checklist.fail(adapter_check(manifest.name), exc.problems, adapter=manifest.name)
    for one, adapters in zip(asked, assigned):
        _check_room(checklist, one, adapters, params["engine_policy"] == ENFORCE)


def _ask(checklist: Checklist, declared: DeclaredEngine, store: str) -> _Asked | None:
    """Ask an engine. Returns None if a delivery could not tell it anything."""
    check = title_of(declared)
    with checklist.checking(check):
        [engine] = node_engines([declared], store, functools.partial(client_of, timeout=_TIMEOUT))
        desired = read_desired(engine.paths)
        version = declared.on_this_host()[0].version
        silent = _Asked(engine, False, EngineState(version), Capacity(), frozenset(), desired)
        try:
            state = engine.client.state()
            names = frozenset(public_name(row.name) for row in engine.client.listed())
            return silent._replace(
                answers=True,
                state=state if state.version else state._replace(version=version),
                capacity=engine.client.capacity(),
                names=names,
            )
        except (Dead, Busy, Unanswered) as exc:
            # It may have started when it has to load them.
            checklist.add(check, WARNING, f"{exc.message.rstrip('.')}.", engine.options.restart)
            return silent
        except EngineError as exc:
            checklist.add(check, FAILED, f"{exc.message.rstrip('.')}.", exc.remedy)
    return None


def _check_room(checklist: Checklist, asked: _Asked, adapters: t.Sequence[Manifest], enforced: bool) -> None:
    if asked.engine.client.restarts:
        if asked.answers:
            checklist.ok(asked.title, "gets its adapters at its start: no two releases of one are loaded side by side")
        return
    names = asked.names | set(asked.desired.adapters) | {manifest.name for manifest in adapters}
    found, fits = [], True
    for places in _applying(asked):
        most, source = _limit(asked, places.setting)
        needed = places.needed(len(names))
        if source is None:
            said = f"{_needed(places, len(names))}, and {places.setting} is not known."
            checklist.unknown(asked.title, f"{said} State {places.setting} in engines")
        elif most and most < needed:
            fits = False
            said = f"{_needed(places, len(names))}, and {places.setting} is {most} ({source}). It {places.does}."
            remedy = f"Start it with {places.setting} {needed} or more."
            if places.fails and enforced:
                checklist.add(asked.title, FAILED, said, f"{remedy} {_ANYWAY}")
            else:
                checklist.add(asked.title, WARNING, said, remedy)
        else:
            found.append(f"{needed} of {most or 'any number of'} places ({places.setting})")
    memory, remedy = _memory(asked, adapters)
    if remedy:
        state, more = (FAILED, f" {_ANYWAY}") if enforced else (WARNING, "")
        checklist.add(asked.title, state, memory, f"{remedy}{more}")
    elif fits and asked.answers:
        checklist.ok(asked.title, "; ".join([count(len(names), "adapter"), *found, memory]))


def _applying(asked: _Asked) -> t.Iterator[Places]:
    """Yield the limits of an engine in its version and with its settings."""
    declared, seen = asked.engine.declared, set()
    for places in rules_of(declared.name).places:
        fitting = places.when is None or places.when.holds(Adapter(()), declared.settings)
        version = asked.state.version
        in_range = places.versions is None or (version is not None and any(one.has(version) for one in places.versions))
        if fitting and in_range and places.setting not in seen:
            seen.add(places.setting)
            yield places


def _limit(asked: _Asked, setting: str) -> tuple[int | None, str | None]:
    """Return a limit, None or 0 for no limit, and who says so, None if nobody does."""
    if setting in asked.capacity.places:
        return asked.capacity.places[setting], "read from it"
    stated = asked.engine.declared.settings.get(setting)
    return stated, None if stated is None else "stated in engines"


def _needed(places: Places, adapters: int) -> str:
    """Return a clause on the places that an engine needs."""
    each = f"two for each of {count(adapters, 'adapter')}" if places.twice else f"one for each of {count(adapters, 'adapter')}"
    more = "" if places.twice else ", one for the next release of an adapter during a switch"
    base = ", one for the base" if places.base else ""
    return f"needs {places.needed(adapters)} places: {each}{more}{base}"


def _memory(asked: _Asked, adapters: t.Iterable[Manifest]) -> tuple[str, str]:
    """Return what is known of the memory for new releases, and a remedy if it is too little.

    The engine needs at least the adapters that it does not have, and one release beside an old one.
    """
    # With allow_remote, it may be on another host.
    here = not asked.engine.endpoint.allow_remote
    in_memory = here and any(places.in_memory for places in rules_of(asked.engine.declared.name).places)
    free = asked.capacity.free_bytes
    what, remedy = "the engine's limit", "Raise the limit of the engine on the memory of adapters."
    if free is None and in_memory:
        free = available_memory()
        what, remedy = "memory of this host", "Free memory on this host, or serve fewer adapters there."
    if free is None:
        return "the memory that it has for adapters is not known here", ""
    recorded = asked.desired.adapters
    # An engine that was restarted has lost what is recorded.
    loaded = asked.names if asked.answers else recorded.keys()
    sizes = {
        manifest.name: _bytes(manifest, asked.engine.declared.settings.get("dtype"))
        for manifest in adapters
        if manifest.name not in loaded or manifest.name not in recorded or recorded[manifest.name].release != manifest.release
    }
    added = sum(size for name, size in sizes.items() if name not in loaded)
    needed = added + max(sizes.values(), default=0)
    need, left = f"at least {human_bytes(needed)}", human_bytes(free)
    if needed > free:
        return f"needs {need} for new releases beside the old ones, and {left} are left of {what}.", remedy
    return f"{need} for releases side by side, {left} left of {what}; that of a GPU is not known", ""


def _bytes(manifest: Manifest, dtype: str | None) -> int:
    """Return the size of an adapter in an engine that computes in ``dtype``, None if not stated."""
    if dtype is None or not manifest.tensors:
        return max(entry.size for entry in manifest.files if entry.path == manifest.weights_file)
    return sum(math.prod(tensor.shape) for tensor in manifest.tensors) * (4 if dtype == "float32" else 2)
