# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import collections
import json
import re
import typing as t

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._status import (
    Row,
    as_json,
    as_markdown,
    boxes,
    collect,
    with_written,
)
from hypothesis import given
from hypothesis import strategies as st

AGENTS = {"jw2": "cleaner", "jw3": "describer", "kcloud": "paraphraser"}
NODES = list(AGENTS)
TRAINING = "sbs29"
BOXES = [
    "Cleaner models → jw2",
    "Describer models → jw3",
    "Paraphraser models → kcloud",
    "All checksums verified",
    "All nodes tested",
]
RECEIPT = {"level": "model", "device": "cuda", "device_name": "NVIDIA H200"}


def adapters(agent: str) -> list[dict[str, t.Any]]:
    return [
        {
            "name": f"llama_{variant}_{agent}_lora",
            "variant": variant,
            "default": variant == "3b",
            "base": f"meta-llama/Llama-{variant}",
            "dataset": "JFLEG",
            "quality": "8.8/10",
        }
        for variant in ("3b", "8b")
    ]


def released(agent: str, receipt: t.Optional[dict[str, str]] = None) -> dict[str, t.Any]:
    """What the last step of role agent registers."""
    return {
        "adapters": [
            {
                "name": row["name"],
                "action": "activated",
                "release": f"{number:012x}",
                "digest": f"{number:064x}",
                "size": 97_300_000,
                "receipt": RECEIPT if receipt is None else receipt,
            }
            for number, row in enumerate(adapters(agent))
        ]
    }


