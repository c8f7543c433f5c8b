# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Checks the names and values of the variables that the inventory sets for the roles."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import shown

from .._rollout.serial import wrong_serial
from .fact_checks import OF_FLEET
from .findings import Finding, Findings
from .near_names import meant_variable
from .role_options import coerced, documented_variables

# Variables that no role documents, because only fleet_info and the manifest plugin know them.
# The rows are checked one by one.
_ROWS = "agent_adapters"
_ENGINES = "agent_engine"
_SERIAL = "agent_serial"


class Variables(t.Protocol):
    """What the checks need of :class:`HostVariables`."""

    def names(self) -> list[str]: ...

    def get(self, name: str) -> t.Any: ...


class VariableChecks:
    """Checks hosts one after the other. Most of them have the variables of others."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._meant: dict[tuple[str, frozenset[str]], str | None] = {}
        self._wrong: dict[tuple[str, str], list[Finding]] = {}

    def check(self, host: str, variables: Variables) -> None:
        documented = documented_variables()
        known = documented.keys() | OF_FLEET
        names = set(variables.names())
        given = variables.get("lorafleet_own_variables") or []
        own = set(given if isinstance(given, list) else [given])
        is_set = frozenset(names & known)
        for name in sorted(names):
            if name in documented and name != _ROWS:
                self._check_value(host, name, variables.get(name))
            elif name not in known and name not in own:
                self._check_name(host, name, is_set, variables)

    def _check_name(self, host: str, name: str, is_set: frozenset[str], variables: Variables) -> None:
        if (name, is_set) not in self._meant:
            self._meant[name, is_set] = meant_variable(name, documented_variables().keys() | OF_FLEET, is_set)
        meant = self._meant[name, is_set]
        # A list or dictionary is no misspelt text: ``agent_groups`` is not ``agent_group``.
        if meant and not (_is_single(meant) and isinstance(variables.get(name), (list, dict))):
            remedy = f"Write {meant}. If the variable is your own, name it in lorafleet_own_variables."
            self._findings.add(host, Finding(name, f"is not a variable of the roles, but {meant} is.", remedy))

    def _check_value(self, host: str, name: str, value: t.Any) -> None:
        if value is None:
            return
        key = (name, json.dumps(value))
        if key not in self._wrong:
            check = {_ENGINES: _wrong_engines, _SERIAL: _wrong_waves}.get(name, _wrong_type)
            self._wrong[key] = check(name, value)
        for finding in self._wrong[key]:
            self._findings.add(host, finding)


def _is_single(name: str) -> bool:
    return name in documented_variables() and documented_variables()[name]["type"] not in ("list", "dict", "raw")


def _wrong_engines(name: str, value: t.Any) -> list[Finding]:
    # The rules of all engines take milliseconds to load.
    from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines

    try:
        declared_engines(value, name)
    except DeliveryError as exc:
        return [Finding(problem.subject, problem.problem, problem.remedy) for problem in exc.problems]
    return []


def _wrong_waves(name: str, value: t.Any) -> list[Finding]:
    wrong = wrong_serial(value)
    return [Finding(name, *wrong)] if wrong else []


def _wrong_type(name: str, value: t.Any) -> list[Finding]:
    try:
        coerced(documented_variables()[name], value)
    except ValueError as exc:
        return [Finding(name, f"is {shown(value)}, which is not {exc}.", f"Write {exc}.")]
    return []
