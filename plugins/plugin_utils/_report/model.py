# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The report: what a run of role agent covered, what it did and what it proved, as data.

``docs/report.schema.json`` describes its form. The files, the page and the table are made from this
data alone.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import LoadTestResult
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import (
    ACTIVATED,
    REPAIRED,
    ROLLED_BACK,
    UNCHANGED,
)

from .._steps import ACTIVATE, AUDIT, COMPARE, DESCRIBE, LOAD, STATUS, TRANSFER, Step

SCHEMA = 2

# The states of an adapter in a report: the actions of adapter_release, and these.
ACTIONS = (ACTIVATED, ROLLED_BACK, REPAIRED, UNCHANGED)
# What an audit or a status found.
AS_VERIFIED = "as_verified"
DIFFERS = "differs"
ACTIVE = "active"
MISSING = "missing"
# No module returned an adapter in these states.
FAILED = "failed"
SKIPPED = "skipped"
UNREACHABLE = "unreachable"
NOT_REACHED = "not_reached"
NOT_SELECTED = "not_selected"

# What receipts and load tests have in common.
_OF_TEST = tuple(field.name for field in dataclasses.fields(LoadTestResult))
_OF_RELEASE = ("release", "digest", "size", "files", "previous", "since", "history", "activation", "path")

Data = dict[str, t.Any]


@dataclasses.dataclass
class Node:
    """A node as the run has seen it.

    ``variables`` are those that the report uses, ``selected`` the names of the adapters that the
    run covers. ``results`` and ``seconds`` belong to the steps that ended on the node. ``failures``
    are pairs of a step, or else the name of a task, and the result with which it failed.
    """

    name: str
    variables: Data
    group: str
    selected: frozenset[str] = frozenset()
    results: dict[Step, Data] = dataclasses.field(default_factory=dict)
    seconds: dict[Step, float] = dataclasses.field(default_factory=dict)
    failures: list[tuple[Step | str, Data]] = dataclasses.field(default_factory=list)
    unreachable: bool = False

    def add(self, step: Step, result: Data) -> None:
        """Add the result of a step.

        A step that does something overrides an earlier finding that nothing was to be done.
        """
        if step in (DESCRIBE, TRANSFER, LOAD, ACTIVATE):
            self.results.pop(COMPARE, None)
        self.results[step] = result


@dataclasses.dataclass
class Run:
    """A run.

    ``kind`` is deploy, rollback, audit or status. Times are ISO 8601; ``ended`` is None while the
    run goes on.
    """

    kind: str
    check_mode: bool
    server: str
    server_address: str
    nodes: list[Node]
    started: str
    ended: str | None = None
    seconds: float | None = None
    training: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def groups_of(groups: c.Mapping[str, c.Sequence[str]], agents: c.Mapping[str, str]) -> dict[str, str]:
    """Return for each node the group of its agent: a group whose hosts all have that agent."""
    found = dict.fromkeys(agents, "agents")
    # The first group wins where a node is in two of them.
    for group, hosts in reversed(list(groups.items())):
        if group not in ("all", "agents", "ungrouped") and len({agents.get(host) for host in hosts}) == 1:
            found.update(dict.fromkeys(agents.keys() & set(hosts), group))
    return found


def report_of(run: Run) -> Data:
    """Return the report of a run, which need not have ended."""
    failures = [failure for node in run.nodes for failure in _failures(node)]
    nodes = [_node(run, node, [failure for failure in failures if failure["node"] == node.name]) for node in run.nodes]
    return {
        "schema": SCHEMA,
        "kind": run.kind,
        "check_mode": run.check_mode,
        "started": run.started,
        "ended": run.ended,
        "seconds": run.seconds,
        "training_server": {"name": run.server, "address": run.server_address},
        "training": {str(key): str(value) for key, value in run.training.items()},
        "notes": [str(note) for note in run.notes],
        "nodes": nodes,
        "failures": failures,
        "boxes": _boxes(nodes),
    }


