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
NAMES = ("deployed", "failed", "drifted", "rolled_back")


def load(name: str) -> dict[str, t.Any]:
    report: dict[str, t.Any] = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return report


def hostile(report: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the report with markup in every text that comes from an inventory or a host."""
    report["training_server"] = {"name": _SCRIPT, "address": _SCRIPT}
    report["boxes"] = [{**box, "text": _SCRIPT, "reasons": [_SCRIPT]} for box in report["boxes"]]
    report["failures"] = [dict.fromkeys(("node", "host", "adapter", "step", "subject", "problem", "remedy"), _SCRIPT)]
    for node in report["nodes"]:
        node.update(agents=[_SCRIPT], purpose={_SCRIPT: _SCRIPT}, address=_SCRIPT)
        for adapter in node["adapters"]:
            adapter.update(dict.fromkeys(("agent", "variant", "base", "dataset", "quality", "path"), _SCRIPT), drift=[_SCRIPT])
            adapter["changes"] = {"before": {_SCRIPT: _SCRIPT}, "after": {_SCRIPT: [_SCRIPT], "config": {_SCRIPT: _SCRIPT}}}
            adapter["excluded"] = [{"path": _SCRIPT, "reason": _SCRIPT}]
            texts = dict.fromkeys(("engine", "version", "state", "message", "remedy"), _SCRIPT)
            adapter.update(engines=[{**texts, "kinds": [_SCRIPT], "figure": None, "held_back": True}], engine_notes=[_SCRIPT])
            adapter["files"] = [{"path": _SCRIPT, "size": 1, "sha256": _SCRIPT}]
            adapter["test"].update(device=_SCRIPT, device_name=_SCRIPT, limited_by=_SCRIPT, checks=[_SCRIPT], notes=[_SCRIPT])
            adapter["test"]["versions"] = {_SCRIPT: _SCRIPT}
    return report
