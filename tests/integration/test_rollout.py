# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deliveries in waves: who is delivered when, who is held back, and who goes back."""

from __future__ import annotations

import pytest

from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, Fleet, contents, row, travelling
from tests.support.paths import CHECKOUT
from tests.support.playbooks import Background, Run
from tests.support.troubleshooting import documented

CLEANERS, DESCRIBERS = ["jw2-1", "jw2-2", "jw2-3"], ["jw3-1", "jw3-2", "jw3-3"]
CALLBACKS = "fleet_record,lorafleet.delivery.delivery_report,lorafleet.delivery.delivery_progress"
# Nobody listens there.
CLOSED = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


@pytest.fixture(name="six")
def six_nodes(fleet: Fleet) -> Fleet:
    """Two agents with three nodes each, delivered one node after the other."""
    fleet.groups["jw2"]["agent_adapters"] = [row(CLEANER_3B, "3b", 16)]
    for group, nodes in (("jw2", CLEANERS), ("jw3", DESCRIBERS)):
        for node in nodes[1:]:
            fleet.add_node(group, node)
    fleet.groups["agents"]["agent_serial"] = 1
    return fleet


def is_delivered(fleet: Fleet, node: str) -> bool:
    name = CLEANER_3B if node.startswith("jw2") else DESCRIBER_3B
    return contents(fleet.served(node, name)) == travelling(fleet.source / name)


def states(fleet: Fleet) -> dict[str, str]:
    return {node["node"]: node["adapters"][0]["state"] for node in fleet.report()["nodes"]}


def waves(fleet: Fleet, agent: str = "cleaner") -> list[tuple[list[str], str]]:
    return [(entry["nodes"], entry["result"]) for entry in fleet.report()["rollout"] if entry["agent"] == agent]


def deliveries(done: Run) -> list[str]:
    """The nodes in the order in which their deliveries began and ended."""
    return [
        f"{entry['host']} {'begins' if entry['action'].endswith('adapter_info') else 'ends'}"
        for entry in done.results
        if entry["action"].endswith((".adapter_info", ".adapter_release"))
    ]


def fail(fleet: Fleet, node: str) -> None:
    """Let the interpreter of Ansible's modules on a node fail before anything is sent there."""
    fleet.before_module(node, "adapter_up_to_date_info", "exit 1")


def test_waves_of_two_agents_on_two_forks_follow_one_another(six: Fleet) -> None:
    done = six.deploy("--forks", "2")
    assert all(is_delivered(six, node) for node in (*CLEANERS, *DESCRIBERS))
    for nodes in (CLEANERS, DESCRIBERS):
        # No node begins before the one before has been activated.
        order = [event for event in deliveries(done) if event.split()[0] in nodes]
        assert order == [f"{node} {event}" for node in nodes for event in ("begins", "ends")]
    assert waves(six) == [([node], "passed") for node in CLEANERS]
    assert waves(six, "describer") == [([node], "passed") for node in DESCRIBERS]
    assert [line.split() for line in done.output.splitlines() if line.startswith("describer  2/3")] == [
        ["describer", "2/3", "jw3-2", "passed"]
    ]


def test_failed_canary_holds_back_its_agent_and_no_other(six: Fleet) -> None:
    six.groups["agents"]["agent_serial"] = [1, "100%"]
    fail(six, "jw2-1")
    done = six.run("deploy", "--forks", "2", environment={"ANSIBLE_CALLBACKS_ENABLED": CALLBACKS})
    assert done.rc == 2, done.output
    assert states(six) == {
        "jw2-1": "failed",
        **dict.fromkeys(CLEANERS[1:], "not_started"),
        **dict.fromkeys(DESCRIBERS, "activated"),
    }
    assert all(is_delivered(six, node) for node in DESCRIBERS)
    # Nothing was asked of the others, neither there nor for them.
    assert not done.worked_on() & set(CLEANERS[1:])
    assert waves(six) == [(["jw2-1"], "failed"), (["jw2-2", "jw2-3"], "not_started")]
    [message] = done.failures("jw2-3")
    assert documented("earlier wave that failed").fullmatch(message)
    assert f"jw2-2, jw2-3: {message}" in done.output
    assert "jw3-2: wave 2 of 2: activating" in done.output


def test_unreachable_canary_holds_back_the_others(six: Fleet) -> None:
    six.hosts["jw2-1"].update(CLOSED)
    done = six.run("deploy", "--limit", "jw2", "--forks", "1")
    assert done.rc != 0
    assert done.unreachable("jw2-1")
    assert states(six) == {
        "jw2-1": "unreachable",
        **dict.fromkeys(CLEANERS[1:], "not_started"),
        **dict.fromkeys(DESCRIBERS, "not_selected"),
    }
    assert waves(six) == [(["jw2-1"], "failed"), (["jw2-2"], "not_started"), (["jw2-3"], "not_started")]
    assert waves(six, "describer") == []


