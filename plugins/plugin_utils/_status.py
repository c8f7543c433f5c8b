# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The delivery status: what a run has proved, as JSON and as the manifest with its five check boxes."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import functools
import typing as t

SCHEMA = 1

# The steps of role agent in their order: the name that each one's result is registered under.
STEPS = ("__agent_described", "__agent_synced", "__agent_tested", "__agent_released")

NOT_REACHED = "not part of this run, or not reached by it"


@dataclasses.dataclass(frozen=True)
class Row:
    """One adapter on one node: what the inventory declares and what the run found. Sizes are bytes."""

    agent: str
    purpose: str
    group: str
    node: str
    address: str
    adapter: str
    variant: str
    default: bool
    base: str
    dataset: str
    quality: str
    source: str
    target: str
    result: str
    release: str = ""
    digest: str = ""
    size: int = 0
    level: str = ""
    device: str = ""
    verified: bool = False
    tested: bool = False


def collect(hostvars: c.Mapping[str, t.Any], nodes: c.Sequence[str], training_host: str) -> list[Row]:
    """Return a Row for each adapter of each node, from the inventory and the results that role agent has registered."""
    rows = []
    # Ansible puts the variables of a host together each time that it is asked: with many nodes, that is what takes the time.
    agent_of = functools.cache(lambda host: hostvars[host].get("agent_name"))
    of_source = hostvars[training_host]
    for node in nodes:
        of_node = hostvars[node]
        group, failure = _group(agent_of, of_node), _failure(of_node)
        released = {entry["name"]: entry for entry in _adapters(of_node, "__agent_released")}
        for adapter in of_node["agent_adapters"]:
            declared = Row(
                agent=of_node["agent_name"],
                purpose=str(of_node.get("agent_purpose", "")),
                group=group,
                node=node,
                address=str(of_node.get("ansible_host", node)),
                adapter=adapter["name"],
                variant=str(adapter["variant"]),
                default=bool(adapter.get("default", False)),
                base=adapter["base"],
                dataset=str(adapter.get("dataset", "")),
                quality=str(adapter.get("quality", "")),
                source=f"{training_host}:{_directory(of_source, 'training_models_dir', adapter)}",
                target=f"{node}:{_directory(of_node, 'agent_models_dir', adapter)}",
                result=f"failed: {failure}" if failure else NOT_REACHED,
            )
            found = released.get(declared.adapter)
            rows.append(_with_evidence(declared, found) if found else declared)
    return rows


def with_written(rows: c.Sequence[Row], written: c.Iterable[c.Mapping[str, t.Any]]) -> list[Row]:
    """Return what was written before in the same run, with what the rows say that is new; the rows where nothing was.

    Nodes do not wait for each other: what a task knows of the others is as old as the task.
    """
    news = {(row.node, row.adapter): row for row in rows if row.result != NOT_REACHED}
    known = [Row(**row) for row in written]
    return [news.get((row.node, row.adapter), row) for row in known] or list(rows)


def _group(agent_of: c.Callable[[str], t.Any], of_node: c.Mapping[str, t.Any]) -> str:
    """The group that carries a node's agent: all its hosts have that agent. A node may be in other groups besides."""
    for name in of_node["group_names"]:
        if name != "agents" and all(agent_of(host) == of_node["agent_name"] for host in of_node["groups"][name]):
            return str(name)
    return "agents"


def _with_evidence(row: Row, found: c.Mapping[str, t.Any]) -> Row:
    """The release task hashes every byte of what it reports, and reports the receipt that it found to be enough."""
    receipt = found["receipt"] or {}
    return dataclasses.replace(
        row,
        result=found["action"],
        release=found["release"],
        digest=found["digest"],
        size=found["size"],
        level=receipt.get("level", ""),
        device=" ".join(str(receipt.get(key) or "") for key in ("device", "device_name")).strip(),
        verified=True,
        # The box stands for "can be loaded with PEFT", which level structure does not try.
        tested=receipt.get("level", "structure") != "structure",
    )


def _adapters(of_node: c.Mapping[str, t.Any], step: str) -> c.Sequence[c.Mapping[str, t.Any]]:
    result = of_node.get(step) or {}
    return () if result.get("failed") else result.get("adapters", ())


