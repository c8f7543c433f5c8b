# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run is reported to have done and proved, from what its tasks said."""

from __future__ import annotations

import json
import typing as t

import jsonschema
import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.model import Data, Node, Run, groups_of, report_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.words import what_happened

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
RECEIPT = {"level": "model", "device": "cuda", "device_name": "NVIDIA H200", "at": "2026-11-22T12:00:00+00:00"}


def rows(agent: str) -> list[Data]:
    return [
        {"name": f"llama_{variant}_{agent}_lora", "variant": variant, "base": "meta/x", "rank": 16, "alpha": 32}
        for variant in ("3b", "8b")
    ]


def released(agent: str, receipt: Data | None = None, **more: t.Any) -> Data:
    """What adapter_release returns, as far as it is looked at."""
    entries = [
        {"name": row["name"], "action": "activated", "release": f"{number:012x}", "digest": f"{number:064x}", "size": 97_300_000,
         "files": [], "history": [], "receipt": RECEIPT if receipt is None else receipt, **more}
        for number, row in enumerate(rows(agent))
    ]  # fmt: skip
    return {"adapters": entries}


def run(kind: str = "deploy", check_mode: bool = False, **nodes: t.Any) -> Run:
    """A run on the fleet; the keywords are what a node has beside its name and variables."""
    found = []
    for number, (name, agent) in enumerate(AGENTS.items()):
        variables = {"agent_name": agent, "agent_adapters": rows(agent), "ansible_host": f"192.0.2.{number}"}
        everything = frozenset(row["name"] for row in rows(agent))
        found.append(Node(name, variables, name, **{"selected": everything, **nodes.get(name, {})}))
    return Run(kind, check_mode, "sbs29", "192.0.2.99", found, "2026-11-22T12:00:00+00:00")


def delivered(*nodes: str) -> Data:
    return {node: {"results": {"activate": released(AGENTS[node])}} for node in nodes}


def ticked(report: Data) -> dict[str, bool]:
    return {box["text"]: box["ticked"] for box in report["boxes"]}


def states(report: Data, node: str) -> list[str]:
    [found] = [entry for entry in report["nodes"] if entry["node"] == node]
    return [adapter["state"] for adapter in found["adapters"]]


def problem(subject: str) -> Data:
    return {"subject": subject, "problem": "is bad.", "remedy": "Mend it."}


def test_what_was_done_after_a_look_counts() -> None:
    unchanged = released("cleaner", required_level="model")

    def after(*steps: tuple[str, Data]) -> list[str]:
        everything = frozenset(row["name"] for row in rows("cleaner"))
        node = Node("jw2", {"agent_name": "cleaner", "agent_adapters": rows("cleaner")}, "jw2", everything)
        for step, result in steps:
            node.take(step, result)
            if result.get("problems"):
                node.failures.append((step, result))
        return states(report_of(Run("deploy", False, "sbs29", "192.0.2.99", [node], "2026-11-22T12:00:00+00:00")), "jw2")

    assert after(("compare", unchanged)) == ["unchanged"] * 2
    assert after(("compare", unchanged), ("audit", released("cleaner", drift=[]))) == ["unchanged"] * 2
    assert after(("compare", unchanged), ("activate", released("cleaner", action="rolled_back"))) == ["rolled_back"] * 2
    failed = {"problems": [problem("llama_3b_cleaner_lora")]}
    assert after(("compare", unchanged), ("load", failed)) == ["failed", "held_back"]
    # And the other way round: what is served was looked at again.
    assert after(("activate", released("cleaner")), ("compare", unchanged)) == ["unchanged"] * 2


def test_before_anything_is_done_every_box_is_empty() -> None:
    report = report_of(run())
    assert ticked(report) == dict.fromkeys(BOXES, False)
    assert {state for node in NODES for state in states(report, node)} == {"not_reached"}
    assert report["boxes"][0]["against"] == [f"llama_{variant}_cleaner_lora on jw2: not delivered" for variant in ("3b", "8b")]


