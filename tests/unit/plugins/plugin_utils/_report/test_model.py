# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a run, from the results of its tasks."""

from __future__ import annotations

import dataclasses
import json
import typing as t

import jsonschema
import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import LoadTestResult
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report import model
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.model import Data, Node, Run, groups_of, report_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import (
    ACTIVATE,
    AUDIT,
    COMPARE,
    LOAD,
    STATUS,
    STEPS,
    TRANSFER,
    Step,
)

from tests.support.paths import CHECKOUT
from tests.support.reports import NAMES, load

AGENTS = {"jw2": "cleaner", "jw3": "describer", "kcloud": "paraphraser"}
NODES = list(AGENTS)
BOXES = [
    "Cleaner models → jw2",
    "Describer models → jw3",
    "Paraphraser models → kcloud",
    "All checksums verified",
    "All nodes tested",
]
# The states that adapter_release does not return.
STATES = (
    model.AS_VERIFIED, model.DIFFERS, model.ACTIVE, model.MISSING, model.FAILED, model.SKIPPED, model.UNREACHABLE,
    model.NOT_REACHED, model.NOT_SELECTED,
)  # fmt: skip
RECEIPT = {"level": "model", "device": "cuda", "device_name": "NVIDIA H200", "at": "2026-11-22T12:00:00+00:00"}


def rows(agent: str) -> list[Data]:
    return [
        {"name": f"llama_{variant}_{agent}_lora", "variant": variant, "base": "meta/x", "rank": 16, "alpha": 32}
        for variant in ("3b", "8b")
    ]


def released(agent: str, receipt: Data | None = None, **more: t.Any) -> Data:
    """Return a result of adapter_release, as far as the report uses it."""
    entries = [
        {"name": row["name"], "action": "activated", "release": f"{number:012x}", "digest": f"{number:064x}", "size": 97_300_000,
         "files": [], "history": [], "receipt": RECEIPT if receipt is None else receipt, **more}
        for number, row in enumerate(rows(agent))
    ]  # fmt: skip
    return {"adapters": entries}


def run(kind: str = "deploy", check_mode: bool = False, **nodes: t.Any) -> Run:
    """Return a run on the fleet. The keywords set further fields of a node."""
    found = []
    for number, (name, agent) in enumerate(AGENTS.items()):
        variables = {"agent_name": agent, "agent_adapters": rows(agent), "ansible_host": f"192.0.2.{number}"}
        everything = frozenset(row["name"] for row in rows(agent))
        found.append(Node(name, variables, name, **{"selected": everything, **nodes.get(name, {})}))
    return Run(kind, check_mode, "sbs29", "192.0.2.99", found, "2026-11-22T12:00:00+00:00")


def delivered(*nodes: str) -> Data:
    return {node: {"results": {ACTIVATE: released(AGENTS[node])}} for node in nodes}


def ticked(report: Data) -> dict[str, bool]:
    return {box["text"]: box["ticked"] for box in report["boxes"]}


def states(report: Data, node: str) -> list[str]:
    [found] = [entry for entry in report["nodes"] if entry["node"] == node]
    return [adapter["state"] for adapter in found["adapters"]]


def problem(subject: str, adapter: str | None = None) -> Data:
    return Problem(subject, "is bad.", "Fix it.", adapter).to_json()


def test_add_step_after_comparison_overrides_it() -> None:
    unchanged = released("cleaner", required_level="model")

    def after(*steps: tuple[Step, Data]) -> list[str]:
        everything = frozenset(row["name"] for row in rows("cleaner"))
        node = Node("jw2", {"agent_name": "cleaner", "agent_adapters": rows("cleaner")}, "jw2", everything)
        for step, result in steps:
            node.add(step, result)
            if result.get("problems"):
                node.failures.append((step, result))
        return states(report_of(Run("deploy", False, "sbs29", "192.0.2.99", [node], "2026-11-22T12:00:00+00:00")), "jw2")

    assert after((COMPARE, unchanged)) == ["unchanged"] * 2
    assert after((COMPARE, unchanged), (AUDIT, released("cleaner", differences=[]))) == ["unchanged"] * 2
    assert after((COMPARE, unchanged), (ACTIVATE, released("cleaner", action="rolled_back"))) == ["rolled_back"] * 2
    failed = {"problems": [problem("", "llama_3b_cleaner_lora")]}
    assert after((COMPARE, unchanged), (LOAD, failed)) == ["failed", "skipped"]
    # A comparison after an activation counts too.
    assert after((ACTIVATE, released("cleaner")), (COMPARE, unchanged)) == ["unchanged"] * 2


def test_report_of_started_run_has_empty_boxes() -> None:
    report = report_of(run())
    assert ticked(report) == dict.fromkeys(BOXES, False)
    assert {state for node in NODES for state in states(report, node)} == {"not_reached"}
    assert report["boxes"][0]["reasons"] == [f"llama_{variant}_cleaner_lora on jw2: not delivered" for variant in ("3b", "8b")]


