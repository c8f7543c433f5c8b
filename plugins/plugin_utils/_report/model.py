# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The report: what a run of role agent was about, what it did and what it proved, as data.

C(docs/report.schema.json) describes its form; the files, the page and the table are made from it and from nothing else.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import re
import typing as t

SCHEMA = 1

# What a task of the role does, by its module. Each works on all adapters of a node at once.
STEPS = {
    "adapter_info": "describe",
    "adapter_up_to_date_info": "compare",
    "adapter_sync": "bring",
    "adapter_load_test": "load",
    "adapter_release": "activate",
    "adapter_audit": "audit",
    "adapter_status": "look",
}

# What became of an adapter that has a release here now: the words of adapter_release, and these.
AS_VERIFIED = "as_verified"
DIFFERS = "differs"
ACTIVE = "active"
# What became of one of which nothing was heard.
FAILED = "failed"
HELD_BACK = "held_back"
UNREACHABLE = "unreachable"
NOT_REACHED = "not_reached"
NOT_SELECTED = "not_selected"
MISSING = "missing"

# What a receipt and a load test say alike.
_OF_TEST = (
    "level", "device", "device_name", "capability", "dtype", "versions", "load_seconds", "peak_memory_bytes", "effect",
    "distances", "permitted", "checks", "notes", "limited_by",
)  # fmt: skip
_OF_RELEASE = ("release", "digest", "size", "files", "previous", "since", "history", "activation", "path")

Data = dict[str, t.Any]


@dataclasses.dataclass
class Node:
    """A node as a run has seen it.

    C(variables) are those that the report names, C(selected) the names of the adapters that the run was about. C(results) and
    C(seconds) are of each of C(STEPS) that ended there; C(failures) are (step or task, result) of those that failed.
    """

    name: str
    variables: Data
    group: str
    selected: frozenset[str] = frozenset()
    results: dict[str, Data] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    failures: list[tuple[str, Data]] = dataclasses.field(default_factory=list)
    unreachable: bool = False

    def take(self, step: str, result: Data) -> None:
        """Keep what a step said. That there was nothing to do says nothing any more once a step has done something."""
        if step in ("describe", "bring", "load", "activate"):
            self.results.pop("compare", None)
        self.results[step] = result


@dataclasses.dataclass
class Run:
    """A run: C(kind) is deploy, rollback, audit or status, times are ISO 8601; C(ended) is None while it runs."""

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
    """The group that carries a node's agent: all its hosts have that agent. A node may be in other groups besides."""
    found = dict.fromkeys(agents, "agents")
    # A node that is in two of them is called by the first.
    for group, hosts in reversed(list(groups.items())):
        if group not in ("all", "agents", "ungrouped") and len({agents.get(host) for host in hosts}) == 1:
            found.update(dict.fromkeys(agents.keys() & set(hosts), group))
    return found


def report_of(run: Run) -> Data:
    """Return the report of a run, which may be at its beginning."""
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
    said = node.variables
    return {
        "node": node.name,
        "address": str(said.get("ansible_host") or node.name),
        "group": node.group,
        "agent": str(said.get("agent_name") or ""),
        "purpose": str(said.get("agent_purpose") or ""),
        "notes": [str(note) for note in said.get("agent_notes") or ()],
        "seconds": dict(node.seconds),
        "wire_bytes": node.results.get("bring", {}).get("wire_bytes"),
        "adapters": [_adapter(run, node, row, failures) for row in rows_of(said)],
    }


def rows_of(said: Data) -> list[Data]:
    """The rows of agent_adapters; what has another form than that was refused before anything was done."""
    rows = said.get("agent_adapters")
    return [row for row in rows if isinstance(row, dict) and row.get("name")] if isinstance(rows, list) else []


def _adapter(run: Run, node: Node, row: Data, failures: c.Sequence[Data]) -> Data:
    said, name = node.variables, str(row["name"])
    of = {step: _entry(result, name) for step, result in node.results.items()}
    if current := of.get("compare"):
        # One check found the node up to date: no later step ran, and none had anything to do.
        of.update(
            bring={"sent_bytes": 0, "taken_bytes": 0},
            load={"from_receipt": True, "required_level": current["required_level"]},
            activate={**current, "action": "unchanged"},
        )
    found = of.get("activate") or of.get("audit") or of.get("look") or {}
    receipt = found.get("receipt") or {}
    test = of.get("load") or {}
    own = any(failure["adapter"] == name for failure in failures)
    level = receipt.get("level") or test.get("level")
    drift = list(found.get("drift") or found.get("wrong") or ())
    # Of what a status says nothing was hashed; in check mode nothing was done.
    verified = bool(of.get("activate") or (of.get("audit") and found.get("release") and not drift)) and not run.check_mode
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
        "source": _directory(said.get("agent_source_models_dir"), name),
        "target": _directory(said.get("agent_models_dir"), name),
        "state": _state(node, name, of, drift, failures),
        "verified": verified,
        # The box stands for "can be loaded with PEFT", which level structure does not try.
        "tested": verified and not own and level not in (None, "structure"),
        **{key: found.get(key) for key in _OF_RELEASE},
        "files": found.get("files") or [],
        "history": found.get("history") or [],
        "sent_bytes": (of.get("bring") or {}).get("sent_bytes"),
        "taken_bytes": (of.get("bring") or {}).get("taken_bytes"),
        "test": _test(receipt, test),
        "changes": _changes(node.results.get("activate", {}), name),
        "drift": [str(line) for line in drift],
    }