def _node(run: Run, node: Node, failures: c.Sequence[Data]) -> Data:
    variables = node.variables
    return {
        "node": node.name,
        "address": str(variables.get("ansible_host") or node.name),
        "group": node.group,
        "agent": str(variables.get("agent_name") or ""),
        "purpose": str(variables.get("agent_purpose") or ""),
        "notes": [str(note) for note in variables.get("agent_notes") or ()],
        "seconds": {step.key: seconds for step, seconds in node.seconds.items()},
        "wire_bytes": node.results.get(TRANSFER, {}).get("wire_bytes"),
        "adapters": [_adapter(run, node, row, failures) for row in rows_of(variables)],
    }


def rows_of(variables: Data) -> list[Data]:
    """Return the rows of agent_adapters. The role has already rejected rows of any other form."""
    rows = variables.get("agent_adapters")
    return [row for row in rows if isinstance(row, dict) and row.get("name")] if isinstance(rows, list) else []


def _adapter(run: Run, node: Node, row: Data, failures: c.Sequence[Data]) -> Data:
    name = str(row["name"])
    of = {step: _entry(result, name) for step, result in node.results.items()}
    # An up-to-date node ends with the comparison: nothing to transfer, and the receipts are valid.
    current = of.get(COMPARE)
    found = current or of.get(ACTIVATE) or of.get(AUDIT) or of.get(STATUS) or {}
    receipt = found.get("receipt") or {}
    if current:
        transferred: Data = {"downloaded_bytes": 0, "reused_bytes": 0}
        test: Data = {"from_receipt": True, "required_level": current["required_level"]}
    else:
        transferred, test = of.get(TRANSFER) or {}, of.get(LOAD) or {}
    failed = any(failure["adapter"] == name for failure in failures)
    level = receipt.get("level") or test.get("level")
    drift = list(found.get("drift") or found.get("differences") or ())
    # A status hashes nothing, and in check mode nothing is done.
    hashed = current or of.get(ACTIVATE) or (of.get(AUDIT) and found.get("release") and not drift)
    verified = bool(hashed) and not run.check_mode
    return {
        "name": name,
        "variant": str(row.get("variant", "")),
        "default": bool(row.get("default", False)),
        "base": str(row.get("base", "")),
        "rank": row.get("rank"),
        "alpha": row.get("alpha"),
        "target_modules": [str(module) for module in row.get("target_modules") or ()],
        "extra_files": [str(file) for file in row.get("extra_files") or ()],
        "dataset": str(row.get("dataset", "")),
        "quality": str(row.get("quality", "")),
        "source": _directory(node.variables.get("agent_source_models_dir"), name),
        "target": _directory(node.variables.get("agent_models_dir"), name),
        "state": _state(node, name, of, drift, failures),
        "verified": verified,
        # Tested means "loads with PEFT", which level structure does not try.
        "tested": verified and not failed and level not in (None, "structure"),
        **{key: found.get(key) for key in _OF_RELEASE},
        "files": found.get("files") or [],
        "history": found.get("history") or [],
        "downloaded_bytes": transferred.get("downloaded_bytes"),
        "reused_bytes": transferred.get("reused_bytes"),
        "test": _test(receipt, test),
        "changes": _changes(node.results.get(ACTIVATE, {}), name),
        "drift": [str(line) for line in drift],
    }


def _entry(result: Data, name: str) -> Data:
    """Return the entry of an adapter in a module's result.

    All modules list their adapters in the same form.
    """
    return next((entry for entry in result.get("adapters") or () if entry.get("name") == name), {})


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


def _changes(released: Data, name: str) -> Data | None:
    """Return how the release differs from the one before, unless it is the same one."""
    for entry, diff in zip(released.get("adapters") or (), released.get("diff") or ()):
        if entry["name"] == name and diff["before"] != diff["after"]:
            return {"before": diff["before"], "after": diff["after"]}
    return None


