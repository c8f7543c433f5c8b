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
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report import states as all_states
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.model import groups_of, report_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.run import Data, Node, Run
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import (
    ACTIVATE,
    AUDIT,
    COMPARE,
    DESCRIBE,
    LOAD,
    SERVE,
    SERVED,
    STATUS,
    STEPS,
    TRANSFER,
    Step,
)

from tests.support.paths import CHECKOUT
from tests.support.reports import NAMES, SIGNED, UNSIGNED, load

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
    all_states.AS_VERIFIED, all_states.DIFFERS, all_states.ACTIVE, all_states.MISSING, all_states.FAILED, all_states.SKIPPED,
    all_states.UNREACHABLE, all_states.NOT_REACHED, all_states.NOT_STARTED, all_states.NOT_SELECTED,
)  # fmt: skip
RECEIPT = {"level": "model", "device": "cuda", "device_name": "NVIDIA H200", "at": "2026-11-22T12:00:00+00:00"}


def rows(agent: str) -> list[Data]:
    return [
        {"agent": agent, "name": f"llama_{variant}_{agent}_lora", "variant": variant, "base": "meta/x", "rank": 16, "alpha": 32}
        for variant in ("3b", "8b")
    ]


def entry(name: str, *declared: Data, groups: t.Iterable[str] = (), selected: t.Iterable[str] | None = None) -> Data:
    """Return a node as fleet_info returns it. All of its rows are selected, or only these."""
    return {
        "name": name,
        "address": f"{name}.example.org",
        "groups": list(groups),
        "agents": list(dict.fromkeys(row["agent"] for row in declared)),
        "purpose": {row["agent"]: f"purpose of {row['agent']}" for row in declared},
        "notes": {},
        "training_host": "sbs29",
        "models_dir": "/home/models",
        "source_models_dir": "/srv/models",
        "rows": [{**row, "selected": selected is None or row["name"] in selected} for row in declared],
    }


def released(agent: str, receipt: Data | None = None, **more: t.Any) -> Data:
    """Return a result of adapter_release, as far as the report uses it."""
    entries = [
        {"name": row["name"], "action": "activated", "release": f"{number:012x}", "digest": f"{number:064x}", "size": 97_300_000,
         "files": [], "history": [], "receipt": RECEIPT if receipt is None else receipt, **more}
        for number, row in enumerate(rows(agent))
    ]  # fmt: skip
    return {"adapters": entries}


Event = tuple[Step | str, Data]


def follow(node: Node, *events: Event, host: str = "") -> None:
    """Let a node see the results of tasks, as the callback does."""
    for step, result in events:
        if isinstance(step, Step):
            node.add(step, result)
        if result.get("msg"):
            node.fail(step, host or node.name, result)


def run(kind: str = "deploy", check_mode: bool = False, **events: list[Event]) -> Run:
    """Return a run on the fleet, with the results of tasks on its nodes."""
    made = Run("2026-11-22T12:00:00+00:00", kind, check_mode)
    nodes = [entry(name, *rows(agent), groups=[name]) for name, agent in AGENTS.items()]
    made.declare({"nodes": nodes, "training_server": {"name": "sbs29", "address": "192.0.2.99"}, "training": {}, "notes": []})
    for declared in nodes:
        made.node(declared["name"]).select(declared)
    for name, of_node in events.items():
        follow(made.node(name), *of_node)
    return made


def delivered(*nodes: str) -> dict[str, list[Event]]:
    return {node: [(ACTIVATE, released(AGENTS[node]))] for node in nodes}


def ticked(report: Data) -> dict[str, bool]:
    return {box["text"]: box["ticked"] for box in report["boxes"]}


def states(report: Data, node: str) -> list[str]:
    [found] = [entry for entry in report["nodes"] if entry["node"] == node]
    return [adapter["state"] for adapter in found["adapters"]]


def problem(subject: str, adapter: str | None = None) -> Data:
    return Problem(subject, "is bad.", "Fix it.", adapter).to_json()