def _entry(result: Data, name: str) -> Data:
    """What a result says of an adapter; the lists of all modules have the same form."""
    return next((entry for entry in result.get("adapters") or () if entry.get("name") == name), {})


def _test(receipt: Data, test: Data) -> Data | None:
    """What was verified, by the receipt that the release stands on or else by a test that it did not pass."""
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
    """What sets the release apart from the one before, where it is another one."""
    for entry, diff in zip(released.get("adapters") or (), released.get("diff") or ()):
        if entry["name"] == name and diff["before"] != diff["after"]:
            return {"before": diff["before"], "after": diff["after"]}
    return None


def _state(node: Node, name: str, of: c.Mapping[str, Data], drift: c.Sequence[str], failures: c.Sequence[Data]) -> str:
    if of.get("activate"):
        return str(of["activate"]["action"])
    if name not in node.selected:
        return NOT_SELECTED
    if found := of.get("audit") or of.get("look"):
        if not found["release"]:
            return MISSING
        if any(failure["adapter"] == name and failure["step"] == "load" for failure in failures):
            return FAILED
        return DIFFERS if drift else AS_VERIFIED if of.get("audit") else ACTIVE
    if node.unreachable:
        return UNREACHABLE
    if any(failure["adapter"] in (None, name) for failure in failures):
        return FAILED
    return HELD_BACK if failures else NOT_REACHED


def _failures(node: Node) -> list[Data]:
    """What failed on a node, one entry for each thing."""
    names = sorted((str(row["name"]) for row in rows_of(node.variables)), key=len, reverse=True)
    found: list[Data] = []
    for entry in node.results.get("audit", {}).get("adapters") or ():
        remedy = "Deploy again: what differs is put in order, from the node's own store where that is whole."
        found += [_failure(node, entry["name"], "audit", entry["name"], line, remedy) for line in entry["drift"]]
    audited = bool(found)
    for step, result in node.failures:
        if result.get("unreachable"):
            # It may be the training server that was lost while it was asked for this node.
            remedy = "See that it answers, then run again: what is served is whole, the old release or the new one."
            found.append(_failure(node, None, step, result["host"], f"was lost: {_message(result)}", remedy))
        elif result.get("problems"):
            for problem in result["problems"]:
                adapter = next((name for name in names if _names(problem["subject"], name)), None)
                found.append(_failure(node, adapter, step, **problem))
        # The audit's own last task fails for what was said already.
        elif step in STEPS.values() or not audited:
            found.append(_failure(node, None, step, node.name, _message(result), ""))
    return found


def _failure(node: Node, adapter: str | None, step: str, subject: str, problem: str, remedy: str) -> Data:
    return {"node": node.name, "adapter": adapter, "step": step, "subject": subject, "problem": problem, "remedy": remedy}


def _names(subject: str, name: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", subject) is not None


def _message(result: Data) -> str:
    message = result.get("msg") or "failed without a message"
    return "\n".join(map(str, message)) if isinstance(message, list) else str(message)


def _directory(models_dir: t.Any, name: str) -> str:
    return f"{str(models_dir or '/home/models').rstrip('/')}/{name}/"


def adapters_of(report: Data) -> list[tuple[Data, Data]]:
    """Each adapter with its node, those of one agent together."""
    pairs = [(node, adapter) for node in report["nodes"] for adapter in node["adapters"]]
    agents = list(dict.fromkeys((node["agent"], node["group"]) for node, _adapter in pairs))
    return sorted(pairs, key=lambda pair: agents.index((pair[0]["agent"], pair[0]["group"])))


def _boxes(nodes: c.Sequence[Data]) -> list[Data]:
    """A box for each agent that all its adapters were delivered, and one each that all was verified and tested."""
    pairs = [(node, adapter) for node in nodes for adapter in node["adapters"]]

    def box(text: str, evidence: str, lack: str, group: str | None = None) -> Data:
        about = [(node, adapter) for node, adapter in pairs if group in (None, node["group"])]
        against = [
            f"{adapter['name']} on {node['node']}: {'differs' if adapter['drift'] and not adapter['verified'] else lack}"
            for node, adapter in about
            if not adapter[evidence]
        ]
        return {"text": text, "ticked": bool(about) and not against, "against": against or ([] if about else ["no adapters"])}

    groups = {node["group"]: node["agent"] for node in nodes}
    return [
        *(box(f"{agent.capitalize()} models → {group}", "verified", "not delivered", group) for group, agent in groups.items()),
        box("All checksums verified", "verified", "not verified"),
        box("All nodes tested", "tested", "not tested"),
    ]
