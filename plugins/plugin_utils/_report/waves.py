# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The waves of a rollout in a report."""

from __future__ import annotations

import collections.abc as c

from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import ROLLED_BACK

from .._node_names import listed
from .run import Data, Run
from .states import DONE, FAILED, NOT_REACHED, NOT_SELECTED, NOT_STARTED

PASSED = "passed"


def waves_of(run: Run, nodes: c.Sequence[Data]) -> list[Data]:
    """Return an entry for each wave, those of one agent together.

    Agents with one wave, in which no node went back, are left out. ``nodes`` are those of the
    report.
    """
    states: dict[tuple[str, str], set[str]] = {}
    for node in nodes:
        for adapter in node["adapters"]:
            if adapter["state"] != NOT_SELECTED:
                of = states.setdefault((node["node"], adapter["agent"]), set())
                of.add(adapter["state"])
                # Active, but an engine does not serve it.
                if adapter["state"] in DONE and _has_failed(run, node["node"], adapter["name"]):
                    of.add(FAILED)
    found = []
    for agent, waves in (run.rollout.get("waves") or {}).items() if run.kind == "deploy" else ():
        entries = _of_agent(agent, waves, states)
        if len(entries) > 1 or any(entry["went_back"] for entry in entries):
            found += entries
    return found


def _has_failed(run: Run, node: str, adapter: str) -> bool:
    failures = run.nodes[node].failures if node in run.nodes else []
    return any(failure.adapters is None or adapter in failure.adapters for failure in failures)


def wave_words(entry: Data) -> str:
    """Return the result of a wave in words."""
    if entry["result"] == NOT_STARTED:
        return f"not started: wave {entry['failed_wave']} failed ({listed(entry['failed'])})"
    words = f"failed ({listed(entry['failed'])})" if entry["result"] == FAILED else str(entry["result"]).replace("_", " ")
    return words + (f", rolled back on {listed(entry['went_back'])}" if entry["went_back"] else "")


def _of_agent(agent: str, waves: list[list[str]], states: c.Mapping[tuple[str, str], set[str]]) -> list[Data]:
    entries: list[Data] = []
    # The first wave with nodes that have not passed, these nodes, and whether any was tried.
    stopped, missing_there, tried = 0, list[str](), False
    for number, nodes in enumerate(waves, 1):
        of = {node: states.get((node, agent), {NOT_REACHED}) for node in nodes}
        missing = [node for node in nodes if not of[node] <= {*DONE}]
        found = set().union(*(of[node] for node in missing)) - {*DONE}
        if missing and not stopped:
            stopped, missing_there, tried = number, missing, found != {NOT_REACHED}
        if not missing:
            result = PASSED
        elif found == {NOT_STARTED} or (found == {NOT_REACHED} and number != stopped and tried):
            result = NOT_STARTED
        else:
            result = NOT_REACHED if found == {NOT_REACHED} else FAILED
        entries.append(
            {
                "agent": agent,
                "wave": number,
                "waves": len(waves),
                "nodes": nodes,
                "result": result,
                "failed": {FAILED: missing, NOT_STARTED: missing_there}.get(result, []),
                "failed_wave": {FAILED: number, NOT_STARTED: stopped}.get(result),
                "went_back": [node for node in nodes if ROLLED_BACK in of[node]],
            }
        )
    return entries