def test_report_of_complete_delivery_ticks_all_boxes() -> None:
    report = report_of(run(**delivered(*NODES)))
    assert ticked(report) == dict.fromkeys(BOXES, True)
    assert report["failures"] == []
    adapter = report["nodes"][0]["adapters"][1]
    assert (adapter["state"], adapter["release"], adapter["size"]) == ("activated", f"{1:012x}", 97_300_000)
    assert (adapter["test"]["level"], adapter["test"]["device_name"]) == ("model", "NVIDIA H200")


def test_report_of_up_to_date_node_ticks_all_boxes() -> None:
    unchanged = released("cleaner", action="unchanged", from_receipt=True, required_level="model")
    overridden = {"jw3": {"results": {COMPARE: {"adapters": []}, **delivered("jw3")["jw3"]["results"]}}}
    report = report_of(run(jw2={"results": {COMPARE: unchanged}}, **overridden, **delivered("kcloud")))
    assert ticked(report) == dict.fromkeys(BOXES, True)
    adapter = report["nodes"][0]["adapters"][0]
    assert (adapter["state"], adapter["downloaded_bytes"], adapter["reused_bytes"]) == ("unchanged", 0, 0)
    test = adapter["test"]
    assert (test["level"], test["required_level"], test["from_receipt"]) == ("model", "model", True)
    assert states(report, "jw3") == ["activated"] * 2


def test_report_of_check_mode_ticks_no_box() -> None:
    report = report_of(run(check_mode=True, **delivered(*NODES)))
    assert ticked(report) == dict.fromkeys(BOXES, False)
    assert states(report, "jw2") == ["activated"] * 2


def test_report_of_level_structure_is_not_tested() -> None:
    at_structure = {"results": {ACTIVATE: released("cleaner", {"level": "structure"})}}
    report = report_of(run(jw2=at_structure, **delivered("jw3", "kcloud")))
    assert ticked(report) == {box: box != BOXES[4] for box in BOXES}


def test_report_of_failed_adapter_skips_others_of_its_node() -> None:
    failure = (TRANSFER, {"failed": True, "msg": "...", "problems": [problem("release 0", "llama_8b_cleaner_lora")]})
    report = report_of(run(jw2={"failures": [failure]}, **delivered("jw3", "kcloud")))
    assert states(report, "jw2") == ["skipped", "failed"]
    assert ticked(report) == {box: box in (BOXES[1], BOXES[2]) for box in BOXES}
    [found] = report["failures"]
    assert (found["node"], found["adapter"], found["step"]) == ("jw2", "llama_8b_cleaner_lora", "transfer")
    assert (found["problem"], found["remedy"]) == ("is bad.", "Fix it.")


@pytest.mark.parametrize("subject", ["rsync", "/srv/llama_8b_cleaner_lora"])
def test_report_of_problem_without_adapter_fails_all_of_the_node(subject: str) -> None:
    report = report_of(run(jw2={"failures": [(TRANSFER, {"msg": "...", "problems": [problem(subject)]})]}))
    assert states(report, "jw2") == ["failed"] * 2
    assert report["failures"][0]["adapter"] is None


def test_report_of_failed_activation_keeps_finished_adapters() -> None:
    # The module lists only the adapters that it finished before it failed.
    half = {"adapters": released("cleaner")["adapters"][:1]}
    failure = (ACTIVATE, {"msg": "...", "problems": [problem("", "llama_8b_cleaner_lora")]})
    report = report_of(run(jw2={"results": {ACTIVATE: half}, "failures": [failure]}))
    assert states(report, "jw2") == ["activated", "failed"]
    assert report["boxes"][0]["reasons"] == ["llama_8b_cleaner_lora on jw2: not delivered"]


def test_report_of_unreachable_node_names_it_with_remedy() -> None:
    unreachable = (TRANSFER, {"unreachable": True, "msg": "Connection timed out", "host": "jw2"})
    report = report_of(run(jw2={"unreachable": True, "failures": [unreachable]}, **delivered("jw3", "kcloud")))
    assert states(report, "jw2") == ["unreachable"] * 2
    [found] = report["failures"]
    assert (found["subject"], found["problem"]) == ("jw2", "is unreachable: Connection timed out")
    assert found["remedy"].startswith("Restore the connection")


def test_report_of_started_run_distinguishes_not_selected_from_not_reached() -> None:
    one = {"selected": frozenset({"llama_3b_cleaner_lora"})}
    report = report_of(run(jw2=one))
    assert states(report, "jw2") == ["not_reached", "not_selected"]


def test_report_of_failed_task_without_problems_has_its_message() -> None:
    report = report_of(run(jw2={"failures": [("Validating arguments", {"msg": ["one", "two"], "host": "jw2"})]}))
    assert [(found["step"], found["problem"]) for found in report["failures"]] == [("Validating arguments", "one\ntwo")]