def test_add_step_after_comparison_overrides_it() -> None:
    unchanged = released("cleaner", required_level="model")

    def after(*events: Event) -> list[str]:
        return states(report_of(run(jw2=list(events))), "jw2")

    assert after((COMPARE, unchanged)) == ["unchanged"] * 2
    assert after((COMPARE, unchanged), (AUDIT, released("cleaner", differences=[]))) == ["unchanged"] * 2
    assert after((COMPARE, unchanged), (ACTIVATE, released("cleaner", action="rolled_back"))) == ["rolled_back"] * 2
    failed = {"msg": "...", "problems": [problem("", "llama_3b_cleaner_lora")]}
    assert after((COMPARE, unchanged), (LOAD, failed)) == ["failed", "skipped"]
    # The run did activate it.
    assert after((ACTIVATE, released("cleaner")), (COMPARE, unchanged)) == ["activated"] * 2


def test_report_of_started_run_has_empty_boxes() -> None:
    report = report_of(run())
    assert ticked(report) == dict.fromkeys(BOXES, False)
    assert {state for node in NODES for state in states(report, node)} == {"not_reached"}
    assert report["boxes"][0]["reasons"] == [f"llama_{variant}_cleaner_lora on jw2: not delivered" for variant in ("3b", "8b")]


def test_report_of_nodes_with_the_same_reason_says_it_once() -> None:
    made = run()
    nodes = [entry(f"gpu-{number}", *rows("cleaner"), groups=["gpu"]) for number in range(1, 51)]
    made.declare({"nodes": nodes, "training_server": {}, "training": {}, "notes": []})
    for declared in nodes:
        made.node(declared["name"]).select(declared)
    follow(made.node("gpu-7"), (ACTIVATE, released("cleaner")))
    [box] = [box for box in report_of(made)["boxes"] if box["text"] == "Cleaner models → gpu"]
    assert box["reasons"] == [f"llama_{variant}_cleaner_lora on gpu-[1:6], gpu-[8:50]: not delivered" for variant in ("3b", "8b")]


@pytest.mark.parametrize(("kind", "step"), [("deploy", ACTIVATE), ("deploy", COMPARE), ("audit", AUDIT), ("status", STATUS)])
@pytest.mark.parametrize("signed", [SIGNED, UNSIGNED, None])
def test_report_says_by_whom_releases_are_signed(kind: str, step: Step, signed: Data | None) -> None:
    result = released("cleaner", signed=signed, required_level="model", differences=[])
    report = report_of(run(kind, jw2=[(step, result)]))
    jsonschema.validate(report, schema())
    found = {node["node"]: [adapter["signed"] for adapter in node["adapters"]] for node in report["nodes"]}
    assert found == {"jw2": [signed, signed], "jw3": [None, None], "kcloud": [None, None]}


def test_report_names_the_way_of_files_where_others_than_the_relay_are_permitted() -> None:
    name = rows("cleaner")[0]["name"]
    way = {"way": "relay", "not_taken": [{"way": "direct", "why": "port 8700 of sbs29 cannot be reached: timed out."}]}
    transferred = {"adapters": [{"name": name, "downloaded_bytes": 9, **way}], "wire_bytes": 10}
    report = report_of(run(jw2=[(TRANSFER, transferred), (ACTIVATE, released("cleaner"))]))
    [found, other] = next(node["adapters"] for node in report["nodes"] if node["node"] == "jw2")
    assert {key: found[key] for key in way} == way
    assert (other["way"], other["not_taken"]) == (None, None)


def test_report_of_complete_delivery_ticks_all_boxes() -> None:
    report = report_of(run(**delivered(*NODES)))
    assert ticked(report) == dict.fromkeys(BOXES, True)
    assert report["failures"] == []
    node = report["nodes"][0]
    assert (node["agents"], node["purpose"], node["address"]) == (
        ["cleaner"],
        {"cleaner": "purpose of cleaner"},
        "jw2.example.org",
    )
    adapter = node["adapters"][1]
    assert (adapter["agent"], adapter["state"], adapter["release"], adapter["size"]) == (
        "cleaner", "activated", f"{1:012x}", 97_300_000,
    )  # fmt: skip
    assert (adapter["source"], adapter["target"]) == (
        "/srv/models/llama_8b_cleaner_lora/", "/home/models/llama_8b_cleaner_lora/",
    )  # fmt: skip
    assert (adapter["test"]["level"], adapter["test"]["device_name"]) == ("model", "NVIDIA H200")


