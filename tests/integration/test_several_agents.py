# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One node serves several agents, two of them with the same adapter."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, Fleet, row
from tests.support.playbooks import Background


@pytest.fixture
def lab(fleet: Fleet) -> Fleet:
    """A fleet with the one node jw2-1."""
    fleet.members.pop("jw3")
    fleet.groups["jw2"] = {
        "agent_purpose": {"cleaner": "Grammar", "describer": "Wikipedia"},
        "agent_adapters": [
            row(CLEANER_3B, "3b", 16, agent="cleaner"),
            row(CLEANER_8B, "8b", 32, agent="cleaner"),
            row(DESCRIBER_3B, "3b", 16, agent="describer"),
            row(CLEANER_3B, "small", 16, agent="describer", default=False),
        ],
    }
    return fleet


def served(fleet: Fleet) -> set[str]:
    return set(os.listdir(fleet.home("jw2-1") / "models"))


def test_deploy_node_with_several_agents_delivers_and_reports_all(lab: Fleet) -> None:
    lab.deploy("--tags", "describer")
    assert served(lab) == {DESCRIBER_3B, CLEANER_3B}
    assert lab.boxes()["Describer models → jw2"]
    assert not lab.boxes()["Cleaner models → jw2"]

    lab.deploy()
    assert served(lab) == {DESCRIBER_3B, CLEANER_3B, CLEANER_8B}
    [node] = lab.report()["nodes"]
    assert node["agents"] == ["cleaner", "describer"]
    assert [(entry["agent"], entry["name"], entry["variant"]) for entry in node["adapters"]] == [
        ("cleaner", CLEANER_3B, "3b"),
        ("cleaner", CLEANER_8B, "8b"),
        ("describer", DESCRIBER_3B, "3b"),
        ("describer", CLEANER_3B, "small"),
    ]
    assert all(entry["verified"] for entry in node["adapters"])
    boxes = lab.boxes()
    assert boxes["Cleaner models → jw2"] and boxes["Describer models → jw2"]

    audit = lab.run("audit")
    assert audit.rc == 0, audit.output
    assert set(audit.adapters("jw2-1", "adapter_release_info")) == served(lab)

    # The report is an inventory again.
    manifest = str(lab.reports / "MANIFEST.md")
    done = Background("check_inventory", "-i", manifest, directory=lab.root, name="again").wait()
    assert done.rc == 0, done.output
    [again] = done.results[0]["result"]["nodes"]
    assert [(entry["agent"], entry["name"], entry["variant"]) for entry in again["rows"]] == [
        (entry["agent"], entry["name"], entry["variant"]) for entry in node["adapters"]
    ]
    assert again["purpose"] == {"cleaner": "Grammar", "describer": "Wikipedia"}


def test_role_in_a_loop_over_agents_delivers_and_reports_what_it_was_given(lab: Fleet) -> None:
    """The inventory itself declares no adapters, and its groups have other names."""
    rows = lab.groups["jw2"].pop("agent_adapters")
    for entry in rows:
        entry.pop("agent")
    lab.groups["jw2"] = {"served": {"cleaner": rows[:2], "describer": rows[2:]}}
    inventory = json.loads(lab.write_inventory().read_text(encoding="utf-8"))
    children = inventory["all"]["children"]
    children["gpus"], children["trainers"] = children.pop("agents"), children.pop("training")
    (lab.root / "own.json").write_text(json.dumps(inventory), encoding="utf-8")
    given = {"agent_name": "{{ item.key }}", "agent_adapters": "{{ item.value }}", "agent_training_host": "sbs29"}
    role = {"name": "lorafleet.delivery.agent"}
    task = {"name": "Deliver", "ansible.builtin.include_role": role, "vars": given, "loop": "{{ served | dict2items }}"}
    play = {"hosts": "gpus", "gather_facts": False, "tasks": [task]}
    (lab.root / "site.yml").write_text(json.dumps([play]), encoding="utf-8")
    done = Background(str(lab.root / "site"), "-i", str(lab.root / "own.json"), directory=lab.root).wait()
    assert done.rc == 0, done.output
    assert served(lab) == {DESCRIBER_3B, CLEANER_3B, CLEANER_8B}
    [node] = lab.report()["nodes"]
    assert {(entry["agent"], entry["name"]) for entry in node["adapters"] if entry["verified"]} == {
        ("cleaner", CLEANER_3B),
        ("cleaner", CLEANER_8B),
        ("describer", DESCRIBER_3B),
        ("describer", CLEANER_3B),
    }