def test_canary_is_chosen_among_the_selected_nodes(six: Fleet) -> None:
    # The first node of the agent has no adapter with the tag, the second is not in the limit.
    six.hosts["jw2-1"]["agent_adapters"] = [row(CLEANER_8B, "8b", 32)]
    six.add_node("jw2", "jw2-4")
    six.groups["agents"]["agent_serial"] = [1, "100%"]
    done = six.deploy("--limit", "jw2:!jw2-2", "--tags", "3b", "--forks", "1")
    assert waves(six) == [(["jw2-3"], "passed"), (["jw2-4"], "passed")]
    assert deliveries(done) == ["jw2-3 begins", "jw2-3 ends", "jw2-4 begins", "jw2-4 ends"]

    # A canary that is up to date lets the others go on.
    (six.served("jw2-4", CLEANER_3B) / "adapter_config.json").unlink()
    done = six.deploy("--limit", "jw2-3:jw2-4", "--tags", "3b")
    assert deliveries(done) == ["jw2-3 begins", "jw2-4 begins", "jw2-4 ends"]
    assert [six.reported(node, CLEANER_3B)["state"] for node in ("jw2-3", "jw2-4")] == ["unchanged", "repaired"]


def test_check_mode_goes_through_the_waves_and_changes_nothing(six: Fleet) -> None:
    six.groups["agents"]["agent_on_failure"] = "back"
    fail(six, "jw2-2")
    done = six.run("deploy", "--limit", "jw2", "--check")
    assert done.rc == 2, done.output
    assert deliveries(done) == ["jw2-1 begins", "jw2-1 ends", "jw2-2 begins"]
    assert not any(six.served(node, CLEANER_3B).exists() for node in CLEANERS)
    table = done.output.rpartition("agent    wave")[2]
    assert [line.split("  ")[-1] for line in table.splitlines()[1:4]] == [
        "passed", "failed (jw2-2)", "not started: wave 2 failed (jw2-2)"
    ]  # fmt: skip


@pytest.mark.parametrize("fault", ["fails", "unreachable"])
def test_nodes_that_were_done_go_back_after_a_failed_wave(six: Fleet, fault: str) -> None:
    six.deploy("--limit", "jw2-1")
    before = contents(six.served("jw2-1", CLEANER_3B))
    six.offer(CLEANER_3B, "adapter_2")
    six.groups["jw2"]["agent_on_failure"] = "back"
    if fault == "fails":
        fail(six, "jw2-2")
    else:
        six.hosts["jw2-2"].update(CLOSED)
    done = six.run("deploy", "--limit", "jw2")
    assert done.rc != 0
    assert contents(six.served("jw2-1", CLEANER_3B)) == before
    assert [states(six)[node] for node in CLEANERS] == [
        "rolled_back", "failed" if fault == "fails" else "unreachable", "not_started"
    ]  # fmt: skip
    assert waves(six) == [(["jw2-1"], "passed"), (["jw2-2"], "failed"), (["jw2-3"], "not_started")]
    assert "passed, rolled back on jw2-1" in done.output
    assert "passed, rolled back on jw2-1" in (six.reports / "MANIFEST.md").read_text(encoding="utf-8")


def test_node_that_was_delivered_for_the_first_time_stays_after_a_failure(six: Fleet) -> None:
    six.groups["agents"].update(agent_serial="100%", agent_on_failure="back")
    fail(six, "jw2-2")
    done = six.run("deploy", "--limit", "jw2-1:jw2-2")
    assert done.rc == 2, done.output
    assert states(six)["jw2-1"] == "activated"
    assert is_delivered(six, "jw2-1")


LEAVING = """
- ansible.builtin.import_playbook: lorafleet.delivery.check_inventory
  vars: {check_inventory_training: true, check_inventory_rollout: true}
- hosts: agents
  gather_facts: false
  strategy: ansible.builtin.host_pinned
  tasks:
    - ansible.builtin.meta: end_host
      when: inventory_hostname == 'jw2-1'
    - ansible.builtin.import_role: {name: lorafleet.delivery.agent}
      vars: {__agent_turn: 1}
- hosts: agents
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: lorafleet.delivery.agent, tasks_from: later_turns, rolespec_validate: false}
"""


def test_canary_that_leaves_without_a_failure_holds_back_the_others(six: Fleet) -> None:
    (six.root / "leaving.yml").write_text(LEAVING, encoding="utf-8")
    inventory = ("-i", str(six.write_inventory()), "--limit", "jw2")
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".collections")}
    done = Background(str(six.root / "leaving"), *inventory, directory=six.root, environment=environment).wait()
    assert done.rc == 2, done.output
    assert done.worked_on() <= {"localhost", "jw2-1"}
    [message] = done.failures("jw2-2")
    assert message.startswith("wave 2 of cleaner: was not started: wave 1 failed (jw2-1).")


def test_start_at_task_without_the_check_of_the_inventory_does_not_ignore_the_waves(six: Fleet) -> None:
    done = six.run("deploy", "--limit", "jw2", "--start-at-task", "lorafleet.delivery.agent : Select the adapters")
    assert done.rc == 2, done.output
    [message] = done.failures("jw2-1")
    assert documented("waves without the check of the inventory").fullmatch(message)
    # Ansible itself gathers facts then.
    assert deliveries(done) == []