def test_when_all_is_delivered_all_five_are_ticked() -> None:
    report = report_of(run(**delivered(*NODES)))
    assert ticked(report) == dict.fromkeys(BOXES, True)
    assert report["failures"] == []
    adapter = report["nodes"][0]["adapters"][1]
    assert (adapter["state"], adapter["release"], adapter["size"]) == ("activated", f"{1:012x}", 97_300_000)
    assert (adapter["test"]["level"], adapter["test"]["device_name"]) == ("model", "NVIDIA H200")


def test_one_look_proves_as_much_as_all_steps() -> None:
    looked = released("cleaner", action="unchanged", from_receipt=True, required_level="model")
    against = {"jw3": {"results": {"compare": {"adapters": []}, **delivered("jw3")["jw3"]["results"]}}}
    report = report_of(run(jw2={"results": {"compare": looked}}, **against, **delivered("kcloud")))
    assert ticked(report) == dict.fromkeys(BOXES, True)
    adapter = report["nodes"][0]["adapters"][0]
    assert (adapter["state"], adapter["sent_bytes"], adapter["taken_bytes"]) == ("unchanged", 0, 0)
    test = adapter["test"]
    assert (test["level"], test["required_level"], test["from_receipt"]) == ("model", "model", True)
    assert states(report, "jw3") == ["activated"] * 2


def test_in_check_mode_nothing_is_proved() -> None:
    report = report_of(run(check_mode=True, **delivered(*NODES)))
    assert ticked(report) == dict.fromkeys(BOXES, False)
    assert states(report, "jw2") == ["activated"] * 2


def test_level_structure_loads_nothing() -> None:
    at_structure = {"results": {"activate": released("cleaner", {"level": "structure"})}}
    report = report_of(run(jw2=at_structure, **delivered("jw3", "kcloud")))
    assert ticked(report) == {box: box != BOXES[4] for box in BOXES}


def test_one_adapter_that_fails_holds_back_the_others_of_its_node() -> None:
    failure = ("bring", {"failed": True, "msg": "...", "problems": [problem("adapter llama_8b_cleaner_lora, release 0")]})
    report = report_of(run(jw2={"failures": [failure]}, **delivered("jw3", "kcloud")))
    assert states(report, "jw2") == ["held_back", "failed"]
    assert ticked(report) == {box: box in (BOXES[1], BOXES[2]) for box in BOXES}
    [found] = report["failures"]
    assert (found["node"], found["adapter"], found["step"]) == ("jw2", "llama_8b_cleaner_lora", "bring")
    assert (found["problem"], found["remedy"]) == ("is bad.", "Mend it.")


@pytest.mark.parametrize("subject", ["rsync", "llama_8b_cleaner_lora_2", "x.llama_8b_cleaner_lora"])
def test_what_is_about_no_adapter_is_about_all_of_the_node(subject: str) -> None:
    report = report_of(run(jw2={"failures": [("bring", {"msg": "...", "problems": [problem(subject)]})]}))
    assert states(report, "jw2") == ["failed"] * 2
    assert report["failures"][0]["adapter"] is None


def test_what_was_done_before_a_failure_counts() -> None:
    # The module lists only those that it had done when it failed.
    half = {"adapters": released("cleaner")["adapters"][:1]}
    failure = ("activate", {"msg": "...", "problems": [problem("llama_8b_cleaner_lora")]})
    report = report_of(run(jw2={"results": {"activate": half}, "failures": [failure]}))
    assert states(report, "jw2") == ["activated", "failed"]
    assert report["boxes"][0]["against"] == ["llama_8b_cleaner_lora on jw2: not delivered"]


def test_a_node_that_was_lost_says_so() -> None:
    lost = ("bring", {"unreachable": True, "msg": "Connection timed out", "host": "jw2"})
    report = report_of(run(jw2={"unreachable": True, "failures": [lost]}, **delivered("jw3", "kcloud")))
    assert states(report, "jw2") == ["unreachable"] * 2
    [found] = report["failures"]
    assert (found["subject"], found["problem"]) == ("jw2", "was lost: Connection timed out")
    assert found["remedy"].startswith("See that it answers")


def test_what_the_run_was_not_about_is_told_from_what_it_did_not_reach() -> None:
    one = {"selected": frozenset({"llama_3b_cleaner_lora"})}
    report = report_of(run(jw2=one))
    assert states(report, "jw2") == ["not_reached", "not_selected"]


