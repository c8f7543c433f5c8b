# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports of real runs, recorded by tests/fixtures/record_reports.py."""

from __future__ import annotations

import json
import typing as t

from tests.support.paths import FIXTURES

RECORDED = FIXTURES / "reports"
_SCRIPT = "\"'><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">{{ 7 * 7 }}${7}"
# What modules return about a release of a node that trusts signers.
SIGNED: dict[str, t.Any] = {"signers": ["alice", "bob"], "serial": 7, "expires": "2026-11-29T12:00:00+00:00"}
UNSIGNED: dict[str, t.Any] = {"signers": [], "serial": None, "expires": None}
NAMES = ("deployed", "failed", "drifted", "rolled_back")


def load(name: str) -> dict[str, t.Any]:
    report: dict[str, t.Any] = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return report


def many(number: int) -> dict[str, t.Any]:
    """Return a report of nodes that differ in name, address, times and durations."""
    report = load("deployed")
    [node] = [node for node in report["nodes"] if node["node"] == "jw3-1"]
    report["nodes"] = []
    for second in range(number):
        at = f"2026-11-22T12:{second // 60:02}:{second % 60:02}+00:00"
        [adapter] = json.loads(json.dumps(node["adapters"]))
        adapter["test"]["at"] = at
        adapter["history"] = [{**entry, "at": at} for entry in adapter["history"]]
        seconds = {step: duration + second / 100 for step, duration in node["seconds"].items()}
        name = f"gpu-{second + 1:03}"
        report["nodes"].append(
            {**node, "node": name, "address": f"{name}.example.org", "seconds": seconds, "adapters": [adapter]}
        )
    return report


def troubled(number: int) -> dict[str, t.Any]:
    """Return a report of nodes with six adapters. On every fourth, one failed, in 25 ways."""
    report = many(number)
    failure = load("failed")["failures"][0]
    report["failures"] = []
    for place, node in enumerate(report["nodes"]):
        node["adapters"] = [{**node["adapters"][0], "name": f"llama_{letter}_cleaner_lora"} for letter in "abcdef"]
        if place % 4 == 0:
            failed, skipped = node["adapters"][3:5]
            failed.update(state="failed", release=None, files=[], test=None)
            skipped["state"] = "skipped"
            about = {"node": node["node"], "host": node["node"], "adapter": failed["name"]}
            report["failures"].append({**failure, **about, "problem": f"fails in way {place % 100}."})
    return report


def in_waves(report: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return a report of a rollout whose second wave was not started."""
    canary = {"agent": "cleaner", "wave": 1, "waves": 2, "nodes": ["jw2-1"], "went_back": []}
    failed = {"failed": ["jw2-1"], "failed_wave": 1}
    others = {**canary, "wave": 2, "nodes": ["jw2-2", "jw2-3"]}
    return {**report, "rollout": [{**canary, **failed, "result": "failed"}, {**others, **failed, "result": "not_started"}]}


def hostile(report: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the report with markup in every text that comes from an inventory or a host."""
    report["training_server"] = {"name": _SCRIPT, "address": _SCRIPT}
    report["boxes"] = [{**box, "text": _SCRIPT, "reasons": [_SCRIPT]} for box in report["boxes"]]
    report["rollout"] = [
        {**entry, "agent": _SCRIPT, "nodes": [_SCRIPT], "failed": [_SCRIPT]} for entry in in_waves(report)["rollout"]
    ]
    report["failures"] = [dict.fromkeys(("node", "host", "adapter", "step", "subject", "problem", "remedy"), _SCRIPT)]
    for node in report["nodes"]:
        node.update(agents=[_SCRIPT], purpose={_SCRIPT: _SCRIPT}, address=_SCRIPT)
        for adapter in node["adapters"]:
            adapter.update(dict.fromkeys(("agent", "variant", "base", "dataset", "quality", "path"), _SCRIPT), drift=[_SCRIPT])
            adapter["changes"] = {"before": {_SCRIPT: _SCRIPT}, "after": {_SCRIPT: [_SCRIPT], "config": {_SCRIPT: _SCRIPT}}}
            adapter["signed"] = {"signers": [_SCRIPT], "serial": 7, "expires": None}
            adapter["excluded"] = [{"path": _SCRIPT, "reason": _SCRIPT}]
            texts = dict.fromkeys(("engine", "version", "state", "message", "remedy"), _SCRIPT)
            adapter.update(engines=[{**texts, "kinds": [_SCRIPT], "figure": None, "held_back": True}], engine_notes=[_SCRIPT])
            adapter["serving"] = [dict.fromkeys(("engine", "url", "state", "release", "why"), _SCRIPT)]
            adapter["files"] = [{"path": _SCRIPT, "size": 1, "sha256": _SCRIPT}]
            adapter["test"].update(device=_SCRIPT, device_name=_SCRIPT, limited_by=_SCRIPT, checks=[_SCRIPT], notes=[_SCRIPT])
            adapter["test"]["versions"] = {_SCRIPT: _SCRIPT}
    return report
