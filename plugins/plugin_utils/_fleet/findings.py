# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Collects what is wrong with the variables of hosts."""

from __future__ import annotations

import collections.abc as c
import dataclasses

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem

from .._node_names import listed


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is wrong with a variable, wherever it is set."""

    variable: str
    problem: str
    remedy: str
    adapter: str | None = None


class Findings:
    """The findings of all hosts. Equal ones of several hosts are one problem."""

    def __init__(self, groups: c.Mapping[str, c.Collection[str]]) -> None:
        self._groups = {name: set(hosts) for name, hosts in groups.items() if name not in ("all", "ungrouped")}
        self._hosts: dict[Finding, list[str]] = {}

    def add(self, host: str, finding: Finding) -> None:
        self._hosts.setdefault(finding, []).append(host)

    def problems(self) -> list[Problem]:
        return [
            Problem(f"{self._place(hosts)}, {finding.variable}", finding.problem, finding.remedy, finding.adapter)
            for finding, hosts in self._hosts.items()
        ]

    def _place(self, hosts: c.Sequence[str]) -> str:
        """The group of exactly these hosts, if there is one, and the hosts."""
        # A child comes after its parents.
        group = next((name for name, members in reversed(list(self._groups.items())) if members == set(hosts)), None)
        return f"group {group} ({listed(hosts)})" if group else listed(hosts)
