# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role in playbooks of its users: those that the pages show, and other forms."""

from __future__ import annotations

import collections.abc as c
import json
import os
import pathlib
import re
import textwrap

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.table import client_of

from tests.support.fake_engine import running
from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, Fleet, contents, row, travelling
from tests.support.paths import CHECKOUT
from tests.support.playbooks import Background, Run

PAGES = [CHECKOUT / "docs" / name for name in ("playbooks.md", "ansible.md", "serving.md")]


def example(name: str) -> str:
    """A playbook of the pages, whose first line names it."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    [found] = re.findall(rf"^```yaml\n# {name}\b.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(found)


def run(
    fleet: Fleet,
    text: str,
    *arguments: str,
    inventory: pathlib.Path | None = None,
    files: c.Mapping[str, str] | None = None,
) -> Run:
    """Run a playbook; the programs that the examples of the page call record their calls."""
    programs = fleet.root / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("balancer", "restart-engine"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {fleet.root}/calls\n', encoding="utf-8")
        program.chmod(0o755)
    for name, content in {"own.yml": text, **(files or {})}.items():
        (fleet.root / name).write_text(textwrap.dedent(content), encoding="utf-8")
    collections = str(CHECKOUT / ".collections")
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "ANSIBLE_COLLECTIONS_PATH": collections}
    (fleet.root / "calls").unlink(missing_ok=True)
    chosen = ("-i", str(inventory or fleet.write_inventory()))
    return Background(str(fleet.root / "own"), *chosen, *arguments, directory=fleet.root, environment=environment).wait()


def calls(fleet: Fleet) -> list[str]:
    recorded = fleet.root / "calls"
    return recorded.read_text(encoding="utf-8").splitlines() if recorded.exists() else []


def states(fleet: Fleet) -> dict[tuple[str, str, str], str]:
    """The states in the last report, by agent, node and adapter."""
    return {
        (adapter["agent"], node["node"], adapter["name"]): adapter["state"]
        for node in fleet.report()["nodes"]
        for adapter in node["adapters"]
    }


def is_served(fleet: Fleet, node: str, name: str) -> bool:
    return contents(fleet.served(node, name)) == travelling(fleet.source / name)


def test_drain_example_restarts_changed_nodes_and_returns_every_node(fleet: Fleet) -> None:
    done = run(fleet, example("drain.yml"))
    assert done.rc == 0, done.output
    assert calls(fleet) == [
        f"{call} {node}" for node in ("jw2-1", "jw3-1") for call in ("balancer drain", "restart-engine", "balancer return")
    ]
    assert set(states(fleet).values()) == {"activated"}

    # Nothing to do on any node.
    done = run(fleet, example("drain.yml"))
    assert done.rc == 0, done.output
    assert calls(fleet) == [f"balancer {call} {node}" for node in ("jw2-1", "jw3-1") for call in ("drain", "return")]
    assert set(states(fleet).values()) == {"unchanged"}

    # A node that fails returns with its old releases, and ends the run.
    (fleet.source / CLEANER_3B / "adapter_config.json").unlink()
    done = run(fleet, example("drain.yml"))
    assert done.rc == 2, done.output
    assert calls(fleet) == ["balancer drain jw2-1", "balancer return jw2-1"]
    assert states(fleet)["describer", "jw3-1", DESCRIBER_3B] == "not_reached"


def test_gateway_example_leads_names_to_the_releases_that_are_served(fleet: Fleet) -> None:
    with running.running("vllm", fleet.tiny / "base", "0.32.0") as engine:
        declared = {"name": "vllm", "url": engine.url, "drain_timeout": 0, "public_name": "none"}
        fleet.groups["jw3"]["agent_engine"] = declared
        routes, limit = fleet.root / "routes.json", ("--limit", "jw3")
        text = example("gateway.yml")
        for shown, path in {
            "/home/models": fleet.served("jw3-1", DESCRIBER_3B).parent,
            "/home/.lorafleet": fleet.stored("jw3-1", DESCRIBER_3B).parent,
            "/etc/gateway/routes.json": routes,
        }.items():
            assert shown in text
            text = text.replace(shown, str(path))
        served: list[str] = []
        for kind in ("", "adapter"):
            fleet.offer(DESCRIBER_3B, kind)
            done = fleet.deploy(*limit)
            release = done.adapters("jw3-1", "adapter_release")[DESCRIBER_3B]["release"]
            done = run(fleet, text, *limit)
            assert done.rc == 0, done.output
            [name] = json.loads(routes.read_text(encoding="utf-8"))[DESCRIBER_3B]
            assert name == f"{DESCRIBER_3B}@{release}"
            [one] = declared_engines(declared, "engines")
            served.append(name)
            # The release before stays until the gateway has followed.
            assert sorted(row.name for row in client_of(one).listed()) == sorted(served)


def test_canary_example_delivers_to_nobody_else_after_a_failed_canary(fleet: Fleet) -> None:
    # For the collection's own playbook.
    fleet.groups["agents"]["agent_serial"] = 1
    weights = fleet.source / CLEANER_3B / "adapter_model.safetensors"
    intact = weights.read_bytes()
    weights.write_bytes(intact[:-1])
    done = run(fleet, example("canary.yml"))
    assert done.rc == 2, done.output
    assert not fleet.served("jw3-1", DESCRIBER_3B).exists()

    weights.write_bytes(intact)
    done = run(fleet, example("canary.yml"))
    assert done.rc == 0, done.output
    assert is_served(fleet, "jw2-1", CLEANER_3B)
    assert is_served(fleet, "jw3-1", DESCRIBER_3B)


def in_own_groups(fleet: Fleet) -> pathlib.Path:
    """An inventory with groups of other names, and with variables of its own in place of ours."""
    hosts = {node: fleet.hosts[node] for node in ("jw2-1", "jw3-1")}
    agents = {
        "cleaner": [row(CLEANER_3B, "3b", 16), row(CLEANER_8B, "8b", 32)],
        "describer": [row(DESCRIBER_3B, "3b", 16)],
    }
    children = {
        "trainers": {"hosts": {"trainer": fleet.groups["training"]}},
        "gpu_servers": {"hosts": hosts, "vars": {**fleet.groups["agents"], "served_agents": agents}},
    }
    path = fleet.root / "own_groups.yml"
    path.write_text(json.dumps({"all": {"vars": fleet.groups["all"], "children": children}}), encoding="utf-8")
    return path


# Session ``cores`` leaves out what is marked as slow.
@pytest.mark.parametrize(
    "strategy", ["free", *(pytest.param(name, marks=pytest.mark.slow) for name in ("linear", "host_pinned"))]
)
def test_loop_example_delivers_and_reports_every_agent_of_each_node(fleet: Fleet, strategy: str) -> None:
    text = example("each_agent.yml").replace("gather_facts:", f"strategy: {strategy}\n  gather_facts:")
    done = run(fleet, text, inventory=in_own_groups(fleet))
    assert done.rc == 0, done.output
    expected = [("cleaner", CLEANER_3B), ("cleaner", CLEANER_8B), ("describer", DESCRIBER_3B)]
    for node in ("jw2-1", "jw3-1"):
        assert [name for _agent, name in expected if not is_served(fleet, node, name)] == []
    assert states(fleet) == {(agent, node, name): "activated" for node in ("jw2-1", "jw3-1") for agent, name in expected}


def test_rescue_and_always_around_the_role_run_and_the_other_agent_is_delivered(fleet: Fleet) -> None:
    (fleet.source / CLEANER_3B / "adapter_config.json").unlink()
    done = run(
        fleet,
        """
        - hosts: gpu_servers
          gather_facts: false
          strategy: free
          tasks:
            - ansible.builtin.include_tasks: deliver.yml
              loop: [cleaner, describer]
              loop_control: {loop_var: agent_name}
        """,
        inventory=in_own_groups(fleet),
        files={
            "deliver.yml": """
            - block:
                - ansible.builtin.include_role: {name: lorafleet.delivery.agent}
                  vars: {agent_adapters: "{{ served_agents[agent_name] }}", agent_training_host: trainer}
              rescue:
                - ansible.builtin.command: balancer rescue {{ agent_name }} {{ inventory_hostname }}
              always:
                - ansible.builtin.command: balancer return {{ agent_name }} {{ inventory_hostname }}
            """
        },
    )
    assert done.rc == 0, done.output
    nodes, agents = ("jw2-1", "jw3-1"), ("cleaner", "describer")
    expected = [f"balancer rescue cleaner {node}" for node in nodes]
    expected += [f"balancer return {agent} {node}" for node in nodes for agent in agents]
    assert sorted(calls(fleet)) == sorted(expected)
    for node in nodes:
        assert states(fleet)["cleaner", node, CLEANER_3B] == "failed"
        assert states(fleet)["describer", node, DESCRIBER_3B] == "activated"


ROLES = """
- hosts: gpu_servers
  gather_facts: false
  strategy: free
  serial: 1
  vars:
    agent_name: cleaner
    agent_adapters: "{{ served_agents.cleaner }}"
    agent_training_host: trainer
  pre_tasks:
    - ansible.builtin.command: balancer before {{ inventory_hostname }}
      notify: Handler of the play
      tags: [always]
  roles:
    - role: lorafleet.delivery.agent
      tags: [deliver, always]
  post_tasks:
    - ansible.builtin.command: balancer after {{ inventory_hostname }}
      tags: [always]
  handlers:
    - name: Handler of the play
      ansible.builtin.command: balancer handler {{ inventory_hostname }}