def fleet(**of_nodes: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """The hostvars of the fleet; the keywords are what a node has registered or otherwise has besides."""
    groups = {"agents": NODES, "training": [TRAINING], **{node: [node] for node in NODES}}
    return {
        TRAINING: {"training_models_dir": "/home/models"},
        **{
            node: {
                "agent_name": agent,
                "agent_purpose": "Grammar/Noise",
                "agent_adapters": adapters(agent),
                "agent_models_dir": "/home/models",
                "ansible_host": f"192.0.2.{number}",
                "group_names": ["agents", node],
                "groups": groups,
                **of_nodes.get(node, {}),
            }
            for number, (node, agent) in enumerate(AGENTS.items())
        },
    }


def delivered(*nodes: str) -> dict[str, dict[str, t.Any]]:
    return {node: {"__agent_released": released(AGENTS[node])} for node in nodes}


def rows(**of_nodes: dict[str, t.Any]) -> list[Row]:
    return collect(fleet(**of_nodes), NODES, TRAINING)


def ticked(found: t.Sequence[Row]) -> dict[str, bool]:
    return {box.text: box.ticked for box in boxes(found)}


def markdown(found: t.Sequence[Row]) -> str:
    return as_markdown(found, "2026-11-22T12:00:00+00:00", TRAINING, "192.0.2.99")


def test_before_any_run_every_box_is_empty() -> None:
    found = rows()
    assert ticked(found) == dict.fromkeys(BOXES, False)
    assert len(found) == 6
    assert {row.result for row in found} == {"not part of this run, or not reached by it"}
    assert not any(row.verified or row.tested or row.release for row in found)
    text = markdown(found)
    assert text.count("- [ ] ") == 5
    assert "- [x]" not in text
    assert "## What failed" not in text
    assert "- none in this run" in text


def test_when_all_is_delivered_all_five_are_ticked() -> None:
    found = rows(**delivered(*NODES))
    assert ticked(found) == dict.fromkeys(BOXES, True)
    text = markdown(found)
    assert [line for line in text.splitlines() if line.startswith("- [")] == [f"- [x] {box}" for box in BOXES]
    assert "## What failed" not in text
    assert text.count("| activated |") == 6


def test_evidence_comes_from_the_release_and_its_receipt() -> None:
    row = rows(**delivered("jw2"))[1]
    assert row == Row(
        agent="cleaner",
        purpose="Grammar/Noise",
        group="jw2",
        node="jw2",
        address="192.0.2.0",
        adapter="llama_8b_cleaner_lora",
        variant="8b",
        default=False,
        base="meta-llama/Llama-8b",
        dataset="JFLEG",
        quality="8.8/10",
        source="sbs29:/home/models/llama_8b_cleaner_lora/",
        target="jw2:/home/models/llama_8b_cleaner_lora/",
        result="activated",
        release="000000000001",
        digest=f"{1:064x}",
        size=97_300_000,
        level="model",
        device="cuda NVIDIA H200",
        verified=True,
        tested=True,
    )


def test_a_node_that_failed_leaves_its_boxes_empty_and_says_why() -> None:
    failed = {"__agent_tested": {"failed": True, "msg": "device cuda: cannot be used"}}
    found = rows(**{**delivered("jw2", "kcloud"), "jw3": failed})
    assert ticked(found) == {box: box in (BOXES[0], BOXES[2]) for box in BOXES}
    assert boxes(found)[1].against == (
        "llama_3b_describer_lora on jw3: not delivered",
        "llama_8b_describer_lora on jw3: not delivered",
    )
    text = markdown(found)
    assert text.count("| failed, see below |") == 2
    assert "- jw3 failed: device cuda: cannot be used" in text
    assert "  - llama_3b_describer_lora on jw3: not tested" in text


def test_the_step_that_failed_first_is_named() -> None:
    found = rows(
        jw2={
            "__agent_described": {"adapters": []},
            "__agent_synced": {"failed": True, "msg": "the first"},
            "__agent_released": {"failed": True, "msg": "the second"},
        }
    )
    assert found[0].result == "failed: the first"


def test_a_release_that_failed_is_no_evidence() -> None:
    # A module that fails may have reported what it had done before.
    found = rows(jw2={"__agent_released": {**released("cleaner"), "failed": True, "msg": "the lock is held"}})
    assert not any(row.verified or row.tested for row in found)
    assert found[0].result == "failed: the lock is held"


def test_a_node_that_was_lost_says_so() -> None:
    lost = {"__agent_synced": {"unreachable": True, "msg": "Connection timed out"}}
    found = rows(**{**delivered("jw2", "jw3"), "kcloud": lost})
    assert ticked(found) == {box: box in BOXES[:2] for box in BOXES}
    assert found[4].result == "failed: Connection timed out"


def test_a_skipped_step_is_neither_failure_nor_evidence() -> None:
    found = rows(jw2={"__agent_described": {"skipped": True}, "__agent_released": {"skipped": True}})
    assert found[0].result == "not part of this run, or not reached by it"
    assert not found[0].verified


def test_a_run_for_one_agent_ticks_its_box_alone() -> None:
    assert ticked(rows(**delivered("jw3"))) == {box: box == BOXES[1] for box in BOXES}


def test_a_run_for_one_variant_ticks_nothing() -> None:
    half = {node: {"__agent_released": {"adapters": released(AGENTS[node])["adapters"][:1]}} for node in NODES}
    found = rows(**half)
    assert ticked(found) == dict.fromkeys(BOXES, False)
    assert [row.verified for row in found] == [True, False] * 3


def test_without_a_receipt_nothing_was_tested() -> None:
    found = rows(**{**delivered("jw2", "jw3"), "kcloud": {"__agent_released": released("paraphraser", {})}})
    assert ticked(found) == {box: box != BOXES[4] for box in BOXES}
    assert boxes(found)[4].against == tuple(f"llama_{variant}_paraphraser_lora on kcloud: not tested" for variant in ("3b", "8b"))


def test_a_device_without_a_name() -> None:
    found = rows(jw2={"__agent_released": released("cleaner", {"level": "adapter", "device": "cpu"})})
    assert (found[0].level, found[0].device) == ("adapter", "cpu")


def test_no_adapters_are_no_success() -> None:
    assert ticked([]) == {"All checksums verified": False, "All nodes tested": False}


def test_an_agent_on_two_nodes_needs_both() -> None:
    of_fleet = fleet(**delivered("jw2"))
    groups = {**of_fleet["jw2"]["groups"], "agents": ["jw2", "jw4"], "jw2": ["jw2", "jw4"]}
    of_fleet["jw2"]["groups"] = groups
    of_fleet["jw4"] = {**of_fleet["jw2"], "ansible_host": "192.0.2.4", "__agent_released": {}}
    found = collect(of_fleet, ["jw2", "jw4"], TRAINING)
    assert boxes(found)[0].text == "Cleaner models → jw2"
    assert boxes(found)[0].against == tuple(f"llama_{variant}_cleaner_lora on jw4: not delivered" for variant in ("3b", "8b"))
    assert "## Cleaner Agent (Grammar/Noise) → jw2 (192.0.2.0, 192.0.2.4)" in markdown(found)


def test_other_groups_of_a_node_do_not_name_its_agent() -> None:
    of_fleet = fleet()
    for node in NODES:
        of_fleet[node]["group_names"] = ["agents", "dgx", "gpu", node]
        of_fleet[node]["groups"] = {**of_fleet[node]["groups"], "gpu": NODES, "dgx": [TRAINING, *NODES]}
    assert [box.text for box in boxes(collect(of_fleet, NODES, TRAINING))] == BOXES


def test_a_node_in_no_group_of_its_own() -> None:
    of_fleet = fleet()
    of_fleet["jw2"]["group_names"] = ["agents"]
    assert collect(of_fleet, ["jw2"], TRAINING)[0].group == "agents"


def test_what_the_inventory_need_not_say() -> None:
    of_fleet = fleet()
    row = {"name": "lora", "variant": 3, "base": "base"}
    of_fleet["jw2"] = {
        "agent_name": "cleaner",
        "agent_adapters": [row],
        "group_names": ["agents", "jw2"],
        "groups": of_fleet["jw2"]["groups"],
    }
    of_fleet[TRAINING] = {}
    [found] = collect(of_fleet, ["jw2"], TRAINING)
    assert (found.variant, found.default, found.purpose, found.dataset, found.quality) == ("3", False, "", "", "")
    assert (found.address, found.source, found.target) == ("jw2", "sbs29:/home/models/lora/", "jw2:/home/models/lora/")
    assert "## Cleaner Agent → jw2 (jw2)" in markdown([found])


def test_json_says_the_same() -> None:
    found = rows(**delivered("jw2"))
    data = json.loads(json.dumps(as_json(found, "run", "2026-11-22T12:00:00+00:00", TRAINING)))
    assert data["schema"] == 1
    assert data["generated"] == "2026-11-22T12:00:00+00:00"
    assert data["training_server"] == TRAINING
    assert [Row(**adapter) for adapter in data["adapters"]] == found
    assert [(box["text"], box["ticked"]) for box in data["boxes"]] == [(box.text, box.ticked) for box in boxes(found)]


def test_what_another_node_has_written_is_not_taken_back() -> None:
    # One began before the other had ended, and writes after it.
    late, early = rows(**delivered("jw2")), rows(**delivered("jw3", "kcloud"))
    written = as_json(early, "run", "", TRAINING)["adapters"]
    assert all(ticked(with_written(late, written)).values())
    # What a task knows itself is newer than what was written.
    failed = {"__agent_synced": {"failed": True, "msg": "disk full"}}
    [row, *_rest] = with_written(rows(jw2=failed), as_json(rows(**delivered("jw2")), "run", "", TRAINING)["adapters"])
    assert row.result == "failed: disk full"


def test_the_variables_of_a_host_are_asked_for_a_few_times_only() -> None:
    """Ansible puts them together anew each time: with fifty nodes, what grows with their square takes minutes."""
    nodes = [f"node-{number}" for number in range(50)]
    of_fleet = fleet()
    of_node = {**of_fleet["jw2"], "groups": {**of_fleet["jw2"]["groups"], "agents": nodes, "jw2": nodes}}
    asked: collections.Counter[str] = collections.Counter()

    class Counting(dict[str, t.Any]):
        def __getitem__(self, host: str) -> t.Any:
            asked[host] += 1
            return super().__getitem__(host)

    collect(Counting({**of_fleet, **dict.fromkeys(nodes, of_node)}), nodes, TRAINING)
    assert max(asked.values()) <= 2


def test_the_head_of_the_manifest() -> None:
    lines = markdown(rows()).splitlines()
    assert lines[0] == "# Model Distribution Manifest"
    assert "- Generated: 2026-11-22T12:00:00+00:00" in lines
    assert "- Training Server: sbs29 (192.0.2.99)" in lines
    assert "## Cleaner Agent (Grammar/Noise) → jw2 (192.0.2.0)" in lines


# How GitHub takes a row of a table apart: a backslash takes the meaning of whatever character follows it.
_CELL = re.compile(r"(?:\\.|[^|\\])*")


def cells(line: str) -> list[str]:
    found, position = [], 1
    while position < len(line):
        cell = _CELL.match(line, position)
        assert cell is not None
        found.append(cell[0])
        position = cell.end() + 1
    return found


@given(st.text(st.sampled_from("a|\\ \n\r\t`\u2028\x0b\x85"), max_size=12), st.text(max_size=8))
def test_no_text_breaks_a_table(dataset: str, quality: str) -> None:
    found = rows()[:1]
    row = Row(**{**as_json(found, "", "", TRAINING)["adapters"][0], "dataset": dataset, "quality": quality})
    text = markdown([row])
    head = text.splitlines().index("| variant | source | target | base | training | release | size | level | device | result |")
    line = text.split("\n")[head + 2]
    assert len(cells(line)) == 10
    assert text.split("\n")[head + 3] == ""


@given(st.text(max_size=20), st.text(st.sampled_from("a#-[x] \n\r\u2028"), max_size=20))
def test_no_text_forges_a_box(purpose: str, message: str) -> None:
    failed = {"failed": True, "msg": f"lost:\n- [x] All nodes tested\n{message}"}
    lines = markdown(rows(jw2={"__agent_synced": failed, "agent_purpose": f"x\n- [x] {purpose}"})).splitlines()
    assert [line for line in lines if line.startswith("- [")] == [f"- [ ] {box}" for box in BOXES]
