# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""report.json: the report as data. In a large one, a node does not repeat what another one has.

Such a node names the other one with the key ``like``, and its adapters lack the keys with equal
values. Nothing is left out for any other reason, so a reader gets back every value.
"""

from __future__ import annotations

import json

from .alike import is_large
from .run import Data

# The keys of an adapter that are never left out.
ALWAYS = ("agent", "name", "state", "release", "verified", "tested", "served")


def as_json(report: Data) -> str:
    nodes = _shortened(report["nodes"]) if is_large(report) else report["nodes"]
    return json.dumps({**report, "nodes": nodes}, indent=1, ensure_ascii=False) + "\n"


def _shortened(nodes: list[Data]) -> list[Data]:
    """Return the nodes. All but the first of those with the same adapters refer to that one."""
    complete: dict[tuple[tuple[str, str], ...], Data] = {}
    found = []
    for node in nodes:
        other = complete.setdefault(tuple((adapter["agent"], adapter["name"]) for adapter in node["adapters"]), node)
        if other is not node and node["adapters"]:
            adapters = [_differing(*pair) for pair in zip(node["adapters"], other["adapters"])]
            node = {**node, "like": other["node"], "adapters": adapters}
        found.append(node)
    return found


def _differing(adapter: Data, other: Data) -> Data:
    found = {key: value for key, value in adapter.items() if key in ALWAYS or value != other[key]}
    if found.get("test") and other["test"]:
        found["test"] = {key: value for key, value in adapter["test"].items() if value != other["test"][key]}
    return found
