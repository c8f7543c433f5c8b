# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Serve all adapters of a node by all its engines, and let the files follow what is served."""

from __future__ import annotations

import contextlib
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError, Problem, collected
from .._golden.golden import golden_of
from .._store.lock import locked
from .._store.paths import AdapterPaths
from .._store.recovery import recovered
from .._store.state import read_state
from .actions import FAILED, SERVED_NOW, UNCHANGED, WENT_BACK
from .assignment import Candidate, engines_of
from .names import release_directory
from .node_engine import NodeEngine
from .restarting import server_of
from .routine import Server
from .wanted import Outcome, Wanted


class Adapter(t.NamedTuple):
    """The active release of an adapter, and the one before it."""

    wanted: Wanted
    manifest: Manifest


class Node:
    """The adapters of one node."""

    def __init__(self, models_dir: str, store: str, bases: t.Mapping[str, t.Any]) -> None:
        self._models_dir = models_dir
        self.store = store
        self.bases = bases

    def paths(self, name: str) -> AdapterPaths:
        return AdapterPaths(self._models_dir, self.store, name)

    def adapter(self, name: str, release: str | None = None) -> Adapter:
        """Return an adapter with a release, by default the active one. Raises DeliveryError."""
        paths = self.paths(name)
        release = release or recovered(paths, read_state(paths)).active
        if release is None:
            raise DeliveryError.of("", "has no active release on this node.", "Deploy it first.", name)
        manifest = paths.read_manifest(release)
        if manifest is None:
            raise DeliveryError.of(paths.manifest(release), "does not exist.", "Deploy the adapter again.", name)
        golden = golden_of(manifest) if manifest.golden is not None else None
        directory = release_directory(self.store, name, release)
        return Adapter(Wanted(name, release, manifest.digest, directory, golden), manifest)

    def serve(
        self,
        engines: t.Sequence[NodeEngine],
        names: t.Sequence[str],
        go_back: t.Callable[[str, str], None] | None,
        run: str,
        lock_timeout: float,
        check_mode: bool,
    ) -> dict[str, t.Any]:
        """Make the engines serve the active releases of adapters.

        ``go_back`` activates an earlier release of an adapter again; None leaves the files as they
        are. Returns ``adapters``, ``notes``, ``rolled_back``, ``changed`` and ``problems``, the
        latter as Problem. Raises DeliveryError if nothing could be begun.
        """
        problems: list[Problem] = []
        adapters = []
        for name in names:
            with collected(problems, name):
                adapters.append(self.adapter(name))
        if check_mode and problems:
            # An earlier task would have activated them.
            problems.clear()
        if problems:
            raise DeliveryError(*problems)
        with contextlib.ExitStack() as locks:
            for engine in () if check_mode else sorted(engines, key=lambda engine: engine.paths.root):
                try:
                    engine.paths.make()
                    locks.enter_context(locked(engine.paths.lock, run, lock_timeout))
                except OSError as exc:
                    problem = f"cannot be written: {exc.strerror}."
                    raise DeliveryError.of(str(exc.filename or engine.paths.root), problem, "Run with become.") from exc
            serving = _Serving(self, engines, adapters, problems, check_mode)
            if check_mode:
                serving.predict()
            else:
                serving.serve()
                if go_back is not None:
                    serving.go_back(go_back)
        return serving.to_json()


class _Serving:
    """One call: the engines that are up, and what became of the adapters."""

    def __init__(
        self,
        node: Node,
        engines: t.Sequence[NodeEngine],
        adapters: t.Sequence[Adapter],
        problems: list[Problem],
        check_mode: bool,
    ) -> None:
        self._node = node
        self._problems = problems
        self._notes: list[str] = []
        self._changed = False
        self._rolled_back: list[str] = []
        self._outcomes: list[tuple[NodeEngine, Server, Outcome]] = []
        self._up: list[tuple[NodeEngine, Server]] = []
        silent = False
        for engine in engines:
            server = server_of(engine.client, engine.options, engine.paths)
            try:
                if check_mode:
                    server.read()
                else:
                    self._notes += [f"{engine.options.title}: {note}" for note in server.begin()]
                self._up.append((engine, server))
            except DeliveryError as exc:
                silent = True
                problems += exc.problems
        self._assigned: list[list[Adapter]] = [[] for _engine in self._up]
        candidates = [Candidate(engine.options.title, engine.endpoint.base, server.state) for engine, server in self._up]
        for adapter in adapters:
            try:
                for number in engines_of(adapter.manifest, candidates, node.bases):
                    self._assigned[number].append(adapter)
            except DeliveryError as exc:
                # The engine of this adapter may be the one that is not up.
                problems += [] if silent else exc.problems

    def predict(self) -> None:
        for (engine, server), adapters in zip(self._up, self._assigned):
            self._add(engine, server, [server.predict(adapter.wanted) for adapter in adapters])

    def serve(self) -> None:
        for (engine, server), adapters in zip(self._up, self._assigned):
            self._add(engine, server, server.serve_all([adapter.wanted for adapter in adapters]))

    def _add(self, engine: NodeEngine, server: Server, outcomes: t.Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._outcomes.append((engine, server, outcome))
            self._problems += outcome.problems
            self._changed = self._changed or outcome.changed

    def go_back(self, go_back: t.Callable[[str, str], None]) -> None:
        """Activate what is served where an engine has gone back to an earlier release."""
        for _engine, _server, outcome in list(self._outcomes):
            name, old = outcome.wanted.name, outcome.old_release
            if (
                not outcome.problems
                or not outcome.went_back
                or old in (None, outcome.wanted.release)
                or name in self._rolled_back
            ):
                continue
            with collected(self._problems, name):
                go_back(name, old)
                self._rolled_back.append(name)
                self._changed = True
                # Another engine may have got the release before this one refused it.
                before = self._node.adapter(name, old).wanted
                for engine, server, other in list(self._outcomes):
                    if other.wanted.name == name and other.served is not None:
                        [again] = server.serve_all([before])
                        self._problems += again.problems
                        self._outcomes[self._outcomes.index((engine, server, other))] = (engine, server, again)

    def to_json(self) -> dict[str, t.Any]:
        return {
            "adapters": [_entry(engine, server, outcome) for engine, server, outcome in self._outcomes],
            "notes": self._notes,
            "rolled_back": self._rolled_back,
            "changed": self._changed,
            "problems": self._problems,
        }


def _entry(engine: NodeEngine, server: Server, outcome: Outcome) -> dict[str, t.Any]:
    served = outcome.served
    if served is not None or (outcome.predicted and not outcome.problems):
        action = SERVED_NOW if outcome.changed else UNCHANGED
    else:
        action = WENT_BACK if outcome.went_back else FAILED
    return {
        "name": outcome.wanted.name,
        "release": outcome.wanted.release,
        "engine": engine.client.name,
        "url": engine.endpoint.url,
        "version": server.state.version,
        "action": action,
        "served": served.release if served else outcome.old_release if outcome.went_back or outcome.predicted else None,
        "names": list(served.names) if served else [],
        "previous": served.previous if served else None,
        "root": served.root if served else None,
        "proof": served.proof if served else None,
        "why_unproved": served.why_unproved if served else None,
        "why": outcome.why,
        "figures": served.figures if served else None,
        "seconds": outcome.seconds,
        "notes": outcome.notes,
    }
