# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever passes the gate for answers can be reported, in all forms of the report.

Each node answers with one value changed. A form that fails on one of them would take the report of
all other nodes with it.
"""

from __future__ import annotations

import collections.abc as c
import copy
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.answers import answer_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.html import as_html
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.json import as_json
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.junit import as_junit
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.markdown import as_markdown
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.model import report_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.prometheus import as_prometheus
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.run import Run
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.table import as_table, failure_lines, note_lines
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import (
    ACTIVATE,
    AUDIT,
    COMPARE,
    LOAD,
    SERVE,
    SERVED,
    TRANSFER,
    Step,
)

RELEASE, AT = "5f1c0f1f0f0b", "2026-01-31T12:00:00+00:00"
DISTANCES = {"on": 0.1, "off": 0.1, "direction": 0.9, "strength": 1.0, "top1": 1.0}
TEST = {
    "level": "golden",
    "device": "cuda:0",
    "device_name": "H100",
    "capability": "9.0",
    "dtype": "F32",
    "versions": {"peft": "0.21.0"},
    "load_seconds": 1.5,
    "peak_memory_bytes": 5,
    "effect": 0.5,
    "notes": ["note"],
    "limited_by": None,
    "isolation": ["user", "network"],
    "checks": ["check"],
    "distances": DISTANCES,
    "permitted": DISTANCES,
}
RECEIPT = {**TEST, "schema": 1, "name": "adapter", "release": RELEASE, "at": AT, "environment": "e", "base": "b", "golden": None}
VERDICT = {"engine": "vllm", "version": "0.30.0", "state": "refused", "kinds": ["dora"], "message": "It does not.", "figure": 1.0}
SIGNED: dict[str, t.Any] = {"signers": ["alice"], "serial": 7, "expires": AT}
ENGINES = [{**VERDICT, "remedy": "Merge it.", "held_back": True}]
ACTIVE = {
    "name": "adapter",
    "release": RELEASE,
    "digest": "5f1c" * 16,
    "size": 5,
    "files": [{"path": "adapter_config.json", "size": 5, "sha256": "0" * 64}],
    "made_of": {"digest": "0" * 64, "form": "folded", "factors": [1.0], "rounded": 0, "difference": None},
    "previous": None,
    "history": [{"release": RELEASE, "at": AT}],
    "activation": "exchange",
    "receipt": RECEIPT,
}
CHANGES = {"before_header": "a", "after_header": "a", "before": {"config": {"r": 1}}, "after": {"config": {"r": 2}}}
IN_ENGINE = {"name": "adapter", "engine": "vllm", "url": "http://127.0.0.1:8000"}
ANSWERS: dict[str, dict[str, t.Any]] = {
    "adapter_sync": {
        "changed": True,
        "adapters": [
            {
                "name": "adapter",
                "release": RELEASE,
                "stored": False,
                "downloaded": ["adapter_config.json"],
                "downloaded_bytes": 5,
                "reused": {"a": "b"},
                "reused_bytes": 5,
                "staging": "/store",
                "staged_bytes": 0,
                "engines": ENGINES,
                "engine_notes": ["note"],
            }
        ],
        "rsync": "3.4.1",
        "zstd": True,
    },
    "adapter_load_test": {
        "changed": True,
        "adapters": [{"name": "adapter", "release": RELEASE, "required_level": "golden", **TEST, "from_receipt": False}],
        "seconds": 1.5,
    },
    "adapter_release": {
        "changed": True,
        "adapters": [
            {
                **ACTIVE,
                "action": "activated",
                "path": "/a",
                "served": "/b",
                "adopted": None,
                "pruned": ["c"],
                "drift": ["d"],
                "signed": SIGNED,
                "engines": ENGINES,
            }
        ],
        "diff": [CHANGES],
    },
    "adapter_release_info": {
        "changed": False,
        "adapters": [{**ACTIVE, "since": AT, "signed": SIGNED, "engines": ENGINES, "differences": ["missing  a"]}],
        "active": ["adapter"],
        "differences": ["missing  a"],
        "others": [],
        "summary": {"adapter": ["a"]},
    },
    "adapter_up_to_date_info": {
        "changed": False,
        "up_to_date": True,
        "reasons": [],
        "adapters": [{**ACTIVE, "path": "/a", "required_level": "golden", "signed": SIGNED, "engines": ENGINES}],
    },
    "adapter_serve": {
        "changed": True,
        "adapters": [
            {
                **IN_ENGINE,
                "release": RELEASE,
                "version": "0.32.0",
                "action": "served",
                "served": RELEASE,
                "names": ["adapter"],
                "root": "/a",
                "proof": "unproved",
                "why_unproved": "a",
                "why": "a",
                "previous": RELEASE,
                "figures": {"distances": DISTANCES, "permitted": {"on": 0.1}, "tokens": 5},
                "seconds": {"load": 0.5},
                "notes": ["a"],
            }
        ],
        "notes": ["a"],
        "rolled_back": ["another"],
    },
    "adapter_serve_info": {
        "changed": False,
        "adapters": [
            {
                **IN_ENGINE,
                "state": "behind",
                "why": "a",
                "active": RELEASE,
                "served": RELEASE,
                "listed": "adapter",
                "root": "/a",
                "figures": None,
                "proved": AT,
            }
        ],
        "engines": [
            {
                "engine": "vllm",
                "url": "a",
                "version": None,
                "base": "base",
                "proves": "path",
                "problem": "a",
                "strangers": ["a"],
            }
        ],
        "differences": ["a"],
        "critical": ["adapter"],
        "summary": {"adapter": ["a"]},
    },
}
STEPS = {
    "adapter_sync": TRANSFER,
    "adapter_load_test": LOAD,
    "adapter_release": ACTIVATE,
    "adapter_release_info": AUDIT,
    "adapter_up_to_date_info": COMPARE,
    "adapter_serve": SERVE,
    "adapter_serve_info": SERVED,
}
RUNS: list[tuple[str, tuple[str, ...]]] = [
    ("deploy", ("adapter_sync", "adapter_load_test", "adapter_release", "adapter_serve")),
    ("audit", ("adapter_release_info", "adapter_serve_info")),
    ("deploy", ("adapter_up_to_date_info",)),
]
REMOVED = object()
VALUES: list[t.Any] = [
    *(None, True, 0, -1, 2**64 - 1, 1.5, -1e308, 5e-324, "", "a" * 16_000, "\ud800\x1b[2J|`<script>{{ 1 }}]]>"),
    *([], {}, [[]], ["a"], {"a": "b"}, {"on": 1}, {"a": {"b": [1]}}, [{"path": "../a", "size": -5, "sha256": "f" * 64}]),
    *("0001-01-01T00:00:00+14:00", "9999-12-31", "failed", REMOVED),
]
FORMS: list[c.Callable[[dict[str, t.Any]], object]] = [
    *(as_table, note_lines, failure_lines, as_json, as_markdown, as_html, as_junit, as_prometheus)
]


def places(value: t.Any, above: tuple[t.Any, ...] = ()) -> c.Iterator[tuple[t.Any, ...]]:
    """Every key and every item within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*above, key)
        yield from places(one, (*above, key))


