# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts whose modules answer what their owners like, in whole runs.

Each form and key is tested in tests/unit/plugins/plugin_utils/_contact/test_answers.py.
"""

from __future__ import annotations

import collections.abc as c
import json

import pytest

from tests.support.fleet import CLEANER_3B, DESCRIBER_3B, Fleet, contents, travelling
from tests.support.hostile import add_to_answers, rewrite_answers
from tests.support.playbooks import Run
from tests.support.troubleshooting import documented

Elsewhere = c.Callable[..., Run]
ROLE = "- hosts: agents\n  gather_facts: false\n  roles: [{role: lorafleet.delivery.agent, tags: [always]}]\n"


def is_served(fleet: Fleet, node: str, name: str) -> bool:
    return contents(fleet.served(node, name)) == travelling(fleet.source / name)


def test_facts_of_training_server_change_no_variable_of_a_node(fleet: Fleet, run_elsewhere: Elsewhere) -> None:
    elsewhere = fleet.root / "elsewhere"
    elsewhere.mkdir()
    facts = {
        "agent_models_dir": str(elsewhere),
        "agent_store": str(fleet.root / "store"),
        "agent_adapters": [{"name": "cron.d", "variant": "3b", "base": "x", "rank": 1, "alpha": 1}],
        "agent_file_mode": "0666",
        "agent_python": "/bin/false",
        "ansible_host_key_checking": False,
        "discovered_interpreter_python": "/bin/false",
    }
    add_to_answers(fleet, "sbs29", "adapter_info", ansible_facts=facts, ansible_stats={"data": {"verified": 9}})
    done = run_elsewhere(ROLE)
    assert done.rc == 0, done.output
    assert is_served(fleet, "jw2-1", CLEANER_3B)
    assert is_served(fleet, "jw3-1", DESCRIBER_3B)
    assert list(elsewhere.iterdir()) == []
    [mode] = {path.stat().st_mode & 0o777 for path in fleet.served("jw3-1", DESCRIBER_3B).iterdir()}
    assert mode == 0o644


def test_facts_of_node_do_not_name_another_source(fleet: Fleet, run_elsewhere: Elsewhere) -> None:
    other = fleet.root / "other"
    fleet.offer(DESCRIBER_3B, "adapter_2", into=other)
    facts = {"agent_training_host": "localhost", "agent_source_models_dir": str(other)}
    add_to_answers(fleet, "jw3-1", "adapter_up_to_date_info", ansible_facts=facts)
    done = run_elsewhere(ROLE)
    assert done.rc == 0, done.output
    assert is_served(fleet, "jw3-1", DESCRIBER_3B)
    commands = done.of("jw3-1", "adapter_sync")["commands"]
    assert str(other) not in json.dumps(commands)


def test_facts_of_node_in_other_tasks_of_a_play_are_refused(fleet: Fleet, run_elsewhere: Elsewhere) -> None:
    add_to_answers(fleet, "jw3-1", "setup", ansible_facts={"agent_store": "/etc", "ansible_control_path_dir": "/x"})
    done = run_elsewhere(ROLE.replace("false", "true"))
    [message] = done.failures("jw3-1")
    assert documented("fact that overrides the inventory").search(message), message
    assert "jw3-1, ansible_control_path_dir: is set by a fact of the host" in message
    # The other node needs nothing of it.
    assert is_served(fleet, "jw2-1", CLEANER_3B)
    assert not fleet.served("jw3-1", DESCRIBER_3B).exists()


def test_facts_of_node_do_not_choose_what_role_runtime_copies(fleet: Fleet, run_elsewhere: Elsewhere) -> None:
    secret = fleet.root / "controller"
    secret.mkdir()
    (secret / "key").write_text("of the controller")
    loot = fleet.root / "loot"
    facts = {"runtime_wheelhouse_from": str(secret), "runtime_wheelhouse": str(loot), "runtime_base_python": "/bin/false"}
    facts["__runtime"] = {"wheelhouse_from": str(secret), "wheelhouse": str(loot)}
    wheels = fleet.root / "wheels"
    wheels.mkdir()
    (wheels / "torch.whl").write_text("")
    node = fleet.home("jw3-1")
    fleet.hosts["jw3-1"].update(
        runtime_venv=str(node / "venv"), runtime_wheelhouse=str(node / "wheels"), runtime_wheelhouse_from=str(wheels)
    )
    add_to_answers(fleet, "jw3-1", "stat", ansible_facts=facts)
    role = "- hosts: jw3-1\n  gather_facts: false\n  roles: [lorafleet.delivery.runtime]\n"
    # It fails later, since that wheel is none.
    assert run_elsewhere(role).rc == 2
    assert [path.name for path in (node / "wheels").iterdir()] == ["torch.whl"]
    assert not loot.exists()


def test_node_that_answers_in_another_form_fails_alone_and_is_reported(fleet: Fleet) -> None:
    rewrite_answers(
        fleet,
        "jw3-1",
        """
        return {**result, "up_to_date": "yes, {{ 1 }}"} if module == "adapter_up_to_date_info" else result
        """,
    )
    done = fleet.run("deploy")
    assert done.rc == 2, done.output
    [message] = done.failures("jw3-1")
    assert documented("answer in another form").fullmatch(message), message
    assert is_served(fleet, "jw2-1", CLEANER_3B)
    assert fleet.reported("jw2-1", CLEANER_3B)["verified"]
    assert fleet.reported("jw3-1", DESCRIBER_3B)["state"] == "failed"
    assert fleet.report()["ended"]


# The module, how its answer is changed, and what the message has.
OTHER_FORMS = [
    ("adapter_release", 'result["adapters"][0]["action"] = "excellent"', "adapters[0].action is not one of activated"),
    ("adapter_release", 'result["adapters"][0]["history"] = [{"release": "a" * 12, "at": "x"}]', "adapters[0].history[0].at"),
    ("adapter_release", 'result["diff"] = [{"before": 1}]', "diff[0].before_header is missing"),
    ("adapter_load_test", 'result["adapters"][0]["effect"] = float("nan")', "adapters[0].effect is not a finite number"),
    ("adapter_load_test", 'result = {"failed": True, "msg": "x", "problems": {"a": 1}}', "problems is not a list"),
    ("adapter_sync", 'result["adapters"][0]["staging"] = "tmp"', "adapters[0].staging is not an absolute path"),
    ("adapter_sync", 'result = {"changed": False}', "adapters is missing"),
    ("adapter_sync", 'result["rsync"] = {"__ansible_vault": "x"}', "rsync is not text"),
    # From ansible-core 2.19 on, it cannot even be read.
    ("adapter_sync", 'result["rsync"] = {"__ansible_type": "TaggedValue", "value": 1}', "gave an answer that"),
    ("adapter_sync", 'return "{" + \'"a":{\' * 9999 + "}" * 10000', ""),
]


def test_any_answer_in_another_form_leaves_a_report(fleet: Fleet) -> None:
    answers = {f"bad-{number}": form for number, form in enumerate(OTHER_FORMS)}
    for node, (module, change, _key) in answers.items():
        fleet.add_node("jw3", node)
        rewrite_answers(fleet, node, f"if module == {module!r}:\n    {change}\nreturn result")
    done = fleet.run("deploy", "--limit", ",".join(answers))
    assert done.rc == 2, done.output
    for node, (_module, change, key) in answers.items():
        [message] = done.failures(node)
        assert key in message, change
        assert fleet.reported(node, DESCRIBER_3B)["verified"] is False, change
    assert not any(fleet.boxes().values())


def test_training_server_that_answers_in_another_form_is_named(fleet: Fleet) -> None:
    rewrite_answers(
        fleet,
        "sbs29",
        f"""
        if module == "adapter_info" and {DESCRIBER_3B!r} in result["directories"]:
            result["directories"][{DESCRIBER_3B!r}]["links"] = "none"
        return result
        """,
    )
    done = fleet.run("deploy")
    [message] = done.failures("jw3-1")
    assert message.startswith(
        f"sbs29: gave an answer that module adapter_info does not give: directories.{DESCRIBER_3B}.links is"
    )
    assert done.failures("jw2-1") == []
    assert is_served(fleet, "jw2-1", CLEANER_3B)


# Without ``rc`` and ``exception``: for ansible-core 2.21, a module that returns them has failed.
STEERING = """
    steering = {
        "add_host": {"host_name": "evil", "groups": ["agents"], "host_vars": {"ansible_connection": "local"}},
        "add_group": "evil",
        "ansible_stats": {"data": {"x": 1}, "per_host": False},
        "_ansible_no_log": True,
        "_ansible_notify": ["evil"],
        "unreachable": True,
        "skipped": True,
        "results": [{"failed": True}],
        "ansible_job_id": "1.1",
        "include": "/etc/passwd",
        "invocation": {"module_args": {"x": "{{ 1 }}"}},
        "deprecations": [{"msg": "x", "version": "1"}],
    }
    # Nor do others that are there in every usual answer.
    for key in ("rsync", "zstd"):
        result.pop(key, None)
    return {**result, **steering}
