# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A playbook ends before the first contact if the inventory, the tags or the limit are wrong."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import json
import typing as t

import pytest
import yaml

from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, Fleet
from tests.support.paths import CHECKOUT
from tests.support.playbooks import Background, Run, Variables
from tests.support.troubleshooting import documented

# Changes the groups below ``all`` of an inventory.
Change = t.Callable[[Variables], t.Any]


def run(
    fleet: Fleet,
    playbook: str,
    *arguments: str,
    change: Change = lambda _groups: None,
    environment: c.Mapping[str, str] | None = None,
) -> Run:
    """Run a playbook on the fleet's inventory, whose groups below ``all`` are changed first."""
    inventory = json.loads(fleet.write_inventory().read_text(encoding="utf-8"))
    change(inventory["all"]["children"])
    path = fleet.root / "changed.yml"
    path.write_text(json.dumps(inventory), encoding="utf-8")
    return Background(playbook, "-i", str(path), *arguments, directory=fleet.root, environment=environment).wait()


def failure(done: Run) -> str:
    """The message of a run that failed before the first contact."""
    assert done.rc == 2, done.output
    [entry] = done.results
    assert entry["action"].endswith("fleet_info")
    assert entry["result"]["problems"]
    return str(entry["result"]["msg"])


def rename(old: str, new: str) -> Change:
    def change(groups: Variables) -> None:
        groups[new] = groups.pop(old)

    return change


def group(name: str, **variables: t.Any) -> Change:
    return lambda groups: groups["agents"]["children"][name]["vars"].update(variables)


def add_row(**keys: t.Any) -> Change:
    """Add a row for an adapter that the node jw2-1 already has."""

    def change(groups: Variables) -> None:
        rows = groups["agents"]["children"]["jw2"]["vars"]["agent_adapters"]
        rows.append({**rows[0], **keys})

    return change


def first_row(**keys: t.Any) -> Change:
    return lambda groups: groups["agents"]["children"]["jw2"]["vars"]["agent_adapters"][0].update(keys)


def of_node(**variables: t.Any) -> Change:
    return lambda groups: groups["agents"]["children"]["jw2"]["hosts"]["jw2-1"].update(variables)


@dataclasses.dataclass(frozen=True)
class Mistake:
    change: Change = lambda _groups: None
    arguments: tuple[str, ...] = ()
    playbook: str = "deploy"


BOTH: Variables = {"jw2-1": {}}

# The keys are the rows of docs/troubleshooting.md.
MISTAKES = {
    "no group agents": Mistake(rename("agents", "serving")),
    "group agents misspelt": Mistake(rename("agents", "Agent")),
    "no group training": Mistake(rename("training", "trainers")),
    "no adapters": Mistake(group("jw2", agent_adapters=[])),
    "row without its agent": Mistake(lambda groups: groups["agents"]["children"]["jw2"]["vars"].pop("agent_name")),
    "row twice": Mistake(add_row()),
    "one name for two adapters": Mistake(add_row(rank=8, agent="describer")),
    "two defaults": Mistake(lambda groups: groups["agents"]["children"]["jw2"]["vars"]["agent_adapters"][1].update(default=True)),
    "unknown key": Mistake(first_row(rnk=16)),
    "name with a slash": Mistake(first_row(name="grammar/lora")),
    "misspelt variable": Mistake(of_node(agent_modelsdir="/srv/models")),
    "value of the wrong type": Mistake(lambda groups: groups["agents"]["vars"].update(agent_keep="many")),
    "unknown engine": Mistake(group("jw2", agent_engine="opnvino")),
    "engine without a name": Mistake(group("jw2", agent_engine={"max_lora_rank": 64})),
    "unknown setting of an engine": Mistake(group("jw2", agent_engine=["llama.cpp", {"name": "vllm", "max_lora_rnk": 64}])),
    "setting of an engine with the wrong type": Mistake(group("jw2", agent_engine={"name": "vllm", "max_lora_rank": "many"})),
    "version of an engine without quotes": Mistake(group("jw2", agent_engine={"name": "vllm", "version": 0.32})),
    "engine that only restarts without a command": Mistake(
        group("jw2", agent_engine={"name": "lmdeploy", "url": "http://127.0.0.1:23333"})
    ),
    "llama-server without a converter": Mistake(
        group("jw2", agent_engine={"name": "llama.cpp", "url": "http://127.0.0.1:8080", "restart": "llama.service"})
    ),
    "policy that does not exist": Mistake(group("jw2", agent_engine_policy="warn")),
    "waves of no nodes": Mistake(group("jw2", agent_serial="0%")),
    "waves for no agent": Mistake(group("jw2", agent_serial={"cleanr": 1})),
    "waves that depend on facts": Mistake(group("jw2", agent_serial="{{ ansible_facts.processor_count }}")),
    "nodes of one agent with different waves": Mistake(
        lambda groups: (group("jw2", agent_serial=1)(groups), group("jw3", agent_name="cleaner")(groups))
    ),
    "failures that lead nowhere": Mistake(group("jw2", agent_on_failure="return")),
    "prompts for no agent": Mistake(group("jw2", agent_prompts={"cleanr": ["a", "b", "c", "d"]})),
    "no such training server": Mistake(group("jw2", agent_training_host="sbs99")),
    "host in the groups of two agents": Mistake(lambda groups: groups["agents"]["children"]["jw3"]["hosts"].update(BOTH)),
    "unknown tag": Mistake(arguments=("--tags", "cleanr")),
    "tags for the playbook runtime": Mistake(arguments=("--tags", "cleaner"), playbook="runtime"),
    "limit without nodes": Mistake(arguments=("--limit", "sbs29")),
    "tags and limit without adapters": Mistake(arguments=("--limit", "jw3", "--tags", "8b")),
}