def test_report_of_up_to_date_node_ticks_all_boxes() -> None:
    unchanged = released("cleaner", action="unchanged", from_receipt=True, required_level="model")
    others = delivered("jw3", "kcloud")
    others["jw3"].insert(0, (COMPARE, {"adapters": []}))
    report = report_of(run(jw2=[(COMPARE, unchanged)], **others))
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
    report = report_of(run(jw2=[(ACTIVATE, released("cleaner", {"level": "structure"}))], **delivered("jw3", "kcloud")))
    assert ticked(report) == {box: box != BOXES[4] for box in BOXES}


def test_report_of_failed_adapter_skips_others_of_its_node() -> None:
    failure = {"msg": "...", "problems": [problem("release 0", "llama_8b_cleaner_lora")]}
    report = report_of(run(jw2=[(TRANSFER, failure)], **delivered("jw3", "kcloud")))
    assert states(report, "jw2") == ["skipped", "failed"]
    assert ticked(report) == {box: box in (BOXES[1], BOXES[2]) for box in BOXES}
    [found] = report["failures"]
    assert (found["node"], found["host"], found["adapter"], found["step"]) == (
        "jw2", "jw2", "llama_8b_cleaner_lora", "transfer",
    )  # fmt: skip
    assert (found["problem"], found["remedy"]) == ("is bad.", "Fix it.")


@pytest.mark.parametrize("subject", ["rsync", "/srv/llama_8b_cleaner_lora"])
def test_report_of_problem_without_adapter_fails_all_of_the_node(subject: str) -> None:
    report = report_of(run(jw2=[(TRANSFER, {"msg": "...", "problems": [problem(subject)]})]))
    assert states(report, "jw2") == ["failed"] * 2
    assert report["failures"][0]["adapter"] is None


def test_report_of_failed_activation_keeps_finished_adapters() -> None:
    # The module lists only the adapters that it finished before it failed.
    half = {"adapters": released("cleaner")["adapters"][:1], "msg": "...", "problems": [problem("", "llama_8b_cleaner_lora")]}
    report = report_of(run(jw2=[(ACTIVATE, half)]))
    assert states(report, "jw2") == ["activated", "failed"]
    assert report["boxes"][0]["reasons"] == ["llama_8b_cleaner_lora on jw2: not delivered"]


def test_report_of_unreachable_node_names_it_with_remedy() -> None:
    made = run(**delivered("jw3", "kcloud"))
    made.node("jw2").unreachable = True
    follow(made.node("jw2"), (TRANSFER, {"unreachable": True, "msg": "Connection timed out"}))
    report = report_of(made)
    assert states(report, "jw2") == ["unreachable"] * 2
    [found] = report["failures"]
    assert (found["subject"], found["host"], found["problem"]) == ("jw2", "jw2", "is unreachable: Connection timed out")
    assert found["remedy"].startswith("Restore the connection")


def test_report_of_unreachable_training_server_fails_nodes_that_need_it() -> None:
    made = run()
    for name in NODES:
        follow(made.node(name), (DESCRIBE, {"unreachable": True, "msg": "Connection refused"}), host="sbs29")
    report = report_of(made)
    assert {state for node in NODES for state in states(report, node)} == {"failed"}
    assert [(found["node"], found["host"], found["subject"]) for found in report["failures"]] == [
        (name, "sbs29", "sbs29") for name in NODES
    ]


def test_report_of_started_run_distinguishes_not_selected_from_not_reached() -> None:
    made = Run("")
    made.node("jw2").select(entry("jw2", *rows("cleaner"), selected=["llama_3b_cleaner_lora"]))
    assert states(report_of(made), "jw2") == ["not_reached", "not_selected"]


def test_report_of_adapter_that_a_later_use_of_the_role_does_not_select_stays_selected() -> None:
    made = run()
    made.node("jw2").select(entry("jw2", *rows("cleaner"), selected=["llama_8b_cleaner_lora"]))
    assert states(report_of(made), "jw2") == ["not_reached", "not_reached"]


