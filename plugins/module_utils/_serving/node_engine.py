# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The engines of a node that have a url: each with a client, its records and its options.

Apart from ``node``, because asking an engine needs none of what makes it serve.
"""

from __future__ import annotations

import shlex
import typing as t

from .._engines.bounds import bound
from .._engines.declared import DeclaredEngine
from .._engines.endpoint import ALIAS, Endpoint
from .._engines.rules.table import rules_of
from .._engines.verdicts import Engine
from .contract import ServingEngine
from .journal import EnginePaths
from .wanted import ServingOptions


class NodeEngine(t.NamedTuple):
    """An engine of this node, with a client of it."""

    declared: DeclaredEngine
    client: ServingEngine
    paths: EnginePaths
    options: ServingOptions

    @property
    def endpoint(self) -> Endpoint:
        return t.cast(Endpoint, self.declared.endpoint)


def node_engines(
    declared: t.Iterable[DeclaredEngine], store: str, connect: t.Callable[[DeclaredEngine], ServingEngine]
) -> list[NodeEngine]:
    """Return the engines that have an endpoint. Raises DeliveryError."""
    return [_node_engine(one, store, connect(one)) for one in declared if one.endpoint is not None]


def title_of(declared: DeclaredEngine) -> str:
    """Return what messages call an engine that has an endpoint."""
    return f"engine {rules_of(declared.name).name} at {t.cast(Endpoint, declared.endpoint).url}"


def _node_engine(declared: DeclaredEngine, store: str, client: ServingEngine) -> NodeEngine:
    endpoint, name = t.cast(Endpoint, declared.endpoint), rules_of(declared.name).name
    options = ServingOptions(
        title=title_of(declared),
        alias=endpoint.public_name == ALIAS,
        bound=bound(Engine(name, declared.version, declared.settings)).value,
        drain=endpoint.drain_timeout,
        start=endpoint.start_timeout,
        probe=endpoint.probe_timeout,
        restart=_restart(endpoint.restart),
    )
    return NodeEngine(declared, client, EnginePaths(store, name, endpoint.url), options)


def _restart(how: str | list[str] | None) -> str:
    if how is None:
        return "Restart the engine."
    command = f"systemctl restart {how}" if isinstance(how, str) else " ".join(map(shlex.quote, how))
    return f"Restart the engine: {command}."