@pytest.mark.parametrize("cause", MISTAKES)
def test_run_with_mistake_contacts_no_host(fleet: Fleet, cause: str) -> None:
    mistake = MISTAKES[cause]
    message = failure(run(fleet, mistake.playbook, *mistake.arguments, change=mistake.change))
    assert documented(cause).fullmatch(message), message


def test_deploy_with_several_mistakes_names_all_of_them(fleet: Fleet) -> None:
    def change(groups: Variables) -> None:
        for cause in ("no adapters", "misspelt variable", "value of the wrong type", "no group training"):
            MISTAKES[cause].change(groups)

    message = failure(run(fleet, "deploy", "--tags", "cleanr", change=change))
    for part in ("declares no adapters.", "agent_modelsdir", "agent_keep", "group training", "tag cleanr"):
        assert part in message


@pytest.mark.parametrize("playbook", sorted({path.stem for path in (CHECKOUT / "playbooks").glob("*.yml")} - {"deploy"}))
def test_playbook_with_mistake_contacts_no_host(fleet: Fleet, playbook: str) -> None:
    assert "declares no adapters." in failure(run(fleet, playbook, change=group("jw2", agent_adapters=[])))


def test_host_in_child_group_of_another_agent_is_refused_with_form_filled_in(fleet: Fleet) -> None:
    def change(groups: Variables) -> None:
        agents = groups["agents"]["children"]
        agents["jw2"]["children"] = {"jw3": agents.pop("jw3")}

    message = failure(run(fleet, "deploy", change=change))
    problem = "host jw3-1: is in groups that declare different adapters (jw2 declares cleaner; jw3 declares describer)."
    assert message.startswith(problem)
    form = yaml.safe_load(message.partition("host_vars/jw3-1.yml:\n")[2])
    rows = [(row["agent"], row["name"]) for row in form["agent_adapters"]]
    assert rows == [("cleaner", CLEANER_3B), ("cleaner", CLEANER_8B), ("describer", DESCRIBER_3B)]
    # The form is right.
    fleet.hosts["jw3-1"].update(form)
    done = run(fleet, "check_inventory", change=change)
    assert done.rc == 0, done.output
    [node] = [node for node in done.results[0]["result"]["nodes"] if node["name"] == "jw3-1"]
    assert node["agents"] == ["cleaner", "describer"]


def test_values_that_depend_on_facts_are_left_to_the_role(fleet: Fleet) -> None:
    fleet.groups["jw2"]["agent_adapters"] = "{{ ansible_facts['adapters'] }}"
    fleet.groups["agents"]["agent_keep"] = "{{ later.keep }}"
    done = run(fleet, "check_inventory", "--tags", "unknown-until-then")
    assert done.rc == 0, done.output
    # What looks like a fact may be a misspelt variable.
    assert "jw2-1, agent_adapters: cannot be evaluated yet, so only role agent checks it: " in " ".join(done.output.split())


