# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ansible-core does where the roles and docs/ansible.md rely on it, without the collection.

Session ``cores`` runs these tests with the oldest and the newest supported ansible-core.
"""

from __future__ import annotations

import collections.abc as c
import pathlib
import textwrap

import pytest
from ansible.release import __version__

from tests.support.fleet import NODE_PYTHON
from tests.support.playbooks import Background, Run

HOSTS = ["h1", "h2", "h3", "h4"]

Play = c.Callable[..., Run]


@pytest.fixture
def play(tmp_path: pathlib.Path) -> Play:
    """Run the plays of a text on four local hosts; ``closed`` is a host that nobody can reach."""
    local = f"ansible_connection=local ansible_python_interpreter={NODE_PYTHON}"
    hosts = "\n".join(f"{host} {local}" for host in HOSTS)
    # Port 1 of the loopback interface is closed.
    closed = "closed ansible_host=127.0.0.1 ansible_port=1 ansible_connection=ssh"
    (tmp_path / "hosts").write_text(f"[nodes]\n{hosts}\n\n[source]\n{closed}\n", encoding="utf-8")

    def run(text: str, *arguments: str, callbacks: str = "fleet_record") -> Run:
        (tmp_path / "plays.yml").write_text(textwrap.dedent(text), encoding="utf-8")
        inventory = ("-i", str(tmp_path / "hosts"))
        environment = {"ANSIBLE_CALLBACKS_ENABLED": callbacks}
        return Background(str(tmp_path / "plays"), *inventory, *arguments, directory=tmp_path, environment=environment).wait()

    return run


@pytest.fixture
def role(tmp_path: pathlib.Path) -> c.Callable[[str], None]:
    """Write the tasks of a role named ``part``."""

    def write(tasks: str) -> None:
        (tmp_path / "roles" / "part" / "tasks").mkdir(parents=True)
        (tmp_path / "roles" / "part" / "tasks" / "main.yml").write_text(textwrap.dedent(tasks), encoding="utf-8")

    return write


def ran(done: Run, task: str) -> list[str]:
    """The hosts on which a task ran to its end, sorted."""
    return sorted(entry["host"] for entry in done.results if entry["task"].split(" : ")[-1] == task)


WAVES = """
    - hosts: nodes
      gather_facts: false
      strategy: {strategy}
      serial: 2
      {option}
      tasks:
        - name: Deliver
          ansible.builtin.assert:
            that: inventory_hostname != 'h1'
            quiet: true