def changed(answer: dict[str, t.Any], place: tuple[t.Any, ...], value: t.Any) -> dict[str, t.Any]:
    copied = copy.deepcopy(answer)
    within: t.Any = copied
    for key in place[:-1]:
        within = within[key]
    if value is REMOVED:
        del within[place[-1]]
    else:
        within[place[-1]] = value
    return copied


def passing(module: str) -> c.Iterator[dict[str, t.Any]]:
    """The answers of a module with one change that pass the gate."""
    for place in places(ANSWERS[module]):
        for value in VALUES:
            answer = changed(ANSWERS[module], place, value)
            for one in (answer, {**answer, "failed": True, "msg": "text", "problems": []}):
                try:
                    yield answer_of(module, "node", one)
                except DeliveryError:
                    continue


def add(run: Run, number: int, step: Step, answer: dict[str, t.Any]) -> None:
    node = run.node(f"node-{number}")
    node.add(step, answer)
    node.seconds[step] = 1.5
    if answer.get("failed"):
        node.fail(step, node.name, answer)


def reported(kind: str, nodes: list[dict[str, dict[str, t.Any]]]) -> dict[str, t.Any]:
    """The report of a run in which each node gave the answers of its entry."""
    run = Run(AT, kind, ended=AT, seconds=1.5)
    row = {"agent": "cleaner", "name": "adapter", "variant": "3b", "selected": True}
    entry = {"address": "192.0.2.1", "groups": ["jw2"], "training_host": "sbs29", "purpose": {}, "notes": {}, "rows": [row]}
    places = {"source_models_dir": "/home/models", "models_dir": "/home/models"}
    entries = [{"name": f"node-{number}", **entry, **places} for number in range(len(nodes))]
    run.declare({"nodes": entries, "training_server": {"name": "sbs29", "address": "sbs29"}, "training": {}, "notes": []})
    for number, answers in enumerate(nodes):
        for module, answer in answers.items():
            add(run, number, STEPS[module], answer)
    return report_of(run)


@pytest.mark.parametrize(("kind", "modules"), RUNS, ids=lambda value: value if isinstance(value, str) else value[-1])
def test_report_of_any_answer_that_passes_has_all_its_forms(kind: str, modules: tuple[str, ...]) -> None:
    usual = {module: answer_of(module, "node", ANSWERS[module]) for module in modules}
    nodes = [{**usual, module: answer} for module in modules for answer in passing(module)]
    assert len(nodes) > 100
    report = reported(kind, [usual, *nodes])
    texts = {form: form(report) for form in FORMS}
    page = str(texts[as_html])
    # None of them is lost among those that are alike.
    assert [node["node"] for node in report["nodes"] if f' id="node/{node["node"]}"' not in page] == []
    assert report["nodes"][0]["adapters"][0]["verified"] is (kind == "deploy")


def test_problems_of_a_node_about_any_number_of_adapters_are_few_lines() -> None:
    problems = [{"adapter": f"a{number}", "subject": "jw2-1", "problem": "is well", "remedy": ""} for number in range(10_000)]
    answer = answer_of("adapter_sync", "node", {"failed": True, "msg": "text", "problems": problems})
    report = reported("deploy", [{"adapter_sync": answer}])
    assert len(report["failures"]) == 10_000
    assert {failure["adapter"] for failure in report["failures"]} == {None}
    assert len(failure_lines(report)) <= 6