def _failure(of_node: c.Mapping[str, t.Any]) -> str:
    """The message of the step that failed on a node, or an empty string."""
    for step in STEPS:
        result = of_node.get(step) or {}
        if result.get("failed") or result.get("unreachable"):
            return str(result.get("msg", "no message"))
    return ""


def _directory(of_host: c.Mapping[str, t.Any], variable: str, adapter: c.Mapping[str, t.Any]) -> str:
    return f"{of_host.get(variable, '/home/models')}/{adapter['name']}/"


@dataclasses.dataclass(frozen=True)
class Box:
    """One check box: its text, and what still stands against it. It is ticked when nothing does."""

    text: str
    against: tuple[str, ...]

    @property
    def ticked(self) -> bool:
        return not self.against


def boxes(rows: c.Sequence[Row]) -> list[Box]:
    """Return a box for each agent that all its adapters were delivered, and one each that all was verified and tested."""
    groups = dict.fromkeys((row.agent, row.group) for row in rows)
    return [
        *(
            Box(
                f"{agent.capitalize()} models → {group}",
                _against([row for row in rows if (row.agent, row.group) == (agent, group)], "verified", "not delivered"),
            )
            for agent, group in groups
        ),
        Box("All checksums verified", _against(rows, "verified", "not verified")),
        Box("All nodes tested", _against(rows, "tested", "not tested")),
    ]


def _against(rows: c.Sequence[Row], evidence: str, lack: str) -> tuple[str, ...]:
    return tuple(f"{row.adapter} on {row.node}: {lack}" for row in rows if not getattr(row, evidence)) or (
        () if rows else ("no adapters",)
    )


def as_json(rows: c.Sequence[Row], run: str, generated: str, training_host: str) -> dict[str, t.Any]:
    return {
        "schema": SCHEMA,
        "run": run,
        "generated": generated,
        "training_server": training_host,
        "adapters": [dataclasses.asdict(row) for row in rows],
        "boxes": [{"text": box.text, "ticked": box.ticked, "against": list(box.against)} for box in boxes(rows)],
    }


def as_markdown(rows: c.Sequence[Row], generated: str, training_host: str, training_address: str) -> str:
    """The manifest that the hand procedure kept, with evidence in it and its boxes ticked by that alone."""
    lines = [
        "# Model Distribution Manifest",
        "",
        f"- Generated: {generated}",
        f"- Training Server: {training_host} ({training_address})",
    ]
    for agent, group in dict.fromkeys((row.agent, row.group) for row in rows):
        of_agent = [row for row in rows if (row.agent, row.group) == (agent, group)]
        addresses = ", ".join(dict.fromkeys(row.address for row in of_agent))
        purpose = f" ({_one_line(of_agent[0].purpose)})" if of_agent[0].purpose else ""
        lines += [
            "",
            f"## {agent.capitalize()} Agent{purpose} → {group} ({addresses})",
            "",
            "| variant | source | target | base | training | release | size | level | device | result |",
            "| --- | --- | --- | --- | --- | --- | ---: | --- | --- | --- |",
            *(_table_row(row) for row in of_agent),
        ]
    lines += ["", "## Digests", ""]
    lines += [f"- `{row.digest}` {row.adapter} on {row.node}" for row in rows if row.digest] or ["- none in this run"]
    lines += ["", "## Status", ""]
    for box in boxes(rows):
        lines.append(f"- [{'x' if box.ticked else ' '}] {box.text}")
        lines += [f"  - {against}" for against in box.against]
    failures = dict.fromkeys((row.node, row.result) for row in rows if row.result.startswith("failed: "))
    if failures:
        lines += ["", "## What failed", ""]
        lines += [f"- {node} {_one_line(result)}" for node, result in failures]
    return "\n".join(lines) + "\n"


def _table_row(row: Row) -> str:
    training = f"{row.dataset} ({row.quality})" if row.quality else row.dataset
    cells = (
        f"{row.variant.upper()} {'Default' if row.default else 'Appendix'}",
        f"`{row.source}`",
        f"`{row.target}`",
        row.base,
        training,
        f"`{row.release}`" if row.release else "",
        f"{row.size / 1e6:.1f} MB" if row.size else "",
        row.level,
        row.device,
        "failed, see below" if row.result.startswith("failed: ") else row.result,
    )
    return "| " + " | ".join(_one_line(cell).replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"


def _one_line(text: str) -> str:
    return " ".join(text.split())
