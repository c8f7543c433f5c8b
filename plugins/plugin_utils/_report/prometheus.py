# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""lorafleet.prom: the report for the textfile collector of node_exporter, in Prometheus' text format.

A series for each adapter of each node, whatever became of it, so that one that is missing can be told from one that is bad.
"""

from __future__ import annotations

import collections.abc as c
import datetime

from .model import NOT_SELECTED, Data

Series = c.Iterable[tuple[dict[str, str], float]]


def as_prometheus(report: Data) -> str:
    # What a run was not about it says nothing of.
    pairs = [
        (node, adapter, {"agent": node["agent"], "node": node["node"], "adapter": adapter["name"]})
        for node in report["nodes"]
        for adapter in node["adapters"]
        if adapter["state"] != NOT_SELECTED
    ]
    tests = [(labels, adapter["test"]) for _node, adapter, labels in pairs if adapter["test"]]
    kind = {"kind": report["kind"]}
    metrics: list[tuple[str, str, Series]] = [
        ("run_start_timestamp_seconds", "When the run began.", [(kind, _timestamp(report["started"]))]),
        (
            "run_end_timestamp_seconds",
            "When the run ended. Not there while it goes on, nor where it was killed.",
            [(kind, _timestamp(report["ended"]))] if report["ended"] else [],
        ),
        ("run_failures", "How many things failed or differ.", [(kind, len(report["failures"]))]),
        (
            "adapter_verified",
            "Whether the run hashed every byte of the active release and found it as its manifest says.",
            [(labels, adapter["verified"]) for _node, adapter, labels in pairs],
        ),
        (
            "adapter_tested",
            "Whether it is verified and was loaded with PEFT on its node.",
            [(labels, adapter["tested"]) for _node, adapter, labels in pairs],
        ),
        (
            "adapter_drift",
            "How many things differ from what was verified.",
            [(labels, len(adapter["drift"])) for _node, adapter, labels in pairs],
        ),
        (
            "adapter_info",
            "The active release, what became of it, and how far it was tested. Always 1.",
            [
                (
                    {
                        **labels,
                        "release": adapter["release"] or "",
                        "state": adapter["state"],
                        "level": (adapter["test"] or {}).get("level") or "",
                    },
                    1,
                )
                for _node, adapter, labels in pairs
            ],
        ),
        (
            "adapter_size_bytes",
            "Bytes of all files of the active release.",
            [(labels, adapter["size"]) for _node, adapter, labels in pairs if adapter["size"] is not None],
        ),
        (
            "adapter_effect_ratio",
            "By how much the adapter changes the answers, relative to their norm.",
            [(labels, test["effect"]) for labels, test in tests if test["effect"] is not None],
        ),
        (
            "adapter_golden_distance",
            "How far the answers with the adapter are from the golden.",
            [(labels, test["distances"]["on"]) for labels, test in tests if test["distances"]],
        ),
        (
            "adapter_golden_distance_permitted",
            "How far they may be.",
            [(labels, test["permitted"]["on"]) for labels, test in tests if test["distances"] and test["permitted"]],
        ),
        (
            "step_duration_seconds",
            "What a step took on a node, for all its adapters together.",
            [
                ({"agent": node["agent"], "node": node["node"], "step": step}, seconds)
                for node in report["nodes"]
                for step, seconds in node["seconds"].items()
            ],
        ),
    ]
    return "".join(_metric(f"lorafleet_{name}", text, list(series)) for name, text, series in metrics)


def _metric(name: str, text: str, series: c.Sequence[tuple[dict[str, str], float]]) -> str:
    if not series:
        return ""
    lines = [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
    for labels, value in series:
        inner = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        # The shortest text that is this number.
        lines.append(f"{name}{{{inner}}} {int(value) if float(value).is_integer() else repr(float(value))}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _timestamp(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp()
