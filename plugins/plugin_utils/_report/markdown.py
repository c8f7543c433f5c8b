# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""MANIFEST.md: the manifest text that people know, with evidence in it, and its boxes ticked by that alone.

It is valid input of the inventory plugin: what it says of the fleet is read back as it was. So evidence stands in tables and
sections of its own, which C(_manifest_text) takes for what they are, something for people.
"""

from __future__ import annotations

import collections.abc as c
import re
import typing as t

from .model import Data, adapters_of
from .words import device, in_bytes, sentence, what_happened


def as_markdown(report: Data) -> str:
    server = report["training_server"]
    when = f"as of {report['ended']}" if report["ended"] else f"begun at {report['started']} and not ended"
    pairs = adapters_of(report)
    lines = [
        "# Model Distribution Manifest",
        f"# Training Server: {_line(server['name'])} ({_line(server['address'])})",
        "",
        f"What a run of {report['kind']} has proved, {when}. A box is ticked by evidence of that run alone.",
        "",
        "## Models Ready for Distribution",
    ]
    for group in dict.fromkeys(node["group"] for node in report["nodes"]):
        lines += ["", *_section([node for node in report["nodes"] if node["group"] == group])]
    # What is checked stands with each adapter.
    lines += _bullets("Training Configuration", [f"{_title(key)}: {value}" for key, value in report["training"].items()])
    files = dict.fromkeys(name for _node, adapter in pairs for name in [*_files(adapter), *adapter["extra_files"]])
    lines += _bullets("Files to Transfer (per model)", files)
    lines += ["", "## Evidence", "", *_evidence(pairs)]
    lines += ["", "## Files", "", *_file_table(pairs)]
    lines += ["", "## Status"]
    for box in report["boxes"]:
        lines.append(f"- [{'x' if box['ticked'] else ' '}] {_line(box['text'])}")
        # Further text of the bullet, not bullets of their own.
        lines += [f"  ({_line(against)})" for against in box["against"]]
    lines += map(_note, report["notes"])
    if report["failures"]:
        lines += ["", "## What Failed"]
        lines += [text for failure in report["failures"] for text in ("", _paragraph(failure))]
    return "\n".join(lines) + "\n"


def _section(nodes: c.Sequence[Data]) -> list[str]:
    """An agent: its nodes serve the same adapters, each below the same path."""
    first, node = nodes[0], _called(nodes[0])
    # These signs take a heading apart.
    purpose = re.sub(r"[()]", "", re.sub(r"->|→", "to", _line(first["purpose"])))
    addresses = ", ".join(_line(node["address"]) for node in nodes)
    title = f"{_line(first['agent']).capitalize()} Agent" + (f" ({purpose})" if purpose else "")
    lines = [f"### {title} → {_line(node)} ({addresses})"]
    named: set[str] = set()
    for adapter in (adapter for node in nodes for adapter in node["adapters"]):
        if adapter["name"] not in named:
            named.add(adapter["name"])
            lines += [
                f"- **{_line(adapter['variant']).upper()} {'Default' if adapter['default'] else 'Appendix'}:**",
                *(f"  - {key}: {_line(value)}" for key, value in _said(node, adapter).items() if value),
            ]
    return [*lines, *map(_note, first["notes"])]


def _called(node: Data) -> str:
    """What the manifest calls a node: node C(gpu-a) has the group C(gpu_a) and the host C(gpu-a-1)."""
    name = str(node["node"]).rpartition("-")[0]
    return name if re.sub(r"\W", "_", name) == node["group"] else str(node["group"])


def _said(node: str, adapter: Data) -> dict[str, str]:
    return {
        "Source": f"`{adapter['source']}`",
        "Target": f"`{node}:{adapter['target']}`",
        "Base": adapter["base"],
        "Training": adapter["dataset"],
        "Quality": adapter["quality"],
        "LoRA rank": str(adapter["rank"] or ""),
        "LoRA alpha": str(adapter["alpha"] or ""),
        "LoRA target modules": ", ".join(adapter["target_modules"]),
    }


def _evidence(pairs: c.Sequence[tuple[Data, Data]]) -> list[str]:
    header = ("node", "adapter", "release", "what happened", "level", "device", "verified at", "digest")
    rows = []
    for node, adapter in pairs:
        test = adapter["test"] or {}
        rows.append(
            [
                node["node"],
                adapter["name"],
                adapter["release"],
                what_happened(adapter["state"]),
                test.get("level"),
                device(adapter),
                test.get("at"),
                adapter["digest"],
            ]
        )
    return _table(header, rows)


def _file_table(pairs: c.Sequence[tuple[Data, Data]]) -> list[str]:
    """Each release once, though several nodes may have it."""
    releases = {adapter["digest"]: adapter for _node, adapter in pairs if adapter["files"]}
    rows = [
        [adapter["name"], adapter["release"], entry["path"], str(entry["size"]), entry["sha256"]]
        for adapter in releases.values()
        for entry in adapter["files"]
    ]
    total = sum(adapter["size"] for adapter in releases.values())
    return [*_table(("adapter", "release", "file", "bytes", "sha256"), rows), "", f"{len(rows)} files, {in_bytes(total)}"]


def _files(adapter: Data) -> list[str]:
    return [entry["path"] for entry in adapter["files"]]


def _bullets(title: str, items: c.Iterable[str]) -> list[str]:
    listed = [f"- {_line(item)}" for item in items]
    return ["", f"## {title}", *listed] if listed else []


def _table(header: c.Sequence[str], rows: c.Iterable[c.Sequence[t.Any]]) -> list[str]:
    return [_row(header), _row(["---"] * len(header)), *map(_row, rows)]


def _row(cells: c.Iterable[t.Any]) -> str:
    texts = (_line(str(cell or "")).replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(texts) + " |"


def _paragraph(failure: Data) -> str:
    """A text that cannot be taken for a bullet, a heading or a row, whatever it begins with."""
    return f"Node {_line(failure['node'])}: {_line(sentence(failure))}"


def _note(text: str) -> str:
    """A note as a bullet, which must not look like a check box."""
    return "- " + re.sub(r"^\[(.)\]", r"(\1)", _line(text))


def _title(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _line(text: str) -> str:
    """A text on one line that cannot begin a comment, which would swallow what follows."""
    return " ".join(text.split()).replace("<!--", "<! --")