def test_report_of_failed_task_without_problems_has_its_message() -> None:
    report = report_of(run(jw2=[("Validating arguments", {"msg": ["one", "two"]})]))
    assert [(found["step"], found["problem"]) for found in report["failures"]] == [("Validating arguments", "one\ntwo")]


def test_report_of_role_run_for_each_agent_has_all_adapters() -> None:
    made = Run("")
    node = made.node("jw2")
    for agent in ("cleaner", "describer"):
        node.select(entry("jw2", *rows(agent), groups=["jw2"]))
        transferred = {"adapters": [{"name": row["name"], "downloaded_bytes": 9} for row in rows(agent)], "wire_bytes": 10}
        follow(node, (COMPARE, {"adapters": []}), (TRANSFER, transferred), (ACTIVATE, released(agent)))
    report = report_of(made)
    [found] = report["nodes"]
    assert (found["agents"], found["wire_bytes"]) == (["cleaner", "describer"], 20)
    assert [(adapter["agent"], adapter["state"], adapter["downloaded_bytes"]) for adapter in found["adapters"]] == [
        ("cleaner", "activated", 9), ("cleaner", "activated", 9), ("describer", "activated", 9), ("describer", "activated", 9),
    ]  # fmt: skip
    assert ticked(report) == dict.fromkeys([BOXES[0], "Describer models → jw2", *BOXES[3:]], True)


def test_report_of_up_to_date_agent_is_kept_when_the_next_one_is_delivered() -> None:
    made = Run("")
    node = made.node("jw2")
    node.select(entry("jw2", *rows("cleaner")))
    follow(node, (COMPARE, released("cleaner", required_level="model")))
    node.select(entry("jw2", *rows("describer")))
    follow(node, (TRANSFER, {"msg": "...", "problems": [problem("rsync")]}))
    assert states(report_of(made), "jw2") == ["unchanged", "unchanged", "failed", "failed"]


def test_report_of_failure_before_a_successful_retry_lists_it_and_ticks_boxes() -> None:
    made = Run("")
    node = made.node("jw2")
    node.select(entry("jw2", *rows("cleaner"), groups=["jw2"]))
    follow(node, (LOAD, {"msg": "...", "problems": [problem("", "llama_3b_cleaner_lora")]}))
    assert states(report_of(made), "jw2") == ["failed", "skipped"]
    node.select(entry("jw2", *rows("cleaner"), groups=["jw2"]))
    follow(node, *delivered("jw2")["jw2"])
    report = report_of(made)
    assert len(report["failures"]) == 1
    assert ticked(report) == dict.fromkeys([BOXES[0], *BOXES[3:]], True)


def test_report_of_adapter_that_two_agents_serve_has_a_row_for_each() -> None:
    [shared, _other] = rows("cleaner")
    made = Run("")
    made.node("gpu").select(entry("gpu", shared, {**shared, "agent": "corrector", "variant": "small"}, groups=["gpu"]))
    follow(made.node("gpu"), (ACTIVATE, released("cleaner")))
    report = report_of(made)
    assert [(adapter["agent"], adapter["variant"], adapter["state"]) for adapter in report["nodes"][0]["adapters"]] == [
        ("cleaner", "3b", "activated"), ("corrector", "small", "activated"),
    ]  # fmt: skip
    assert list(ticked(report)) == ["Cleaner models → gpu", "Corrector models → gpu", *BOXES[3:]]


def audited(agent: str, *drift: str, release: str | None = "0" * 12) -> Data:
    entries = [{"name": row["name"], "release": release, "receipt": RECEIPT, "differences": list(drift)} for row in rows(agent)]
    return {"adapters": entries}


def test_report_of_audit_ticks_all_boxes() -> None:
    report = report_of(run("audit", **{node: [(AUDIT, audited(AGENTS[node]))] for node in NODES}))
    assert ticked(report) == dict.fromkeys(BOXES, True)
    assert states(report, "jw2") == ["as_verified"] * 2


