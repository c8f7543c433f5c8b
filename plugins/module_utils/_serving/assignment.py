# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Which engines of a node serve an adapter: those that have its base."""

from __future__ import annotations

import os
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .contract import EngineState


class Candidate(t.NamedTuple):
    """An engine of the node: its title, the base that the inventory states, and what it says."""

    title: str
    base: str | None
    state: EngineState


def engines_of(manifest: Manifest, candidates: t.Sequence[Candidate], bases: t.Mapping[str, t.Any]) -> list[int]:
    """Return the numbers of the engines that serve an adapter.

    Raises DeliveryError if there is none, or if it is not known which ones.
    """
    names, path = _names_of(manifest, bases)
    fits = [_fits(candidate, names, path) for candidate in candidates]
    matching = [number for number, fit in enumerate(fits) if fit]
    if matching:
        return matching
    unknown = [number for number, fit in enumerate(fits) if fit is None]
    if len(candidates) == 1 and unknown:
        # Its probe compares the answers of the base, too.
        return unknown
    base = manifest.config.get("base_model_name_or_path")
    if unknown:
        titles = ", ".join(candidates[number].title for number in unknown)
        problem = f"has base {base}, and it is not known whether {titles} serves that."
        raise DeliveryError.of("", problem, "State base for each engine in engines.", manifest.name)
    found = ", ".join(f"{one.title} has {one.base or one.state.root or one.state.base}" for one in candidates)
    problem = f"has base {base}, which no engine serves: {found}."
    raise DeliveryError.of("", problem, "Start an engine with that base, or state base of an engine in engines.", manifest.name)


def _names_of(manifest: Manifest, bases: t.Mapping[str, t.Any]) -> tuple[set[str], str | None]:
    """Return all names of an adapter's base, and its path on this host if it is known."""
    named = str(manifest.config.get("base_model_name_or_path"))
    for name, base in bases.items():
        aliases = base.get("aliases") if isinstance(base, dict) else None
        known = {name, *(aliases if isinstance(aliases, list) else ())}
        if named in known:
            path = base.get("path") if isinstance(base, dict) else None
            return {named, *known}, path if isinstance(path, str) else None
    return {named}, None


def _fits(candidate: Candidate, names: set[str], path: str | None) -> bool | None:
    """Return whether an engine has a base, None if that cannot be told."""
    if candidate.base is not None:
        return candidate.base in names
    root, state = candidate.state.root, candidate.state
    if names & {root, state.base}:
        return True
    if root is None or not os.path.isabs(root) or path is None:
        return None
    return os.path.realpath(root) == os.path.realpath(path)
