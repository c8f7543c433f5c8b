# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The rows of ``agent_adapters``: one row for each adapter that an agent serves on a node."""

from __future__ import annotations

import collections.abc as c
import json
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._forms import AS_TRAINED

Row = dict[str, t.Any]

# What may differ between the rows of two agents that serve the same adapter.
OF_AGENT = frozenset({"agent", "variant", "default", "dataset", "quality"})


def rows_with_agents(adapters: t.Any, agent: t.Any, form: t.Any = None) -> list[Row]:
    """Return the rows of ``agent_adapters`` as text where tags are compared with them.

    ``agent`` is ``agent_name``, which is the agent of rows that name none, and ``form`` is
    ``agent_form``. Rows that lack a name or a variant, or are no dictionaries, are left out.
    """
    if not isinstance(adapters, list):
        return []
    # A row without a form is delivered as trained.
    defaults = {"agent": agent, **({} if form in (None, AS_TRAINED) else {"form": form})}
    rows = [{**defaults, **row} for row in adapters if isinstance(row, dict) and {"name", "variant"} <= row.keys()]
    # YAML may have parsed a variant as a number. Tags are always text.
    return [{**row, **{key: str(row[key]) for key in ("agent", "name", "variant")}} for row in rows if row["agent"]]


def agents_of(rows: c.Iterable[Row]) -> dict[str, list[str]]:
    """Return the agents of rows with their variants, both in the order of the rows."""
    found: dict[str, list[str]] = {}
    for row in rows:
        variants = found.setdefault(row["agent"], [])
        if row["variant"] not in variants:
            variants.append(row["variant"])
    return found


def adapters_of(rows: c.Iterable[Row]) -> list[Row]:
    """Return the adapters of rows in the form that modules take, each declaration once."""
    found: dict[str, Row] = {}
    for row in rows:
        declaration = json.dumps({key: value for key, value in row.items() if key not in OF_AGENT}, sort_keys=True)
        found.setdefault(declaration, {key: value for key, value in row.items() if key != "agent"})
    return list(found.values())


def by_agent(value: t.Any, agent: t.Any) -> dict[str, t.Any]:
    """Return a variable that is either a dictionary by agent or the value of one agent."""
    if not value:
        return {}
    if isinstance(value, dict):
        return {str(name): of_agent for name, of_agent in value.items()}
    return {str(agent): value} if agent else {}