def test_a_task_of_another_module_fails_with_its_message() -> None:
    report = report_of(run(jw2={"failures": [("Validating arguments", {"msg": ["one", "two"], "host": "jw2"})]}))
    assert [(found["step"], found["problem"]) for found in report["failures"]] == [("Validating arguments", "one\ntwo")]


def audited(agent: str, *drift: str, release: str | None = "0" * 12) -> Data:
    entries = [{"name": row["name"], "release": release, "receipt": RECEIPT, "drift": list(drift)} for row in rows(agent)]
    return {"adapters": entries}


def test_an_audit_ticks_what_it_has_hashed() -> None:
    nodes = {node: {"results": {"audit": audited(AGENTS[node])}} for node in NODES}
    report = report_of(run("audit", **nodes))
    assert ticked(report) == dict.fromkeys(BOXES, True)
    assert states(report, "jw2") == ["as_verified"] * 2


def test_drift_is_said_once_with_what_to_do() -> None:
    # The role's last task fails for it too.
    also = ("Report drift", {"msg": "What is served differs"})
    report = report_of(run("audit", jw2={"results": {"audit": audited("cleaner", "missing  /x")}, "failures": [also]}))
    assert states(report, "jw2") == ["differs"] * 2
    assert [(found["adapter"], found["problem"]) for found in report["failures"]] == [
        (f"llama_{variant}_cleaner_lora", "missing  /x") for variant in ("3b", "8b")
    ]
    assert "Deploy again" in report["failures"][0]["remedy"]
    assert not ticked(report)[BOXES[0]]


def test_an_audit_whose_load_test_fails_is_no_success() -> None:
    failure = ("load", {"msg": "...", "problems": [problem("adapter llama_8b_cleaner_lora")]})
    report = report_of(run("audit", jw2={"results": {"audit": audited("cleaner")}, "failures": [failure]}))
    assert states(report, "jw2") == ["as_verified", "failed"]
    assert [adapter["tested"] for adapter in report["nodes"][0]["adapters"]] == [True, False]


def test_a_status_proves_nothing() -> None:
    looked = [{"name": row["name"], "release": "0" * 12, "receipt": RECEIPT, "wrong": []} for row in rows("cleaner")]
    looked[1].update(release=None, wrong=["missing"])
    report = report_of(run("status", jw2={"results": {"look": {"adapters": looked}}}))
    assert states(report, "jw2") == ["active", "missing"]
    assert ticked(report) == dict.fromkeys(BOXES, False)


def test_a_node_is_called_by_the_group_that_carries_its_agent() -> None:
    agents = {"a-1": "cleaner", "a-2": "cleaner", "b-1": "describer", "c-1": "cleaner"}
    groups = {
        "all": [*agents, "trainer"], "agents": list(agents), "gpu": ["a-1", "b-1"], "dgx": ["a-1", "trainer"],
        "a": ["a-1", "a-2"], "b": ["b-1"], "other": ["a-1"],
    }  # fmt: skip
    assert groups_of(groups, agents) == {"a-1": "a", "a-2": "a", "b-1": "b", "c-1": "agents"}


def test_no_adapters_are_no_success() -> None:
    empty = Run("deploy", False, "sbs29", "sbs29", [], "")
    assert ticked(report_of(empty)) == {"All checksums verified": False, "All nodes tested": False}


@pytest.mark.parametrize("rows", [None, "text", [None, 3, {}, {"variant": "3b"}]])
def test_an_inventory_that_was_refused_is_reported_too(rows: t.Any) -> None:
    node = Node("jw2", {"agent_adapters": rows}, "jw2", failures=[("Validating", {"msg": "no"})])
    report = report_of(Run("deploy", False, "", "", [node], ""))
    assert report["nodes"][0]["adapters"] == []
    assert report["failures"][0]["problem"] == "no"


def schema() -> Data:
    found: Data = json.loads((CHECKOUT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_recorded_reports_are_as_the_schema_says(name: str) -> None:
    jsonschema.validate(load(name), schema())


def test_the_schema_knows_every_key_and_every_state() -> None:
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
    assert [what_happened(state) for state in states]
