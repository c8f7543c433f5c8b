# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The releases that engines use: what they list, what a run is loading, and what may be read again.

An engine that evicts an adapter reads its directory again at the next request, and fails if it is
gone. So these releases are in use, whatever the store's own state says.
"""

from __future__ import annotations

import typing as t

from .._errors import DeliveryError
from .contract import EngineError, ServingEngine
from .desired import read_desired
from .journal import EnginePaths, read_pending
from .names import release_at


class InUse(t.NamedTuple):
    """The directories that engines use, and a sentence for each engine that does not tell."""

    roots: frozenset[str] = frozenset()
    silent: tuple[str, ...] = ()

    def releases(self, store: str, name: str) -> frozenset[str] | None:
        """Return the releases of an adapter that are in use, None if that is not known."""
        if self.silent:
            return None
        return frozenset(release for root in self.roots for release in [release_at(store, name, root)] if release)


def releases_in_use(engines: t.Iterable[tuple[str, ServingEngine, EnginePaths]]) -> InUse:
    """Ask the engines, each with its title. Reads only."""
    roots: set[str] = set()
    silent = []
    for title, engine, paths in engines:
        try:
            roots.update(row.root for row in engine.listed() if row.root is not None)
            desired, pending = read_desired(paths), read_pending(paths)
        except (EngineError, DeliveryError) as exc:
            silent.append(f"{title}: {exc}")
            continue
        roots.update(root for _name, root in desired.rows())
        roots.update(desired.lingering.values())
        if pending is not None:
            roots.update(root for root in (pending.old_root, pending.new_root) if root is not None)
    return InUse(frozenset(roots), tuple(silent))
