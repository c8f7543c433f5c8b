# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What the engines of a node really serve: lists, records and answers. Reads only."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import DeliveryError
from .assignment import Candidate, engines_of
from .contract import EngineError, Listed, Refused, Unauthorized, Unsupported
from .desired import SERVED, UNPROVED, Desired, read_desired
from .evidence import GONE, NOT_LOADED, WRONG, Evidence, Known, evidence, strangers
from .node import Adapter, Node
from .node_engine import NodeEngine
from .probe import ProbeFailed
from .restarting import server_of
from .routine import Server


@dataclasses.dataclass
class _Inspected:
    """An engine, its list, and a sentence on why it does not answer, empty if it does.

    ``unauthorized`` is whether it is up, but tells nothing without another API key.
    """

    engine: NodeEngine
    server: Server
    rows: dict[str, Listed]
    desired: Desired
    problem: str = ""
    unauthorized: bool = False

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.engine.options.title, self.engine.endpoint.base, self.server.state)

    def to_json(self, names: t.Sequence[str]) -> dict[str, t.Any]:
        state = self.server.state
        return {
            "engine": self.engine.client.name,
            "url": self.engine.endpoint.url,
            "version": state.version,
            "base": state.base,
            "proves": self.engine.client.proves,
            "problem": self.problem,
            "strangers": strangers(names, self.rows.values(), state.base),
        }


def inspect(
    node: Node, engines: t.Sequence[NodeEngine], names: t.Sequence[str], expected: t.Sequence[str], probe: bool
) -> dict[str, t.Any]:
    """Return what the engines serve of these adapters, as adapter_serve_info returns it.

    ``expected`` are all adapters of the node; others are strangers. With ``probe``, the engines are
    asked for answers. Raises DeliveryError for a damaged record.
    """
    adapters = {name: _adapter(node, name) for name in names}
    inspected = [_inspected(engine) for engine in engines]
    candidates = [one.candidate for one in inspected]
    entries = [
        _entry(one, name, adapter, node.store, probe)
        for number, one in enumerate(inspected)
        for name, adapter in adapters.items()
        if adapter is None or _may_have(adapter, candidates, number, node)
    ]
    found = [one.to_json(expected) for one in inspected]
    return {
        "adapters": entries,
        "engines": found,
        "differences": [
            *(
                f"{entry['name']}: {entry['state']}: {entry['why']}"
                for entry in entries
                if entry["state"] not in (SERVED, UNPROVED)
            ),
            *(f"{one['engine']}: {sentence}" for one in found for sentence in one["strangers"]),
            # An unproved adapter is no difference, but here nothing at all was compared.
            *(f"{one.engine.client.name} at {one.engine.endpoint.url}: {one.problem}" for one in inspected if one.unauthorized),
        ],
        "critical": [entry["name"] for entry in entries if entry["state"] in (GONE, WRONG)],
        "summary": {name: [_line(entry) for entry in entries if entry["name"] == name] for name in names},
    }


def _line(entry: dict[str, t.Any]) -> str:
    """Describe an adapter in an engine on one line."""
    served = f" release {entry['served']} as {entry['listed']}" if entry["served"] else ""
    return f"{entry['engine']} at {entry['url']}: {entry['state']}{served}" + (f". {entry['why']}" if entry["why"] else "")


def _adapter(node: Node, name: str) -> Adapter | None:
    try:
        return node.adapter(name)
    except DeliveryError:
        # What is wrong with the files is for adapter_release_info to say.
        return None


def _inspected(engine: NodeEngine) -> _Inspected:
    one = _Inspected(engine, server_of(engine.client, engine.options, engine.paths), {}, read_desired(engine.paths))
    try:
        one.server.read()
        one.rows = one.server.rows()
    except DeliveryError as exc:
        one.problem = " ".join(f"The engine {problem.problem} {problem.remedy}".rstrip() for problem in exc.problems)
        one.unauthorized = isinstance(exc.__cause__, Unauthorized)
    except EngineError as exc:
        one.problem = f"The engine {exc.message.rstrip('.')}. {exc.remedy}".rstrip()
        one.unauthorized = isinstance(exc, Unauthorized)
    return one


def _may_have(adapter: Adapter, candidates: t.Sequence[Candidate], number: int, node: Node) -> bool:
    """Return whether an engine has the base of an adapter, or does not tell which one it has."""
    try:
        return number in engines_of(adapter.manifest, candidates, node.bases)
    except DeliveryError:
        return True


def _entry(one: _Inspected, name: str, adapter: Adapter | None, store: str, probe: bool) -> dict[str, t.Any]:
    active = adapter.wanted.release if adapter else None
    recorded = one.desired.adapters.get(name)
    known = Known(recorded, one.desired.refused.get(name), one.engine.options.alias)
    found = evidence(name, active, one.rows, known, store)
    figures = recorded.figures if recorded and found.state == SERVED else None
    if one.problem:
        found = Evidence(UNPROVED if one.unauthorized else NOT_LOADED, why=one.problem)
    elif probe and adapter is not None and found.state in (SERVED, UNPROVED):
        found, figures = _probed(one.server, adapter, found)
    elif found.state == SERVED and one.server.lists_nothing:
        found, figures = (
            found._replace(state=UNPROVED, why="The engine has no list of its adapters: only an audit proves it."),
            None,
        )
    return {
        "name": name,
        "engine": one.engine.client.name,
        "url": one.engine.endpoint.url,
        "state": found.state,
        "why": found.why,
        "active": active,
        "served": found.release,
        "listed": found.listed,
        "root": found.root,
        "figures": figures,
        "proved": recorded.at if recorded and found.state == SERVED else None,
    }


def _probed(server: Server, adapter: Adapter, found: Evidence) -> tuple[Evidence, dict[str, t.Any] | None]:
    """Return the evidence with that of a probe, and its figures."""
    try:
        figures, why = server.prove(t.cast(str, found.listed), adapter.wanted)
    except ProbeFailed as exc:
        return found._replace(state=WRONG, why=f"{exc.message}."), None
    except EngineError as exc:
        # Without a list, this is how it says that it does not have the name.
        unknown = server.lists_nothing and isinstance(exc, Refused) and not isinstance(exc, (Unauthorized, Unsupported))
        return found._replace(state=NOT_LOADED if unknown else UNPROVED, why=f"The engine {exc.message}."), None
    if why is not None:
        return found._replace(state=UNPROVED, why=why), None
    return found._replace(state=SERVED, why=""), figures
