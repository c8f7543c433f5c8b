# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The report: what a run of role agent covered, what it did and what it proved, as data.

``docs/report.schema.json`` describes its form, which ``json`` shortens for a large fleet. The
files, the page and the table are made from this data alone.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses

from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import LoadTestResult
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.actions import SERVED_NOW
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.desired import SERVED as PROVED
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.evidence import BEHIND, NOT_LOADED
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import ROLLED_BACK, UNCHANGED
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import escaped

from .._node_names import listed
from .._steps import ACTIVATE, AUDIT, COMPARE, LOAD, SERVE, SERVED, STATUS, TRANSFER, Step
from .run import Data, Failure, Node, Run
from .states import (
    ACTIVE,
    AS_VERIFIED,
    DIFFERS,
    FAILED,
    LOADED,
    MISSING,
    NOT_REACHED,
    NOT_SELECTED,
    NOT_STARTED,
    SKIPPED,
    UNREACHABLE,
)
from .waves import waves_of

SCHEMA = 5

# What receipts and load tests have in common.
_OF_TEST = tuple(field.name for field in dataclasses.fields(LoadTestResult))
_OF_RELEASE = ("release", "digest", "size", "files", "made_of", "previous", "since", "history", "activation", "path")


def groups_of(nodes: c.Collection[Node]) -> dict[str, str]:
    """Return the group of each node, which names it in boxes and manifests.

    It is the largest group whose hosts all serve the agents of the node. A node of several agents
    is its own group unless all of its groups are of that kind: it is often in a group of each
    agent, which does not name the others.
    """
    members: dict[str, list[Node]] = {}
    for node in nodes:
        for group in node.groups.keys() - {"training"}:
            members.setdefault(group, []).append(node)
    shared = {group: set.intersection(*(set(node.agents) for node in of_group)) for group, of_group in members.items()}
    found = {}
    for node in nodes:
        fitting = [group for group in node.groups if group in shared and shared[group].issuperset(node.agents)]
        most = max((len(members[group]) for group in fitting), default=0)
        largest = [group for group in fitting if len(members[group]) == most]
        alone = len(node.agents) > 1 and (len(largest) != 1 or len(fitting) < len(node.groups))
        found[node.name] = node.name if alone else largest[0] if largest else "agents"
    return found


def report_of(run: Run) -> Data:
    """Return the report of a run, which need not have ended."""
    groups = groups_of(run.nodes.values())
    failures = [entry for failure in run.failures for entry in _entries(None, failure)]
    nodes = []
    for node in run.nodes.values():
        found = _failures(node)
        failures += [entry for entry, _adapters in found]
        nodes.append(_node(run, node, groups[node.name], found))
    return {
        "schema": SCHEMA,
        "kind": run.kind,
        "check_mode": run.check_mode,
        "started": run.started,
        "ended": run.ended,
        "seconds": run.seconds,
        "training_server": _server(run),
        "training": {str(key): str(value) for key, value in run.training.items()},
        "notes": [str(note) for note in run.notes],
        "nodes": nodes,
        "rollout": waves_of(run, nodes),
        "failures": failures,
        "boxes": _boxes(nodes),
    }


def _server(run: Run) -> Data:
    """Return the training server. Without ``fleet_info``, only its name is known."""
    name = next((node.training_host for node in run.nodes.values() if node.training_host), "")
    return {"name": run.server.get("name") or name, "address": run.server.get("address") or name}


def _node(run: Run, node: Node, group: str, failures: c.Sequence[tuple[Data, frozenset[str] | None]]) -> Data:
    def about(name: str) -> list[Data]:
        return [
            failure
            for failure, adapters in failures
            if failure["adapter"] in (None, name) and (adapters is None or name in adapters)
        ]

    return {
        "node": node.name,
        "address": node.address or node.name,
        "group": group,
        "agents": node.agents,
        "purpose": {agent: node.purpose.get(agent, "") for agent in node.agents},
        "notes": {agent: node.notes.get(agent, []) for agent in node.agents},
        "seconds": {step.key: round(seconds, 3) for step, seconds in node.seconds.items()},
        "wire_bytes": node.wire_bytes,
        "adapters": [_adapter(run, node, row, about(row["name"])) for row in node.rows.values()],
    }