def audited(agent: str, *drift: str, release: str | None = "0" * 12) -> Data:
    entries = [{"name": row["name"], "release": release, "receipt": RECEIPT, "differences": list(drift)} for row in rows(agent)]
    return {"adapters": entries}


def test_report_of_audit_ticks_all_boxes() -> None:
    nodes = {node: {"results": {AUDIT: audited(AGENTS[node])}} for node in NODES}
    report = report_of(run("audit", **nodes))
    assert ticked(report) == dict.fromkeys(BOXES, True)
    assert states(report, "jw2") == ["as_verified"] * 2


def test_report_of_drift_lists_it_once_with_remedy() -> None:
    # The last task of the role fails because of it too.
    also = ("Fail on drift", {"msg": "The served adapters differ"})
    report = report_of(run("audit", jw2={"results": {AUDIT: audited("cleaner", "missing  /x")}, "failures": [also]}))
    assert states(report, "jw2") == ["differs"] * 2
    assert [(found["adapter"], found["problem"]) for found in report["failures"]] == [
        (f"llama_{variant}_cleaner_lora", "missing  /x") for variant in ("3b", "8b")
    ]
    assert "Deploy again" in report["failures"][0]["remedy"]
    assert not ticked(report)[BOXES[0]]


def test_report_of_audit_with_failed_load_test_is_not_tested() -> None:
    failure = (LOAD, {"msg": "...", "problems": [problem("", "llama_8b_cleaner_lora")]})
    report = report_of(run("audit", jw2={"results": {AUDIT: audited("cleaner")}, "failures": [failure]}))
    assert states(report, "jw2") == ["as_verified", "failed"]
    assert [adapter["tested"] for adapter in report["nodes"][0]["adapters"]] == [True, False]


def test_report_of_status_ticks_no_box() -> None:
    found = [{"name": row["name"], "release": "0" * 12, "receipt": RECEIPT, "differences": []} for row in rows("cleaner")]
    found[1].update(release=None, differences=["missing"])
    report = report_of(run("status", jw2={"results": {STATUS: {"adapters": found}}}))
    assert states(report, "jw2") == ["active", "missing"]
    assert ticked(report) == dict.fromkeys(BOXES, False)


def test_groups_of_nodes_are_those_of_their_agents() -> None:
    agents = {"a-1": "cleaner", "a-2": "cleaner", "b-1": "describer", "c-1": "cleaner"}
    groups = {
        "all": [*agents, "trainer"], "agents": list(agents), "gpu": ["a-1", "b-1"], "dgx": ["a-1", "trainer"],
        "a": ["a-1", "a-2"], "b": ["b-1"], "other": ["a-1"],
    }  # fmt: skip
    assert groups_of(groups, agents) == {"a-1": "a", "a-2": "a", "b-1": "b", "c-1": "agents"}


def test_report_without_adapters_ticks_no_box() -> None:
    empty = Run("deploy", False, "sbs29", "sbs29", [], "")
    assert ticked(report_of(empty)) == {"All checksums verified": False, "All nodes tested": False}


@pytest.mark.parametrize("rows", [None, "text", [None, 3, {}, {"variant": "3b"}]])
def test_report_of_invalid_inventory_has_the_failure(rows: t.Any) -> None:
    node = Node("jw2", {"agent_adapters": rows}, "jw2", failures=[("Validating", {"msg": "no"})])
    report = report_of(Run("deploy", False, "", "", [node], ""))
    assert report["nodes"][0]["adapters"] == []
    assert report["failures"][0]["problem"] == "no"


def schema() -> Data:
    found: Data = json.loads((CHECKOUT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_schema_accepts_recorded_reports(name: str) -> None:
    jsonschema.validate(load(name), schema())


def test_schema_has_every_key_state_and_step() -> None:
    def check(data: t.Any, described: Data) -> None:
        while "$ref" in described or "oneOf" in described:
            described = described["oneOf"][1] if "oneOf" in described else schema()["$defs"][described["$ref"].rpartition("/")[2]]
        if isinstance(data, dict) and "required" in described:
            assert set(data) <= set(described["properties"])
            for key, value in data.items():
                check(value, described["properties"][key])
        elif isinstance(data, list):
            for entry in data:
                check(entry, described["items"])

    jsonschema.Draft202012Validator.check_schema(schema())
    for name in NAMES:
        check(load(name), schema())
    states = schema()["$defs"]["adapter"]["properties"]["state"]["enum"]
    assert set(states) == {*model.ACTIONS, *STATES}
    steps = schema()["$defs"]["node"]["properties"]["seconds"]["propertyNames"]["enum"]
    assert steps == [step.key for step in STEPS]
    facts = {field.name for field in dataclasses.fields(LoadTestResult)}
    assert schema()["$defs"]["test"]["properties"].keys() == facts | {"at", "from_receipt", "required_level"}