def test_own_variables_are_exempt(fleet: Fleet) -> None:
    fleet.groups["agents"].update(agent_modelsdir="/srv", agent_port=8000, lorafleet_own_variables=["agent_modelsdir"])
    assert run(fleet, "check_inventory").rc == 0


@pytest.mark.parametrize(
    "arguments", [(), ("--limit", "jw2"), ("--limit", "!jw3"), ("--check",), ("--become", "--limit", "sbs29,jw2-1")]
)
def test_check_inventory_contacts_no_host(fleet: Fleet, arguments: tuple[str, ...]) -> None:
    """Whatever the configuration: these settings would end in a contact, or in no check at all."""
    names = ("host", "user", "port", "password", "become_password")
    fleet.groups["all"].update(
        {f"ansible_{name}": "{{ of_nodes[inventory_hostname] }}" for name in names}, ansible_connection="ssh"
    )
    environment = {"ANSIBLE_STRATEGY": "free", "ANSIBLE_BECOME": "true", "ANSIBLE_GATHERING": "implicit"}
    done = run(fleet, "check_inventory", *arguments, environment=environment)
    assert done.rc == 0, done.output
    [entry] = done.results
    assert entry["action"].endswith("fleet_info")
    assert {node["name"]: [row["selected"] for row in node["rows"]] for node in entry["result"]["nodes"]} == {
        "jw2-1": [True, True],
        "jw3-1": [not arguments or "--check" in arguments],
    }


def test_empty_inventory_is_refused(fleet: Fleet) -> None:
    path = fleet.root / "empty.yml"
    path.write_text("{}", encoding="utf-8")
    done = Background("deploy", "-i", str(path), directory=fleet.root).wait()
    assert failure(done).startswith("group agents: does not exist. Name another inventory with -i, or add the group:")


def play_of_own(fleet: Fleet) -> str:
    """A playbook with role agent for jw2, without our own check of the inventory."""
    task = {"name": "Deliver", "ansible.builtin.import_role": {"name": "lorafleet.delivery.agent"}}
    (fleet.root / "own.yml").write_text(json.dumps([{"hosts": "jw2", "gather_facts": False, "tasks": [task]}]), encoding="utf-8")
    return str(fleet.root / "own")


@pytest.mark.parametrize("host", ["", "sbs99"])
def test_role_without_training_server_is_refused(fleet: Fleet, host: str) -> None:
    done = run(fleet, play_of_own(fleet), change=group("jw2", agent_training_host=host))
    assert done.worked_on() == set()
    assert done.failures("jw2-1") == [
        f"jw2-1, agent_training_host: is {host!r}, which is not a host in the inventory."
        " Set it to the training server's name there, or put that host into the group training."
    ]


def test_role_with_wrong_rows_is_refused(fleet: Fleet) -> None:
    done = run(fleet, play_of_own(fleet), change=add_row())
    assert done.worked_on() == set()
    [message] = done.failures("jw2-1")
    assert message.endswith("jw2-1, agent_adapters: is declared twice for agent cleaner. Rows 1 and 3: remove one of the two.")


def test_training_server_without_training_models_dir_uses_that_of_nodes(fleet: Fleet) -> None:
    models = fleet.groups["training"].pop("training_models_dir")
    fleet.hosts["jw2-1"]["agent_models_dir"] = models
    done = run(fleet, "describe", "--tags", "cleaner")
    assert done.rc == 0, done.output
    manifests = [json.loads(text) for text in done.of("sbs29", "adapter_info")["manifests"]]
    assert {manifest["name"] for manifest in manifests} == {CLEANER_3B, CLEANER_8B}


def test_variables_beside_a_playbook_that_imports_ours_are_named(fleet: Fleet) -> None:
    site = fleet.root / "site"
    (site / "group_vars").mkdir(parents=True)
    (site / "group_vars" / "jw2.yml").write_text(json.dumps(fleet.groups.pop("jw2")), encoding="utf-8")
    imported = str(CHECKOUT / "playbooks" / "check_inventory.yml")
    (site / "site.yml").write_text(json.dumps([{"import_playbook": imported}]), encoding="utf-8")
    message = failure(run(fleet, str(site / "site")))
    assert "group jw2 (jw2-1), agent_adapters: declares no adapters." in message
    assert f"{site / 'group_vars'}: is not read here: " in message
    assert documented("variables beside a playbook that imports another").search(message)