def test_report_of_drift_lists_it_once_with_remedy() -> None:
    # The last task of the role fails because of it too.
    also: Event = ("Fail on drift", {"msg": "The served adapters differ"})
    report = report_of(run("audit", jw2=[(AUDIT, audited("cleaner", "missing  /x")), also]))
    assert states(report, "jw2") == ["differs"] * 2
    assert [(found["adapter"], found["problem"]) for found in report["failures"]] == [
        (f"llama_{variant}_cleaner_lora", "missing  /x") for variant in ("3b", "8b")
    ]
    assert "Deploy again" in report["failures"][0]["remedy"]
    assert not ticked(report)[BOXES[0]]


def test_report_of_audit_with_failed_load_test_is_not_tested() -> None:
    failure: Event = (LOAD, {"msg": "...", "problems": [problem("", "llama_8b_cleaner_lora")]})
    report = report_of(run("audit", jw2=[(AUDIT, audited("cleaner")), failure]))
    assert states(report, "jw2") == ["as_verified", "failed"]
    assert [adapter["tested"] for adapter in report["nodes"][0]["adapters"]] == [True, False]


def test_report_of_status_ticks_no_box() -> None:
    found = audited("cleaner")
    found["adapters"][1].update(release=None, differences=["missing"])
    report = report_of(run("status", jw2=[(STATUS, found)]))
    assert states(report, "jw2") == ["active", "missing"]
    assert ticked(report) == dict.fromkeys(BOXES, False)


def groups(nodes: dict[str, tuple[list[str], list[str]]]) -> dict[str, str]:
    """Return the groups of nodes, from their agents and their groups."""
    made = Run("")
    for name, (agents, of_node) in nodes.items():
        made.node(name).declare(entry(name, *(row for agent in agents for row in rows(agent)), groups=of_node))
    return groups_of(made.nodes.values())


def test_groups_of_nodes_are_those_of_their_agents() -> None:
    nodes = {
        "a-1": (["cleaner"], ["gpu", "dgx", "a", "other"]), "a-2": (["cleaner"], ["a"]), "b-1": (["describer"], ["gpu", "b"]),
        "c-1": (["cleaner"], []), "d-1": (["cleaner"], ["training", "d"]),
    }  # fmt: skip
    assert groups(nodes) == {"a-1": "a", "a-2": "a", "b-1": "b", "c-1": "agents", "d-1": "d"}


def test_groups_of_nodes_with_several_agents_name_all_of_them() -> None:
    both = ["cleaner", "describer"]
    # The manifest's text, with two sections for one node.
    assert groups({"jw2-1": (both, ["jw2"]), "jw3-1": (["describer"], ["jw3"])}) == {"jw2-1": "jw2", "jw3-1": "jw3"}
    # A group for each agent.
    assert groups({"b": (both, ["cleaner", "describer"])}) == {"b": "b"}
    a_and_b = {"a": (["cleaner"], ["cleaner"]), "b": (both, ["cleaner", "describer"])}
    assert groups(a_and_b) == {"a": "cleaner", "b": "b"}


def test_report_without_adapters_ticks_no_box() -> None:
    assert ticked(report_of(Run(""))) == {"All checksums verified": False, "All nodes tested": False}


def test_report_of_node_that_failed_before_its_adapters_were_known_ticks_no_box() -> None:
    made = run(**delivered(*NODES))
    follow(made.node("gpu"), ("Validating", {"msg": "no"}))
    report = report_of(made)
    assert report["nodes"][-1]["adapters"] == []
    assert report["failures"][0]["problem"] == "no"
    assert ticked(report) == {box: box in BOXES[:3] for box in BOXES}
    assert report["boxes"][3]["reasons"] == ["gpu: not verified"]


def test_report_of_failed_fleet_info_is_a_failure_of_the_run() -> None:
    made = run()
    for host in ("localhost", "jw2"):
        made.fail("Check the inventory", host, {"msg": "...", "problems": [problem("group agents")]})
    [found] = report_of(made)["failures"]
    assert (found["node"], found["subject"], found["step"]) == (None, "group agents", "Check the inventory")


