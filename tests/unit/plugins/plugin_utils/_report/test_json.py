# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
import typing as t

import jsonschema
import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.json import ALWAYS, as_json

from tests.support.paths import CHECKOUT
from tests.support.reports import NAMES, load, many


@pytest.fixture(scope="module")
def schema() -> dict[str, t.Any]:
    found: dict[str, t.Any] = json.loads((CHECKOUT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    return found


def completed(written: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return a written report with all keys of all nodes, as its schema says how."""
    report = copy.deepcopy(written)
    nodes = {node["node"]: node for node in report["nodes"]}
    for node in report["nodes"]:
        if "like" in node:
            other = nodes[node.pop("like")]
            assert "like" not in other
            for adapter, whole in zip(node["adapters"], other["adapters"]):
                test = adapter.get("test", whole["test"])
                adapter.update({**whole, **adapter, "test": {**whole["test"], **test} if test and whole["test"] else test})
    return report


@pytest.mark.parametrize("name", NAMES)
def test_as_json_of_few_nodes_is_the_report(name: str) -> None:
    assert json.loads(as_json(load(name))) == load(name)


def test_as_json_of_many_equal_nodes_says_what_they_share_once(schema: dict[str, t.Any]) -> None:
    report = many(200)
    text = as_json(report)
    written = json.loads(text)
    [adapter] = report["nodes"][0]["adapters"]
    assert text.count(adapter["files"][0]["sha256"]) == text.count(adapter["test"]["checks"][0]) == 1
    # A node adds what is its own, and the keys that programs ask for.
    assert len(text) / 200 < 1600
    assert written["nodes"][199]["adapters"][0].keys() == {*ALWAYS, "history", "test"}
    assert completed(written) == report
    jsonschema.validate(written, schema)


def test_as_json_reader_gets_back_every_value_of_nodes_that_differ(schema: dict[str, t.Any]) -> None:
    report = many(20)
    nodes = report["nodes"]
    nodes[1]["adapters"][0].update(test=None, digest=None, files=[])
    nodes[2]["adapters"][0]["test"].update(level="structure", checks=None, versions={})
    nodes[3]["adapters"] *= 2
    nodes[4]["adapters"] = []
    nodes[5]["adapters"][0]["files"][0]["sha256"] = "f" * 64
    nodes[6]["adapters"] = copy.deepcopy(nodes[3]["adapters"])
    nodes[7]["adapters"] = []
    written = json.loads(as_json(report))
    assert completed(written) == report
    assert [node.get("like") for node in written["nodes"][:8]] == [
        None, "gpu-001", "gpu-001", None, None, "gpu-001", "gpu-004", None,
    ]  # fmt: skip
    jsonschema.validate(written, schema)
    # The first node has no test to share.
    nodes[0]["adapters"][0]["test"] = None
    assert completed(json.loads(as_json(report))) == report


def test_schema_requires_all_keys_of_a_node_that_is_complete(schema: dict[str, t.Any]) -> None:
    report = load("deployed")
    del report["nodes"][0]["adapters"][0]["files"]
    with pytest.raises(jsonschema.ValidationError, match="'files' is a required property"):
        jsonschema.validate(report, schema)
    report = load("deployed")
    del report["nodes"][0]["adapters"][0]["test"]["checks"]
    with pytest.raises(jsonschema.ValidationError, match="'checks' is a required property"):
        jsonschema.validate(report, schema)
