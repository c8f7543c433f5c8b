# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""A run of role agent as its tasks show it: nodes, their adapters, results and failures.

``model`` makes the report from it.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._steps import ACTIVATE, COMPARE, DESCRIBE, LOAD, SERVE, SERVED, TRANSFER, Step

Data = dict[str, t.Any]


@dataclasses.dataclass
class Failure:
    """A failed task: its step, or else its name, and its result.

    ``host`` failed: the node, or the host that the task was delegated to. ``adapters`` are the
    names of the adapters that the role was working on, or None before it had selected any.
    """

    step: Step | str
    host: str
    result: Data
    adapters: frozenset[str] | None = None


@dataclasses.dataclass
class Node:
    """A node as the run has seen it.

    ``rows`` are its rows of ``agent_adapters``, by agent and name. ``steps`` has what each step
    returned for an adapter, ``changes`` how its release differs from the one before, and
    ``excluded`` what is not delivered of its directory, each by the name of the adapter.
    ``current`` are the names that the role is working on: a playbook may run the role several times
    on one node.
    """

    name: str
    address: str = ""
    groups: dict[str, None] = dataclasses.field(default_factory=dict)
    training_host: str = ""
    purpose: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    rows: dict[tuple[str, str], Data] = dataclasses.field(default_factory=dict)
    current: frozenset[str] | None = None
    steps: dict[str, dict[Step, Data]] = dataclasses.field(default_factory=dict)
    changes: dict[str, Data] = dataclasses.field(default_factory=dict)
    excluded: dict[str, list[Data]] = dataclasses.field(default_factory=dict)
    seconds: dict[Step, float] = dataclasses.field(default_factory=dict)
    wire_bytes: int | None = None
    failures: list[Failure] = dataclasses.field(default_factory=list)
    unreachable: bool = False

    @property
    def agents(self) -> list[str]:
        return list(dict.fromkeys(agent for agent, _name in self.rows))

    @property
    def selected(self) -> bool:
        """Whether the run covers any of its adapters."""
        return any(row["selected"] for row in self.rows.values())

    def declare(self, entry: Data) -> None:
        """Add an entry of ``fleet_info`` to what is known of the node."""
        self.address = entry["address"]
        self.groups.update(dict.fromkeys(entry["groups"]))
        self.training_host = entry["training_host"] or self.training_host
        self.purpose.update(entry["purpose"])
        self.notes.update(entry["notes"])
        for row in entry["rows"]:
            known = self.rows.setdefault((row["agent"], row["name"]), {"selected": False})
            known.update(
                row,
                selected=row["selected"] or known["selected"],
                source=_directory(entry["source_models_dir"], row["name"]),
                target=_directory(entry["models_dir"], row["name"]),
            )

    def select(self, entry: Data) -> None:
        """Begin to work on the adapters of a result of ``adapter_selection_info``."""
        self.declare(entry)
        self.current = frozenset(row["name"] for row in entry["rows"] if row["selected"])
        # Whatever failed before with these adapters no longer decides about their state.
        for failure in self.failures:
            failure.adapters = (failure.adapters or frozenset()) - self.current

    def add(self, step: Step, result: Data) -> None:
        """Add the result of a step.

        A step that does something overrides an earlier finding that nothing was to be done.
        """
        if step in (DESCRIBE, TRANSFER, LOAD, ACTIVATE):
            for name in self.steps if self.current is None else self.current:
                self.steps.get(name, {}).pop(COMPARE, None)
        for entry in result.get("adapters") or ():
            of = self.steps.setdefault(entry["name"], {})
            if step in (SERVE, SERVED):
                # An entry for each engine.
                of.setdefault(step, {"engines": []})["engines"].append(entry)
            else:
                of[step] = entry
        if step == SERVE:
            # An engine does not serve them, so what was activated is not active any more.
            for name in result.get("rolled_back") or ():
                for undone in (COMPARE, ACTIVATE):
                    self.steps.get(name, {}).pop(undone, None)
                self.changes.pop(name, None)
        if step == ACTIVATE:
            # The module lists the differences in the order of the adapters.
            for entry, diff in zip(result.get("adapters") or (), result.get("diff") or ()):
                self.changes[entry["name"]] = diff
        if result.get("wire_bytes") is not None:
            self.wire_bytes = (self.wire_bytes or 0) + result["wire_bytes"]

    def fail(self, step: Step | str, host: str, result: Data) -> None:
        self.failures.append(Failure(step, host, result, self.current))


@dataclasses.dataclass
class Run:
    """A run.

    ``kind`` is deploy, rollback, serve, audit or status, ``rollout`` the plan of a deploy. Times
    are ISO 8601; ``ended`` is None while the run goes on. ``failures`` are those of tasks that
    belong to no node.
    """

    started: str
    kind: str = "deploy"
    check_mode: bool = False
    rollout: Data = dataclasses.field(default_factory=dict)
    nodes: dict[str, Node] = dataclasses.field(default_factory=dict)
    server: Data = dataclasses.field(default_factory=dict)
    ended: str | None = None
    seconds: float | None = None
    training: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    failures: list[Failure] = dataclasses.field(default_factory=list)

    def node(self, name: str) -> Node:
        return self.nodes.setdefault(name, Node(name))

    def declare(self, fleet: Data) -> None:
        """Add all nodes of a result of ``fleet_info``."""
        for entry in fleet["nodes"]:
            self.node(entry["name"]).declare(entry)
        self.rollout = fleet.get("rollout") or {}
        self.server, self.training, self.notes = fleet["training_server"], fleet["training"], fleet["notes"]

    def fail(self, step: str, host: str, result: Data) -> None:
        """Add the failure of a task of the whole run, once however many hosts report it."""
        if all(failure.result != result for failure in self.failures):
            self.failures.append(Failure(step, host, result))


def _directory(models_dir: str | None, name: str) -> str:
    """Return the directory of an adapter, or nothing when the variable cannot be templated."""
    return f"{models_dir.rstrip('/')}/{name}/" if models_dir else ""
