# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What a node really serves: the states of adapters in an engine's list. Without any contact."""

from __future__ import annotations

import os
import typing as t

from .contract import Listed
from .desired import SERVED, UNPROVED, Refusal, Served
from .names import release_at, release_in, versioned

BEHIND, FOREIGN, NOT_LOADED, GONE, WRONG = "behind", "foreign", "not loaded", "gone", "wrong answers"
STATES = (SERVED, UNPROVED, BEHIND, FOREIGN, NOT_LOADED, GONE, WRONG)

# By its name, which it has in a checkout and in the installed collection.
_REMEDY = "Run the playbook serve."


class Evidence(t.NamedTuple):
    """The state of one adapter in one engine.

    ``listed`` is the name that users, or a gateway, ask; ``release`` is what it stands for, None if
    that is no release of the adapter. ``why`` is a sentence, empty for SERVED.
    """

    state: str
    listed: str | None = None
    root: str | None = None
    release: str | None = None
    why: str = ""


class Known(t.NamedTuple):
    """What is recorded of an adapter in an engine.

    ``alias`` is whether users ask the engine for the name of the adapter, not a gateway for that of
    a release. ``refused`` is the release that the engine did not serve when a run last tried.
    """

    recorded: Served | None = None
    refused: Refusal | None = None
    alias: bool = True


def evidence(name: str, active: str | None, rows: t.Mapping[str, Listed], known: Known, store: str) -> Evidence:
    """Return the state of an adapter, whose ``active`` release should be served."""
    row, recorded = _row(name, active, rows, known), known.recorded
    if row is None:
        has = f"only the name {name}, but a gateway leads to those of releases" if name in rows else "no release of it"
        return Evidence(NOT_LOADED, why=f"The engine has {has}. {_why_not(active, known.refused)}{_REMEDY}")
    if row.root is not None and os.path.isabs(row.root) and not os.path.isdir(row.root):
        why = f"{row.root} does not exist, and the engine fails when it reads it again. Restore it or restart the engine."
        return Evidence(GONE, row.name, row.root, why=why)
    if row.root is None:
        release = release_in(name, row.name) or (recorded.release if recorded else None)
    else:
        release = release_at(store, name, row.root)
        if release is None:
            return Evidence(FOREIGN, row.name, row.root, why=f"The engine has it from {row.root}, which is no release of it.")
    found = Evidence(SERVED, row.name, row.root, release)
    if release is None or release != active:
        why = f"Release {release} is served, {active} is active. {_why_not(active, known.refused)}{_REMEDY}"
        return found._replace(state=BEHIND, why=why)
    if recorded is None or recorded.release != release:
        return found._replace(state=UNPROVED, why=f"No run has proved it in this engine. {_REMEDY}")
    return found._replace(state=recorded.proof, why=recorded.why_unproved or "")


def strangers(names: t.Collection[str], rows: t.Iterable[Listed], base: str | None) -> list[str]:
    """Return a sentence for each listed name that is not one of the adapters, or hides the base."""
    found = []
    for row in rows:
        if row.name == base:
            found.append(f"{row.name} from {row.root} has the name of the base, and takes its requests.")
        elif row.name not in names and not any(release_in(name, row.name) for name in names):
            found.append(f"{row.name} from {row.root} is not an adapter of this node.")
    return sorted(found)


def _why_not(active: str | None, refused: Refusal | None) -> str:
    """Return why the engine did not serve the active release when a run tried, as a sentence."""
    if refused is None or refused.release != active:
        return ""
    return f"The engine did not serve it at {refused.at}: {refused.why.rstrip('.')}. "


def _row(name: str, active: str | None, rows: t.Mapping[str, Listed], known: Known) -> Listed | None:
    """Return the row that answers for an adapter: that of its name, or of a release."""
    names = [name] if known.alias else []
    names += [versioned(name, active)] if active is not None else []
    names += [one for one in (known.recorded.names if known.recorded else ()) if one != name]
    names += [listed for listed in sorted(rows) if release_in(name, listed)]
    return next((rows[one] for one in names if one in rows), None)