"""


def test_role_with_tags_of_the_playbook_keeps_what_surrounds_it(fleet: Fleet) -> None:
    inventory = in_own_groups(fleet)
    nodes = ("jw2-1", "jw3-1")
    around = [f"balancer {call} {node}" for node in nodes for call in ("before", "handler", "after")]

    # A variant that the role is not given: nothing to deliver, and an error rather than success.
    done = run(fleet, ROLES, "--tags", "70b", "--force-handlers", inventory=inventory)
    assert done.rc == 2, done.output
    assert "tag 70b" in done.output
    assert calls(fleet) == [f"balancer {call} {nodes[0]}" for call in ("before", "handler")]

    done = run(fleet, ROLES, "--tags", "8b", inventory=inventory)
    assert done.rc == 0, done.output
    assert [is_served(fleet, node, CLEANER_8B) for node in nodes] == [True, True]
    assert not any(fleet.served(node, CLEANER_3B).exists() for node in nodes)
    assert calls(fleet) == around

    # The role's own tag selects no adapters.
    done = run(fleet, ROLES, "--tags", "deliver", inventory=inventory)
    assert done.rc == 0, done.output
    assert [is_served(fleet, node, CLEANER_3B) for node in nodes] == [True, True]

    # A tag of another part of the playbook.
    other = ("-e", '{"agent_other_tags": ["web"]}')
    done = run(fleet, ROLES, "--tags", "web", *other, inventory=inventory)
    assert done.rc == 0, done.output
    assert calls(fleet) == around
    assert not any(entry["action"].endswith("adapter_info") for entry in done.results)


DEPLOY = "- ansible.builtin.import_playbook: lorafleet.delivery.deploy\n"


def test_groups_made_by_the_playbook_are_accepted(fleet: Fleet) -> None:
    fleet.groups["agents"]["site"] = "berlin"
    grouping = "- hosts: agents\n  gather_facts: false\n  tasks: [{ansible.builtin.group_by: {key: '{{ site }}'}}]\n"
    done = run(fleet, grouping + DEPLOY)
    assert done.rc == 0, done.output
    assert set(states(fleet).values()) == {"activated"}


def test_hosts_added_during_the_run_are_checked(fleet: Fleet) -> None:
    check = "- ansible.builtin.import_playbook: lorafleet.delivery.check_inventory\n"
    added = {"name": "jw4-1", "groups": ["agents", "rented"], "agent_adapters": []}
    adding = f"- hosts: localhost\n  gather_facts: false\n  tasks: [{{ansible.builtin.add_host: {json.dumps(added)}}}]\n"
    done = run(fleet, check + adding + check)
    assert done.rc == 2, done.output
    assert "jw4-1), agent_adapters: declares no adapters." in done.output


def test_variables_of_import_playbook_are_checked_and_used(fleet: Fleet) -> None:
    fleet.members.pop("jw3")
    rows = fleet.groups.pop("jw2")["agent_adapters"]
    given = {"site_rows": rows, "agent_name": "cleaner", "agent_adapters": "{{ site_rows }}"}
    done = run(fleet, f"{DEPLOY}  vars: {json.dumps(given)}\n")
    assert done.rc == 0, done.output
    assert states(fleet) == {("cleaner", "jw2-1", name): "activated" for name in (CLEANER_3B, CLEANER_8B)}

    done = run(fleet, f"{DEPLOY}  vars: {json.dumps({**given, 'agent_modelsdir': '/srv'})}\n")
    assert done.rc == 2, done.output
    assert done.worked_on() == set()
    assert "agent_modelsdir: is not a variable of the roles, but agent_models_dir is." in done.output


def test_waves_that_the_playbook_sets_hold_back_their_agent(fleet: Fleet) -> None:
    fleet.add_node("jw2", "jw2-2")
    fleet.before_module("jw2-1", "adapter_up_to_date_info", "exit 1")
    done = run(fleet, f"{DEPLOY}  vars: {{agent_serial: {{cleaner: 1, describer: '100%'}}}}\n")
    assert done.rc == 2, done.output
    found = {(node, state) for (_agent, node, _name), state in states(fleet).items()}
    assert found == {("jw2-1", "failed"), ("jw2-2", "not_started"), ("jw3-1", "activated")}
    assert "wave 2 of cleaner: was not started: wave 1 failed (jw2-1)." in done.output


def test_tag_of_adapters_that_depend_on_facts_selects_them(fleet: Fleet) -> None:
    rows = fleet.groups["jw2"]["agent_adapters"]
    fleet.groups["jw2"].update(site_rows=rows, agent_adapters="{{ site_rows if ansible_facts.system == 'Linux' else [] }}")
    text = """
    - ansible.builtin.import_playbook: lorafleet.delivery.check_inventory
    - hosts: agents
      gather_facts: true
      tags: [always]
      roles: [lorafleet.delivery.agent]
    """
    done = run(fleet, text, "--tags", "8b")
    assert done.rc == 0, done.output
    assert [key for key, state in states(fleet).items() if state == "activated"] == [("cleaner", "jw2-1", CLEANER_8B)]


def test_tag_of_another_play_beside_an_imported_playbook_delivers_nothing(fleet: Fleet) -> None:
    text = f"""{DEPLOY}  vars: {{agent_other_tags: [web]}}
- hosts: localhost
  gather_facts: false
  tags: [web]
  tasks: [{{ansible.builtin.command: balancer web}}]
"""
    done = run(fleet, text, "--tags", "web")
    assert done.rc == 0, done.output
    assert calls(fleet) == ["balancer web"]
    assert not fleet.served("jw2-1", CLEANER_3B).exists()

    done = run(fleet, text, "--tags", "wbe")
    assert done.rc == 2, done.output
    assert calls(fleet) == []