"""


@pytest.mark.parametrize(
    ("strategy", "option", "second_wave"),
    [
        ("linear", "", True),
        ("linear", "max_fail_percentage: 0", False),
        ("linear", "any_errors_fatal: true", False),
        ("free", "", True),
        # Both are accepted with a warning and do nothing.
        ("free", "max_fail_percentage: 0", True),
        ("free", "any_errors_fatal: true", True),
        ("host_pinned", "max_fail_percentage: 0", True),
        ("host_pinned", "any_errors_fatal: true", True),
    ],
)
def test_failed_host_stops_later_waves_only_under_linear(play: Play, strategy: str, option: str, second_wave: bool) -> None:
    done = play(WAVES.format(strategy=strategy, option=option))
    assert done.rc == 2, done.output
    assert ("h3" in ran(done, "Deliver")) is second_wave


@pytest.mark.parametrize("strategy", ["linear", "free"])
def test_wave_in_which_every_host_failed_is_the_last(play: Play, strategy: str) -> None:
    done = play(
        f"""
        - hosts: nodes
          gather_facts: false
          strategy: {strategy}
          serial: [1, "100%"]
          tasks:
            - name: Deliver
              ansible.builtin.assert:
                that: inventory_hostname != 'h1'
                quiet: true
        - hosts: nodes
          gather_facts: false
          tasks:
            - name: Later play
              ansible.builtin.ping:
        """
    )
    assert done.rc == 2, done.output
    assert ran(done, "Deliver") == ["h1"]
    assert ran(done, "Later play") == []


def test_included_waves_follow_one_another_under_linear(play: Play, tmp_path: pathlib.Path) -> None:
    wave = """
    - when: inventory_hostname in [[], ['h1', 'h2'], ['h3'], ['h4']][wave]
      block:
        - name: Begin
          ansible.builtin.ping:
        - name: Deliver
          ansible.builtin.assert:
            that: inventory_hostname != 'h3'
            quiet: true
    """
    (tmp_path / "wave.yml").write_text(textwrap.dedent(wave), encoding="utf-8")
    done = play(
        """
        - hosts: nodes
          gather_facts: false
          tasks:
            - ansible.builtin.include_tasks: wave.yml
              loop: [1, 2, 3]
              loop_control: {loop_var: wave}
            - name: Return
              ansible.builtin.ping:
        """,
        "--forks",
        "1",
    )
    assert done.rc == 2, done.output
    tasks = ("Begin", "Deliver", "Return")
    assert [(entry["task"], entry["host"]) for entry in done.results if entry["task"] in tasks] == [
        ("Begin", "h1"), ("Begin", "h2"), ("Deliver", "h1"), ("Deliver", "h2"),
        # A host that fails ends neither the waves of others nor what follows them.
        ("Begin", "h3"), ("Deliver", "h3"), ("Begin", "h4"), ("Deliver", "h4"),
        ("Return", "h1"), ("Return", "h2"), ("Return", "h4"),
    ]  # fmt: skip


@pytest.mark.parametrize("strategy", ["linear", "host_pinned"])
def test_end_role_of_several_hosts_ends_them_all_but_not_under_linear_of_the_oldest_core(
    play: Play, role: c.Callable[[str], None], strategy: str
) -> None:
    role(
        """
        - ansible.builtin.meta: end_role
        - name: Deliver
          ansible.builtin.ping:
        """
    )
    done = play(f"[{{hosts: nodes, gather_facts: false, strategy: {strategy}, roles: [part]}}]")
    assert done.rc == 0, done.output
    assert ran(done, "Deliver") == (HOSTS[1:] if (__version__, strategy) == ("2.18.0", "linear") else [])


def test_end_play_asks_the_first_host_only(play: Play) -> None:
    text = """
        - hosts: nodes
          gather_facts: false
          tasks:
            - ansible.builtin.meta: end_play
              when: inventory_hostname == '{}'
            - name: Deliver
              ansible.builtin.ping:
    """
    assert ran(play(text.format("h1")), "Deliver") == []
    assert ran(play(text.format("h2")), "Deliver") == HOSTS


def test_canary_that_leaves_the_role_counts_as_passed(play: Play, role: c.Callable[[str], None]) -> None:
    role(
        """
        - ansible.builtin.meta: end_role
          when: inventory_hostname == 'h1'
        - name: Deliver
          ansible.builtin.ping:
        """
    )
    done = play(
        """
        - hosts: nodes
          gather_facts: false
          serial: [1, "100%"]
          roles: [part]
        """
    )
    assert done.rc == 0, done.output
    assert ran(done, "Deliver") == ["h2", "h3", "h4"]


def test_end_role_ends_one_iteration_and_keeps_what_follows(play: Play, role: c.Callable[[str], None]) -> None:
    role(
        """
        - name: Enter
          ansible.builtin.command: "true"
          changed_when: true
        - ansible.builtin.meta: end_role
          when: inventory_hostname == 'h1' and part == 'a'
        - name: Deliver
          ansible.builtin.ping:
        """
    )
    done = play(
        """
        - hosts: h1
          gather_facts: false
          strategy: free
          tasks:
            - notify: Reload
              block:
                - ansible.builtin.include_role: {name: part, apply: {notify: Reload}}
                  loop: [a, b]
                  loop_control: {loop_var: part}
              always:
                - name: Clean up
                  ansible.builtin.ping:
          post_tasks:
            - name: Return
              ansible.builtin.ping:
          handlers:
            - name: Reload
              ansible.builtin.ping:
        """
    )
    assert done.rc == 0, done.output
    assert ran(done, "Enter") == ["h1", "h1"]
    assert ran(done, "Deliver") == ["h1"]
    assert ran(done, "Clean up") == ["h1"]
    assert ran(done, "Return") == ["h1"]
    assert ran(done, "Reload") == ["h1"]


def test_notify_of_a_block_applies_to_the_tasks_of_an_imported_role(play: Play, role: c.Callable[[str], None]) -> None:
    role(
        """
        - name: Activate
          ansible.builtin.command: "true"
          changed_when: inventory_hostname == 'h1'
        """
    )
    done = play(
        """
        - hosts: nodes
          gather_facts: false
          tasks:
            - notify: Reload
              block:
                - ansible.builtin.import_role: {name: part}
          handlers:
            - name: Reload
              ansible.builtin.ping:
        """
    )
    assert ran(done, "Reload") == ["h1"]


def test_unreachable_delegate_ends_its_node_for_the_whole_run(play: Play) -> None:
    done = play(
        """
        - hosts: h1:h2
          gather_facts: false
          strategy: free
          tasks:
            - block:
                - name: Ask the source
                  ansible.builtin.ping:
                  delegate_to: closed
                  when: inventory_hostname == 'h1'
              rescue:
                - name: Rescue
                  ansible.builtin.ping:
              always:
                - name: Clean up
                  ansible.builtin.ping:
        - hosts: h1:h2
          gather_facts: false
          tasks:
            - name: Later play
              ansible.builtin.ping:
        """
    )
    assert done.rc == 4, done.output
    assert done.unreachable("h1")
    assert ran(done, "Rescue") == []
    assert "h1" not in ran(done, "Clean up")
    assert ran(done, "Later play") == ["h2"]


def test_item_of_loop_knows_where_it_was_delegated_when_the_loop_does_not(play: Play, tmp_path: pathlib.Path) -> None:
    done = play(
        """
        - hosts: h1
          gather_facts: false
          tasks:
            - name: Ask several sources
              ansible.builtin.ping:
              delegate_to: "{{ item }}"
              loop: [h2, closed]
        """,
        callbacks="fleet_record,failed_targets",
    )
    assert done.rc != 0
    targets = (tmp_path / "record.targets").read_text(encoding="utf-8").splitlines()
    assert targets == ["item closed", "loop {{ item }}"]


def test_delegate_outside_the_limit_keeps_its_variables(play: Play) -> None:
    done = play(
        """
        - hosts: nodes
          gather_facts: false
          tasks:
            - name: Ask the source
              ansible.builtin.assert:
                that:
                  - hostvars['closed'].ansible_port == 1
                  - groups['source'] == ['closed']
                  - ansible_play_hosts_all == ['h2']
            - name: Ask another node
              ansible.builtin.ping:
              delegate_to: h1
        """,
        "--limit",
        "h2",
    )
    assert done.rc == 0, done.output
    assert ran(done, "Ask another node") == ["h2"]


@pytest.mark.parametrize(("strategy", "hosts"), [("linear", ["h1"]), ("free", HOSTS), ("host_pinned", HOSTS)])
def test_run_once_holds_under_linear_only(play: Play, strategy: str, hosts: list[str]) -> None:
    done = play(
        f"""
        - hosts: nodes
          gather_facts: false
          strategy: {strategy}
          tasks:
            - name: Announce
              ansible.builtin.ping:
              run_once: true
        """
    )
    assert ran(done, "Announce") == hosts


@pytest.mark.parametrize("strategy", ["linear", "free", "host_pinned"])
def test_force_handlers_runs_them_on_failed_hosts(play: Play, strategy: str) -> None:
    done = play(
        f"""
        - hosts: h1:h2
          gather_facts: false
          strategy: {strategy}
          tasks:
            - name: Change
              ansible.builtin.command: "true"
              changed_when: true
              notify: Reload
            - name: Deliver
              ansible.builtin.assert:
                that: inventory_hostname != 'h1'
                quiet: true
          handlers:
            - name: Reload
              ansible.builtin.ping:
        """,
        "--force-handlers",
    )
    assert done.rc == 2, done.output
    assert ran(done, "Reload") == ["h1", "h2"]
