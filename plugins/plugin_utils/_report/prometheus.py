# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""lorafleet.prom: the report in Prometheus' text format, for node_exporter's textfile collector.

Every adapter that the run covers has a series, whatever its state. So a query can tell a missing
adapter from a bad one.
"""

from __future__ import annotations

import collections.abc as c
import datetime

from .run import Data
from .states import NOT_SELECTED

Series = c.Iterable[tuple[dict[str, str], float]]


def as_prometheus(report: Data) -> str:
    pairs = [
        (node, adapter, {"agent": adapter["agent"], "node": node["node"], "adapter": adapter["name"]})
        for node in report["nodes"]
        for adapter in node["adapters"]
        if adapter["state"] != NOT_SELECTED
    ]
    tests = [(labels, adapter["test"]) for _node, adapter, labels in pairs if adapter["test"]]
    kind = {"kind": report["kind"]}
    metrics: list[tuple[str, str, Series]] = [
        ("run_start_timestamp_seconds", "When the run started.", [(kind, _timestamp(report["started"]))]),
        (
            "run_end_timestamp_seconds",
            "When the run ended. Absent while it goes on and after it was killed.",
            [(kind, _timestamp(report["ended"]))] if report["ended"] else [],
        ),
        ("run_failures", "Number of failures and differences.", [(kind, len(report["failures"]))]),
        (
            "adapter_verified",
            "Whether the run hashed the active release and every byte matches its manifest.",
            [(labels, adapter["verified"]) for _node, adapter, labels in pairs],
        ),
        (
            "adapter_tested",
            "Whether the adapter is verified and loads with PEFT on its node.",
            [(labels, adapter["tested"]) for _node, adapter, labels in pairs],
        ),
        (
            "adapter_drift",
            "Number of differences from the verified release.",
            [(labels, len(adapter["drift"])) for _node, adapter, labels in pairs],
        ),
        (
            "adapter_info",
            "The active release, its state and the level of its test. Always 1.",
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
            "adapter_engine_verdict",
            "What an engine of the node makes of the adapter. Always 1.",
            [
                ({**labels, "engine": engine, "version": version, "state": state}, 1)
                for _node, adapter, labels in pairs
                # Two engines of a node may differ in their settings only.
                for engine, version, state in sorted(_verdicts(adapter))
            ],
        ),
        (
            "adapter_serving",
            "What an engine really serves of the adapter. Always 1.",
            [
                (
                    {
                        **labels,
                        "engine": one["engine"],
                        "url": one["url"],
                        "state": one["state"],
                        "release": one["release"] or "",
                    },
                    1,
                )
                for _node, adapter, labels in pairs
                for one in adapter["serving"]
            ],
        ),
        (
            "adapter_signature_expires_timestamp_seconds",
            "When the signed statement about the active release expires.",
            [
                (labels, _timestamp(signed["expires"]))
                for _node, adapter, labels in pairs
                if (signed := adapter.get("signed")) and signed["expires"]
            ],
        ),
        (
            "adapter_size_bytes",
            "Size of all files of the active release.",
            [(labels, adapter["size"]) for _node, adapter, labels in pairs if adapter["size"] is not None],
        ),
        (
            "adapter_effect_ratio",
            "How much the adapter changes the outputs, relative to their norm.",
            [(labels, test["effect"]) for labels, test in tests if test["effect"] is not None],
        ),
        (
            "adapter_golden_distance",
            "Distance between the outputs with the adapter and the golden.",
            [(labels, test["distances"]["on"]) for labels, test in tests if test["distances"]],
        ),
        (
            "adapter_golden_distance_permitted",
            "The largest distance allowed.",
            [(labels, test["permitted"]["on"]) for labels, test in tests if test["distances"] and test["permitted"]],
        ),
        (
            "step_duration_seconds",
            "Duration of a step on a node, for all its adapters together.",
            [
                ({"agent": ",".join(node["agents"]), "node": node["node"], "step": step}, seconds)
                for node in report["nodes"]
                for step, seconds in node["seconds"].items()
            ],
        ),
    ]
    return "".join(_metric(f"lorafleet_{name}", text, list(series)) for name, text, series in metrics)


def _verdicts(adapter: Data) -> set[tuple[str, str, str]]:
    return {(verdict["engine"], verdict["version"] or "", verdict["state"]) for verdict in adapter["engines"]}


def _metric(name: str, text: str, series: c.Sequence[tuple[dict[str, str], float]]) -> str:
    if not series:
        return ""
    lines = [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
    for labels, value in series:
        inner = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        # repr() is the shortest text that reads back as the same number.
        lines.append(f"{name}{{{inner}}} {int(value) if float(value).is_integer() else repr(float(value))}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _timestamp(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp()