def _adapter(run: Run, node: Node, row: Data, failures: c.Sequence[Data]) -> Data:
    name = row["name"]
    of = node.steps.get(name, {})
    # An up-to-date node ends with the comparison: nothing to transfer, and the receipts are valid.
    current = {} if ACTIVATE in of else of.get(COMPARE, {})
    found = current or of.get(ACTIVATE) or of.get(AUDIT) or of.get(STATUS) or _told(run, of)
    receipt = found.get("receipt") or {}
    if current:
        transferred: Data = {"downloaded_bytes": 0, "reused_bytes": 0}
        test: Data = {"from_receipt": True, "required_level": current["required_level"]}
    else:
        # The load test was that of the release which the node left again.
        went_back = found.get("action") == ROLLED_BACK
        transferred, test = of.get(TRANSFER) or {}, {} if went_back else of.get(LOAD) or {}
    failed = any(failure["adapter"] == name for failure in failures)
    level = receipt.get("level") or test.get("level")
    drift = list(found.get("drift") or found.get("differences") or ())
    # A status hashes nothing, and in check mode nothing is done.
    hashed = current or of.get(ACTIVATE) or (of.get(AUDIT) and found.get("release") and not drift)
    verified = bool(hashed) and not run.check_mode
    return {
        "agent": row["agent"],
        "name": name,
        "variant": row["variant"],
        "default": bool(row.get("default", False)),
        "base": str(row.get("base", "")),
        "rank": row.get("rank"),
        "alpha": row.get("alpha"),
        "target_modules": [str(module) for module in row.get("target_modules") or ()],
        "extra_files": [str(file) for file in row.get("extra_files") or ()],
        "dataset": str(row.get("dataset", "")),
        "quality": str(row.get("quality", "")),
        "source": row["source"],
        "target": row["target"],
        "state": _state(node, row, of, drift, failures),
        "verified": verified,
        # Tested means "loads with PEFT", which level structure does not try.
        "tested": verified and not failed and level not in (None, "structure"),
        **{key: found.get(key) for key in _OF_RELEASE},
        "files": found.get("files") or [],
        "excluded": node.excluded.get(name, []),
        # None where the node trusts no signers.
        "signed": found.get("signed"),
        **_engines(of),
        "served": bool(_serving(of)) and all(entry["state"] == PROVED for entry in _serving(of)),
        "serving": _serving(of),
        "history": found.get("history") or [],
        "downloaded_bytes": transferred.get("downloaded_bytes"),
        "reused_bytes": transferred.get("reused_bytes"),
        # None where the inventory permits the relay only.
        "way": transferred.get("way"),
        "not_taken": transferred.get("not_taken"),
        "test": _test(receipt, test),
        "changes": _changes(node.changes.get(name)),
        "drift": [str(line) for line in drift],
    }


def _test(receipt: Data, test: Data) -> Data | None:
    """Return what the receipt of the release says, or else the test that it did not pass."""
    source = receipt or test
    if not source.get("level") and not source.get("limited_by"):
        return None
    found: Data = {key: source.get(key) for key in _OF_TEST}
    return {
        **found,
        "permitted": found["permitted"] or test.get("permitted"),
        "at": receipt.get("at"),
        "from_receipt": test.get("from_receipt"),
        "required_level": test.get("required_level"),
    }


def _engines(of: c.Mapping[Step, Data]) -> Data:
    """Return the verdicts of the node's engines, and notes where the engines are not known."""
    found = next((of[step] for step in (TRANSFER, COMPARE, ACTIVATE, AUDIT, STATUS) if step in of), {})
    return {"engines": found.get("engines") or [], "engine_notes": found.get("engine_notes") or []}


def _serving(of: c.Mapping[Step, Data]) -> list[Data]:
    """Return what each engine really serves, as this run found or left it."""
    told = (of.get(SERVE) or {}).get("engines", ())
    found = [
        {
            "engine": entry["engine"],
            "url": entry["url"],
            "state": entry["proof"] or (BEHIND if entry["served"] else NOT_LOADED),
            "release": entry["served"],
            "why": entry["why_unproved"] or entry["why"] or "",
        }
        for entry in told
    ]
    asked = (of.get(SERVED) or {}).get("engines", ())
    found += [{**{key: entry[key] for key in ("engine", "url", "state", "why")}, "release": entry["served"]} for entry in asked]
    return found


def _told(run: Run, of: c.Mapping[Step, Data]) -> Data:
    """Return the active release, of a run that only told the engines."""
    entries = (of.get(SERVE) or {}).get("engines", ()) if run.kind == "serve" else ()
    return {"release": entries[0]["release"]} if entries else {}


def _changes(diff: Data | None) -> Data | None:
    """Return how the release differs from the one before, unless it is the same one."""
    return {"before": diff["before"], "after": diff["after"]} if diff and diff["before"] != diff["after"] else None


def _state(node: Node, row: Data, of: c.Mapping[Step, Data], drift: c.Sequence[str], failures: c.Sequence[Data]) -> str:
    if of.get(ACTIVATE) and of[ACTIVATE]["action"] != UNCHANGED:
        return str(of[ACTIVATE]["action"])
    if of.get(ACTIVATE) or of.get(COMPARE):
        return _in_engines(of)
    if not row["selected"]:
        return NOT_SELECTED
    if found := of.get(AUDIT) or of.get(STATUS):
        if not found["release"]:
            return MISSING
        if any(failure["adapter"] == row["name"] and failure["step"] == LOAD.key for failure in failures):
            return FAILED
        return DIFFERS if drift else AS_VERIFIED if of.get(AUDIT) else ACTIVE
    if any(failure.result.get("held_back") for failure in node.failures):
        return NOT_STARTED
    if node.unreachable:
        return UNREACHABLE
    if failures:
        return FAILED
    if of.get(SERVE):
        return _in_engines(of)
    return SKIPPED if node.failures else NOT_REACHED