def _state(node: Node, name: str, of: c.Mapping[Step, Data], drift: c.Sequence[str], failures: c.Sequence[Data]) -> str:
    if of.get(COMPARE):
        return UNCHANGED
    if of.get(ACTIVATE):
        return str(of[ACTIVATE]["action"])
    if name not in node.selected:
        return NOT_SELECTED
    if found := of.get(AUDIT) or of.get(STATUS):
        if not found["release"]:
            return MISSING
        if any(failure["adapter"] == name and failure["step"] == LOAD.key for failure in failures):
            return FAILED
        return DIFFERS if drift else AS_VERIFIED if of.get(AUDIT) else ACTIVE
    if node.unreachable:
        return UNREACHABLE
    if any(failure["adapter"] in (None, name) for failure in failures):
        return FAILED
    return SKIPPED if failures else NOT_REACHED


def _failures(node: Node) -> list[Data]:
    """Return the failures of a node, one entry for each problem."""
    found: list[Data] = []
    for entry in node.results.get(AUDIT, {}).get("adapters") or ():
        remedy = "Deploy again: it repairs what differs, from the node's own store where that is intact."
        found += [_failure(node, entry["name"], AUDIT, entry["name"], line, remedy) for line in entry["differences"]]
    drifted = bool(found)
    for step, result in node.failures:
        if result.get("unreachable"):
            # The host is the training server where the task was delegated to it.
            remedy = "Restore the connection and run again. The node still serves a complete release, the old one or the new one."
            found.append(_failure(node, None, step, result["host"], f"is unreachable: {_message(result)}", remedy))
        elif result.get("problems"):
            for problem in result["problems"]:
                found.append(_failure(node, step=step, **problem))
        # The last task of an audit fails because of the drift that is listed above.
        elif isinstance(step, Step) or not drifted:
            found.append(_failure(node, None, step, node.name, _message(result), ""))
    return found


def _failure(node: Node, adapter: str | None, step: Step | str, subject: str, problem: str, remedy: str) -> Data:
    name = step.key if isinstance(step, Step) else step
    return {"node": node.name, "adapter": adapter, "step": name, "subject": subject, "problem": problem, "remedy": remedy}


def _message(result: Data) -> str:
    message = result.get("msg") or "failed without a message"
    return "\n".join(map(str, message)) if isinstance(message, list) else str(message)


def _directory(models_dir: t.Any, name: str) -> str:
    """Return the directory of an adapter, or nothing when the variable cannot be templated."""
    return f"{str(models_dir).rstrip('/')}/{name}/" if models_dir else ""


def adapters_of(report: Data) -> list[tuple[Data, Data]]:
    """Return each adapter with its node. Those of one agent come together."""
    pairs = [(node, adapter) for node in report["nodes"] for adapter in node["adapters"]]
    agents = list(dict.fromkeys((node["agent"], node["group"]) for node, _adapter in pairs))
    return sorted(pairs, key=lambda pair: agents.index((pair[0]["agent"], pair[0]["group"])))


def _boxes(nodes: c.Sequence[Data]) -> list[Data]:
    """Return a box for each agent's delivery, one for the checksums and one for the tests."""
    pairs = [(node, adapter) for node in nodes for adapter in node["adapters"]]

    def box(text: str, evidence: str, lack: str, group: str | None = None) -> Data:
        covered = [(node, adapter) for node, adapter in pairs if group in (None, node["group"])]
        reasons = [
            f"{adapter['name']} on {node['node']}: {'differs' if adapter['drift'] and not adapter['verified'] else lack}"
            for node, adapter in covered
            if not adapter[evidence]
        ]
        return {"text": text, "ticked": bool(covered) and not reasons, "reasons": reasons or ([] if covered else ["no adapters"])}

    groups = {node["group"]: node["agent"] for node in nodes}
    return [
        *(box(f"{agent.capitalize()} models → {group}", "verified", "not delivered", group) for group, agent in groups.items()),
        box("All checksums verified", "verified", "not verified"),
        box("All nodes tested", "tested", "not tested"),
    ]