def test_report_of_node_that_was_held_back_was_not_started() -> None:
    made = run(jw2=[("Select the adapters", {"msg": "...", "held_back": True, "problems": [problem("wave 2 of cleaner")]})])
    report = report_of(made)
    assert states(report, "jw2") == ["not_started", "not_started"]
    [found] = report["failures"]
    assert (found["node"], found["subject"]) == ("jw2", "wave 2 of cleaner")
    assert not ticked(report)[BOXES[0]]


def test_report_of_node_that_went_back_has_the_test_of_the_release_it_returned_to() -> None:
    loaded = {"adapters": [{"name": row["name"], "level": "golden", "from_receipt": False} for row in rows("cleaner")]}
    steps: list[Event] = [(LOAD, loaded), (ACTIVATE, released("cleaner")), (ACTIVATE, released("cleaner", action="rolled_back"))]
    report = report_of(run(jw2=steps))
    assert states(report, "jw2") == ["rolled_back", "rolled_back"]
    test = report["nodes"][0]["adapters"][0]["test"]
    assert (test["level"], test["from_receipt"]) == ("model", None)


def test_report_of_run_without_waves_has_no_rollout() -> None:
    assert report_of(run(**delivered("jw2")))["rollout"] == []


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
    assert set(states) == {*all_states.DONE, *STATES}
    steps = schema()["$defs"]["node"]["properties"]["seconds"]["propertyNames"]["enum"]
    assert steps == [step.key for step in STEPS]
    facts = {field.name for field in dataclasses.fields(LoadTestResult)}
    assert schema()["$defs"]["test"]["properties"].keys() == facts | {"at", "from_receipt", "required_level"}


def verdict(state: str = "wrong", held_back: bool = False) -> Data:
    words = {"message": "OpenVINO GenAI ignores it.", "figure": 1.302, "remedy": "Hand over alpha 8."}
    return {"engine": "openvino_genai", "version": None, "state": state, "kinds": ["rslora"], **words, "held_back": held_back}


def judged(name: str, *verdicts: Data, **more: t.Any) -> Data:
    return {"adapters": [{"name": name, "engines": list(verdicts), **more}]}


@pytest.mark.parametrize("step", [COMPARE, TRANSFER, AUDIT, STATUS])
def test_report_has_verdicts_of_the_step_that_returned_them(step: Step) -> None:
    name = rows("cleaner")[0]["name"]
    of_step = {COMPARE: {"required_level": "model"}, AUDIT: {"release": None}, STATUS: {"release": None}}.get(step, {})
    of_run = run(jw2=[(step, judged(name, verdict(), engine_notes=["A note."], **of_step))])
    first, second = report_of(of_run)["nodes"][0]["adapters"]
    assert (first["engines"], first["engine_notes"]) == ([verdict()], ["A note."])
    assert (second["engines"], second["engine_notes"]) == ([], [])


def test_report_of_adapter_that_is_held_back_has_verdict_and_failure() -> None:
    first, second = (row["name"] for row in rows("cleaner"))
    problem = Problem("engine openvino_genai", "OpenVINO GenAI ignores it.", "Hand over alpha 8.", first)
    failed = {**judged(first, verdict(held_back=True)), "msg": str(problem), "problems": [problem.to_json()]}
    report = report_of(run(jw2=[(TRANSFER, failed)]))
    adapters = report["nodes"][0]["adapters"]
    assert [adapter["state"] for adapter in adapters] == ["failed", "skipped"]
    assert adapters[0]["engines"] == [verdict(held_back=True)]
    [failure] = report["failures"]
    assert (failure["node"], failure["adapter"], failure["step"]) == ("jw2", first, "transfer")
    assert second == adapters[1]["name"]


URL = "http://127.0.0.1:8000"


def told(name: str, proof: str | None = "served", release: str | None = "a" * 12) -> Data:
    """An entry of adapter_serve."""
    why = "It has no golden." if proof == "unproved" else None
    entry = {"name": name, "engine": "vllm", "url": URL, "proof": proof, "served": release, "why_unproved": why}
    return {**entry, "action": "unchanged" if proof else "went back", "why": None if proof else "It answers wrongly."}