"""


def test_keys_that_steer_ansible_have_no_effect(fleet: Fleet) -> None:
    for host in ("sbs29", "jw3-1"):
        rewrite_answers(fleet, host, STEERING)
    done = fleet.run("deploy")
    assert done.rc == 0, done.output
    assert is_served(fleet, "jw3-1", DESCRIBER_3B)
    assert {entry["host"] for entry in done.results} <= {"localhost", "jw2-1", "jw3-1"}
    assert fleet.reported("jw3-1", DESCRIBER_3B)["verified"]


SPOIL = r"""
    text = "\x1b]0;owned\x07\x1b[2J\rjw2-1 all verified\u2028\u202e{{ lookup('ansible.builtin.pipe', 'touch MARKER') }}"

    def spoil(value):
        if isinstance(value, dict):
            return {key: one if key in ("state", "level") else spoil(one) for key, one in value.items()}
        if isinstance(value, list):
            return [spoil(one) for one in value]
        return value + text if isinstance(value, str) and " " in value else value

    result = spoil(result)
    if module == "adapter_release_info":
        result["summary"], result["differences"] = {text: [text]}, [text]
    if module == "adapter_load_test":
        problem = {"adapter": None, "subject": text, "problem": text, "remedy": text + "\njw2-1: verified"}
        # No warnings: ansible-core 2.21 prints them itself, before the action plugin gets them.
        return {"failed": True, "msg": text, "problems": [problem], "adapters": []}
    return result
"""


@pytest.mark.parametrize("playbook", ["deploy", "audit", "status", "preflight"])
def test_text_of_a_host_is_not_evaluated_and_cannot_control_the_terminal(fleet: Fleet, playbook: str) -> None:
    fleet.deploy()
    fleet.offer(DESCRIBER_3B, "adapter_2")
    marker = fleet.root / "evaluated"
    rewrite_answers(fleet, "jw3-1", SPOIL.replace("MARKER", str(marker)))
    done = fleet.run(playbook)
    assert not marker.exists()
    assert "owned" in done.output
    controls = "\x1b\x07\r\u2028\u202e"
    assert not set(controls) & set(done.output)
    assert not any(line.startswith("jw2-1: verified") for line in done.output.splitlines())
    for path in fleet.reports.iterdir():
        assert not set(controls) & set(path.read_text(encoding="utf-8")), path
