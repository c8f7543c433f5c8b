# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Checks the adapters, the agents and the training server that one node declares."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._names import check_name
from ansible_collections.lorafleet.delivery.plugins.module_utils._nearest import nearest
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import shown

from .findings import Finding
from .fleet import Node
from .role_options import coerced, row_options
from .rows import OF_AGENT, Row

_VARIABLE = "agent_adapters"


def check_rows(adapters: t.Any, agent: t.Any) -> list[Finding]:
    """Return all that is wrong with the rows of a node. ``agent`` is its ``agent_name``."""
    if adapters is None:
        adapters = []
    if not isinstance(adapters, list):
        remedy = "Write a list with a row for each adapter."
        if isinstance(adapters, str) and adapters.lstrip().startswith("["):
            # Ansible reads the values of an INI file as Python, and takes for text what is not.
            remedy += " In an INI file, write True and False, or move the list to a YAML file in group_vars."
        return [Finding(_VARIABLE, f"is {shown(adapters)}, which is not a list.", remedy)]
    if not adapters:
        remedy = "Declare the adapters that are served there, or take these hosts out of group agents."
        return [Finding(_VARIABLE, "declares no adapters.", remedy)]
    found: list[Finding] = []
    rows: list[tuple[int, Row]] = []
    if not agent and any(isinstance(row, dict) and not row.get("agent") for row in adapters):
        remedy = "Set agent_name for the group, or agent in each row."
        found.append(Finding(_VARIABLE, "has rows that belong to no agent.", remedy))
    for number, row in enumerate(adapters, 1):
        wrong = list(_check_row(number, row))
        found += wrong
        if not wrong:
            rows.append((number, _complete(row, agent)))
    return [*found, *_check_pairs(rows), *_check_defaults(row for _number, row in rows)]


def check_agent_names(node: Node, agents: c.Collection[str]) -> c.Iterator[Finding]:
    """Find values by agent, such as prompts, of agents that no node of the fleet serves."""
    for name in ("purpose", "notes", "prompts", "serial"):
        for agent in getattr(node, name).keys() - set(agents):
            meant = nearest(agent, agents)
            remedy = f"Write {meant}." if meant else f"The agents are {', '.join(sorted(agents))}."
            yield Finding(f"agent_{name}", f"is for agent {agent}, which no node serves.", remedy)


def no_such_host(name: str) -> Finding:
    """What is wrong with a node whose training server is not in the inventory."""
    remedy = "Set it to the training server's name there, or put that host into the group training."
    return Finding("agent_training_host", f"is {name!r}, which is not a host in the inventory.", remedy)


def _check_row(number: int, row: t.Any) -> c.Iterator[Finding]:
    if not isinstance(row, dict):
        problem = f"is {shown(row)}, which is not a dictionary."
        yield Finding(f"{_VARIABLE}, row {number}", problem, "Write the keys of an adapter: name, variant and so on.")
        return
    options = row_options()
    name = row.get("name")
    adapter = str(name) if isinstance(name, (str, int)) else None
    variable = _VARIABLE if adapter else f"{_VARIABLE}, row {number}"
    for key in row:
        if key not in options:
            meant = nearest(str(key), options)
            remedy = f"Write {meant}." if meant else f"The keys are {', '.join(options)}."
            yield Finding(variable, f"has the unknown key {key}.", remedy, adapter)
    for key, option in options.items():
        if row.get(key) is None:
            if option.get("required"):
                yield Finding(variable, f"has no {key}.", f"Add {key} to the row.", adapter)
            continue
        try:
            coerced(option, row[key])
        except ValueError as exc:
            yield Finding(variable, f"has {key} {shown(row[key])}, which is not {exc}.", f"Write {exc}.", adapter)
    if isinstance(name, str):
        try:
            check_name(name)
        except DeliveryError as exc:
            [invalid] = exc.problems
            yield Finding(f"{_VARIABLE}, {invalid.subject}", invalid.problem, invalid.remedy)


def _complete(row: Row, agent: t.Any) -> Row:
    """Return a row with the values that the role uses, so that rows can be compared."""
    options = row_options()
    given = {"agent": str(agent or ""), **{key: value for key, value in row.items() if value is not None}}
    values = {key: coerced(option, given[key]) for key, option in options.items() if key in given}
    return {**{key: option.get("default") for key, option in options.items()}, **values}


def _check_pairs(rows: c.Sequence[tuple[int, Row]]) -> c.Iterator[Finding]:
    first_of: dict[str, tuple[int, Row]] = {}
    seen: set[tuple[str, str]] = set()
    for number, row in rows:
        name, agent = row["name"], row["agent"]
        first_number, first = first_of.setdefault(name, (number, row))
        keys = [key for key in row if key not in OF_AGENT and row[key] != first[key]]
        numbers = f"Rows {first_number} and {number}"
        if keys:
            problem = f"is declared twice with different {', '.join(keys)}."
            remedy = f"{numbers}: correct one of the two, or give the other adapter a name of its own."
            yield Finding(_VARIABLE, problem, remedy, name)
        elif (agent, name) in seen:
            yield Finding(_VARIABLE, f"is declared twice for agent {agent}.", f"{numbers}: remove one of the two.", name)
        seen.add((agent, name))


def _check_defaults(rows: c.Iterable[Row]) -> c.Iterator[Finding]:
    defaults: dict[str, list[str]] = {}
    for row in rows:
        if row["default"] and row["name"] not in defaults.setdefault(row["agent"], []):
            defaults[row["agent"]].append(row["name"])
    for agent, names in defaults.items():
        if len(names) > 1:
            problem = f"has {len(names)} rows with default: true for agent {agent}: {', '.join(names)}."
            yield Finding(_VARIABLE, problem, "Keep it in only one of them.")