def _in_engines(of: c.Mapping[Step, Data]) -> str:
    """Return whether an engine got a release that was active already."""
    told = (of.get(SERVE) or {}).get("engines", ())
    return LOADED if any(entry["action"] == SERVED_NOW for entry in told) else UNCHANGED


def _failures(node: Node) -> list[tuple[Data, frozenset[str] | None]]:
    """Return an entry for each problem of a node, and the adapters whose state it decides."""
    remedy = "Deploy again: it repairs what differs, from the node's own store where that is intact."
    found: list[tuple[Data, frozenset[str] | None]] = [
        (_failure(node, Failure(AUDIT, node.name, {}), name, name, line, remedy), None)
        for name, steps in node.steps.items()
        for line in steps.get(AUDIT, {}).get("differences") or ()
    ]
    drifted = bool(found)
    for failure in node.failures:
        known = isinstance(failure.step, Step) or failure.result.get("problems") or failure.result.get("unreachable")
        # The last task of an audit fails because of the drift that is listed above.
        if known or not drifted:
            found += [(entry, failure.adapters) for entry in _entries(node, failure)]
    return found


def _entries(node: Node | None, failure: Failure) -> list[Data]:
    """Return an entry for each problem of a failed task."""
    result = failure.result
    if result.get("unreachable"):
        whose = "The node still serves" if node and failure.host == node.name else "The nodes still serve"
        remedy = f"Restore the connection and run again. {whose} a complete release, the old one or the new one."
        return [_failure(node, failure, None, failure.host, f"is unreachable: {_message(result)}", remedy)]
    if result.get("problems"):
        return [_failure(node, failure, **problem) for problem in result["problems"]]
    return [_failure(node, failure, None, failure.host, _message(result), "")]


def _failure(node: Node | None, failure: Failure, adapter: str | None, subject: str, problem: str, remedy: str) -> Data:
    if node is not None and adapter not in {name for _agent, name in node.rows}:
        # A node may name anything, and many things.
        adapter = None
    return {
        "node": node.name if node else None,
        "host": failure.host,
        "adapter": adapter,
        "step": failure.step.key if isinstance(failure.step, Step) else failure.step,
        "subject": subject,
        "problem": problem,
        "remedy": remedy,
    }


def _message(result: Data) -> str:
    """Return the message of a task that may be any, not only one of this collection's modules."""
    message = result.get("msg") or "failed without a message"
    return escaped("\n".join(map(str, message)) if isinstance(message, list) else str(message))


def adapters_of(report: Data) -> list[tuple[Data, Data]]:
    """Return each adapter with its node. Those of one agent come together."""
    pairs = [(node, adapter) for node in report["nodes"] for adapter in node["adapters"]]
    # In the order of the nodes that serve them.
    places = {place: number for number, place in enumerate(dict.fromkeys(map(place_of, *zip(*pairs))))} if pairs else {}
    return sorted(pairs, key=lambda pair: places[place_of(*pair)])


def place_of(node: Data, adapter: Data) -> tuple[str, str]:
    """Return the agent and the group that an adapter is delivered for."""
    return adapter["agent"], node["group"]


def _boxes(nodes: c.Sequence[Data]) -> list[Data]:
    """Return a box for each agent's delivery, and one for checksums, tests and engines each."""
    pairs = [(node, adapter) for node in nodes for adapter in node["adapters"]]

    def box(text: str, evidence: str, lack: str, place: tuple[str, str] | None = None) -> Data:
        covered = [(node, adapter) for node, adapter in pairs if place in (None, place_of(node, adapter))]
        lacking: dict[tuple[str, str], list[str]] = {}
        for node, adapter in covered:
            if not adapter[evidence]:
                what = "differs" if adapter["drift"] and not adapter["verified"] else lack
                lacking.setdefault((adapter["name"], what), []).append(node["node"])
        reasons = [f"{name} on {listed(those)}: {what}" for (name, what), those in lacking.items()]
        # The role failed there before it knew the adapters.
        without = [node["node"] for node in nodes if place is None and not node["adapters"]]
        reasons += [f"{listed(without)}: {lack}"] if without else []
        return {"text": text, "ticked": bool(covered) and not reasons, "reasons": reasons or ([] if covered else ["no adapters"])}

    places = dict.fromkeys(place_of(node, adapter) for node, adapter in pairs)
    return [
        *(box(f"{agent.capitalize()} models → {group}", "verified", "not delivered", (agent, group)) for agent, group in places),
        box("All checksums verified", "verified", "not verified"),
        box("All nodes tested", "tested", "not tested"),
        # Only of a fleet with engines that have a url.
        *(
            [box("All nodes serve what was verified", "served", "not served")]
            if any(one["serving"] for _node, one in pairs)
            else []
        ),
    ]