@pytest.mark.parametrize(
    ("entry", "state"),
    [
        ({}, "served"),
        ({"proof": "unproved"}, "unproved"),
        ({"proof": None, "release": "b" * 12}, "behind"),
        ({"proof": None, "release": None}, "not loaded"),
    ],
)
def test_report_has_box_for_what_is_served_and_ticks_it_only_with_a_proof(entry: Data, state: str) -> None:
    first, second = (row["name"] for row in rows("cleaner"))
    report = report_of(run(jw2=[(SERVE, {"adapters": [told(first), told(second, **entry)]})]))
    node = report["nodes"][0]
    assert [one["serving"][0]["state"] for one in node["adapters"]] == ["served", state]
    [box] = [box for box in report["boxes"] if box["text"] == "All nodes serve what was verified"]
    # Nothing is known of the other node.
    assert not box["ticked"]
    own = [reason for reason in box["reasons"] if node["node"] in reason]
    assert own == ([] if state == "served" else [f"{second} on {node['node']}: not served"])


def test_report_of_files_that_went_back_because_of_an_engine_does_not_have_them_as_activated() -> None:
    first, second = (row["name"] for row in rows("cleaner"))
    served = {
        "adapters": [told(first, None, "b" * 12), told(second)],
        "rolled_back": [first],
        "problems": [{"adapter": first, "subject": "engine", "problem": "Wrong.", "remedy": "Look."}],
        "msg": "Wrong.",
    }
    report = report_of(run(jw2=[(ACTIVATE, released("cleaner")), (SERVE, served)]))
    back, stayed = report["nodes"][0]["adapters"]
    assert [back[key] for key in ("state", "release", "verified", "changes")] == ["failed", None, False, None]
    assert (stayed["state"], stayed["verified"]) == ("activated", True)


def test_report_of_serve_alone_has_the_active_release() -> None:
    entry = {**told(rows("cleaner")[0]["name"]), "release": "a" * 12}
    adapter = report_of(run("serve", jw2=[(SERVE, {"adapters": [entry]})]))["nodes"][0]["adapters"][0]
    assert (adapter["state"], adapter["release"], adapter["verified"]) == ("unchanged", "a" * 12, False)


def test_report_of_release_that_an_engine_did_not_serve_says_why() -> None:
    entry = {**told(rows("cleaner")[0]["name"], None), "release": "b" * 12}
    [serving] = report_of(run(jw2=[(SERVE, {"adapters": [entry]})]))["nodes"][0]["adapters"][0]["serving"]
    assert (serving["state"], serving["why"]) == ("behind", "It answers wrongly.")


@pytest.mark.parametrize("action", ["served", "unchanged"])
@pytest.mark.parametrize("steps", [[], [COMPARE], [ACTIVATE]])
def test_report_of_release_that_an_engine_got_has_it_as_loaded(steps: list[Step], action: str) -> None:
    entry = {**told(rows("cleaner")[0]["name"]), "release": "a" * 12, "action": action}
    before = released("cleaner", action="unchanged", from_receipt=True, required_level="model")
    made = run("deploy" if steps else "serve", jw2=[*((step, before) for step in steps), (SERVE, {"adapters": [entry]})])
    assert report_of(made)["nodes"][0]["adapters"][0]["state"] == ("loaded" if action == "served" else "unchanged")


def test_report_of_audit_has_what_each_engine_serves() -> None:
    first = rows("cleaner")[0]["name"]
    entry = {"name": first, "engine": "vllm", "url": URL, "state": "behind", "why": "Old.", "served": "b" * 12}
    other = {**entry, "url": f"{URL}1", "state": "served", "why": "", "served": "a" * 12}
    report = report_of(run(jw2=[(SERVED, {"adapters": [entry, other]})]))
    asked, not_asked = report["nodes"][0]["adapters"]
    assert [(one["url"], one["state"], one["release"]) for one in asked["serving"]] == [
        (URL, "behind", "b" * 12),
        (f"{URL}1", "served", "a" * 12),
    ]
    assert (asked["served"], not_asked["served"], not_asked["serving"]) == (False, False, [])


def test_report_without_engines_that_are_told_to_serve_has_no_box_for_them() -> None:
    assert "All nodes serve what was verified" not in [box["text"] for box in report_of(run(jw2=[]))["boxes"]]
