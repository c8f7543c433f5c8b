# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The status playbook on a fleet of directories."""

from __future__ import annotations

import json
import shutil

from tests.support.fleet import CLEANER_3B, CLEANER_8B, CONFIG, DESCRIBER_3B, WEIGHTS, Fleet, identity
from tests.support.playbooks import Run

NONE = "missing  no active release on this node"


def summary(done: Run, node: str) -> dict[str, list[str]]:
    """What stands in the terminal of a node, which is what its module has returned."""
    said: dict[str, list[str]] = done.of(node, "debug")["msg"]
    assert said == done.of(node, "adapter_release_info")["summary"]
    return said


def looked(fleet: Fleet, *arguments: str) -> Run:
    done = fleet.run("status", *arguments)
    assert (done.rc, done.changed()) == (0, []), done.output
    return done


def test_what_is_active_since_when_and_how_verified(fleet: Fleet) -> None:
    fleet.served("jw2-1", CLEANER_8B).mkdir()
    before = looked(fleet)
    by_hand = f"{NONE}; {fleet.served('jw2-1', CLEANER_8B)} was not deployed by this collection"
    assert summary(before, "jw2-1") == {CLEANER_3B: [NONE], CLEANER_8B: [by_hand]}

    first = fleet.deploy().adapters("jw2-1", "adapter_release")[CLEANER_3B]["release"]
    fleet.offer(CLEANER_3B, "bf16")
    fleet.deploy("--tags", "cleaner,3b")
    fleet.source.rename(fleet.source.with_name("switched-off"))
    states = {
        name: json.loads((fleet.stored("jw2-1", name) / "state.json").read_text(encoding="utf-8"))
        for name in (CLEANER_3B, CLEANER_8B)
    }
    receipts = {
        name: json.loads((fleet.stored("jw2-1", name) / "receipts" / f"{state['active']}.json").read_text(encoding="utf-8"))
        for name, state in states.items()
    }
    said = summary(looked(fleet, "--check"), "jw2-1")
    for name, state in states.items():
        assert said[name][:2] == [
            f"release {state['active']} active since {state['history'][-1]['at']}",
            f"level structure verified {receipts[name]['at']}",
        ]
    assert (said[CLEANER_3B][2:], said[CLEANER_8B][2:]) == ([f"previous release {first}"], [])

    back = fleet.run("rollback", "--tags", "cleaner,3b")
    assert back.rc == 0, back.output
    second = states[CLEANER_3B]["active"]
    fleet.groups["agents"]["agent_level"] = "available"
    only = looked(fleet, "--tags", "cleaner,3b")
    assert only.worked_on() == {"jw2-1"}
    [lines] = summary(only, "jw2-1").values()
    assert lines[0].startswith(f"release {first} active since ")
    assert lines[2:] == [f"previous release {second}", "lower    verified at level structure, level adapter is required"]


def test_what_differs_is_said_and_a_node_that_is_down_hides_nothing(fleet: Fleet) -> None:
    fleet.deploy()
    served, stored = fleet.served("jw2-1", CLEANER_3B), fleet.stored("jw2-1", CLEANER_8B)
    with (served / WEIGHTS).open("ab") as weights:
        weights.write(b"more")
    (served / CONFIG).unlink()
    shutil.rmtree(stored / "receipts")
    (stored / "manifests").rename(stored / "manifests-away")
    fleet.offer("by_hand_lora", "adapter", into=fleet.home("jw2-1") / "models")
    # A damaged state of one adapter must not hide the others, nor one delivered before.
    damaged = fleet.stored("jw3-1", DESCRIBER_3B) / "state.json"
    damaged.write_text("{", encoding="utf-8")
    shutil.copytree(fleet.stored("jw2-1", CLEANER_3B), fleet.home("jw3-1") / ".lorafleet" / CLEANER_3B)
    fleet.add_node("jw3", "jw3-2", ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
    untouched = identity(fleet.root / "jw2-1")

    done = fleet.run("status")
    assert done.unreachable("jw3-2") and done.rc != 0
    assert identity(fleet.root / "jw2-1") == untouched
    said = summary(done, "jw2-1")
    size = (fleet.source / CLEANER_3B / WEIGHTS).stat().st_size
    assert said[CLEANER_3B][2:] == [
        f"missing  {served / CONFIG}",
        f"changed  {served / WEIGHTS}  {size + 4} bytes instead of {size}",
    ]
    release = json.loads((stored / "state.json").read_text(encoding="utf-8"))["active"]
    assert said[CLEANER_8B][1:] == [
        f"missing  {stored / 'receipts' / release}.json  this release has no valid receipt on this node",
        f"missing  {stored / 'manifests' / release}.json  the served files cannot be verified without it",
    ]
    assert said["by_hand_lora"] == ["extra    not expected on this node"]
    assert done.of("jw2-1", "adapter_release_info")["others"] == ["by_hand_lora"]
    said = summary(done, "jw3-1")
    assert said.pop(DESCRIBER_3B)[0].startswith(f"changed  {damaged}: cannot be read: ")
    assert said == {CLEANER_3B: ["extra    not expected on this node"]}
