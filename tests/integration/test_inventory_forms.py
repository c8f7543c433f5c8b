# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inventories of other forms than one YAML file are read and checked alike."""

from __future__ import annotations

import json
import pathlib
import subprocess

from tests.support.fleet import CLEANER_3B, CLEANER_8B, Fleet
from tests.support.playbooks import PLAYBOOK, Background, Run, recording

HOSTS = """\
[agents:children]
cleaners
[cleaners:children]
cleaners_eu
[cleaners_eu]
GPU-1.Example.org ansible_host=192.0.2.1
"""
CANARY = """\
all:
  children:
    training: {hosts: {sbs29: {}}}
    cleaners: {children: {canary: {hosts: {gpu2.example.org: {}}}}}
"""
CONSTRUCTED = """\
plugin: ansible.builtin.constructed
groups: {gpus: "'jw' in inventory_hostname"}
keyed_groups: [{key: "inventory_hostname[:3]", prefix: node}]
"""


def check(fleet: Fleet, sources: list[pathlib.Path], *arguments: str) -> Run:
    chosen = [argument for source in sources for argument in ("-i", str(source))]
    return Background("check_inventory", *chosen, *arguments, directory=fleet.root).wait()


def test_several_sources_with_vault_canary_and_tags_of_any_text_are_read(fleet: Fleet) -> None:
    rows = fleet.groups["jw2"]["agent_adapters"]
    rows[0]["variant"], rows[1]["variant"] = 3, 8.5
    files = {
        "a/hosts": HOSTS,
        "a/group_vars/agents/main.yml": json.dumps(fleet.groups["agents"]),
        "a/group_vars/cleaners/vault.yml": json.dumps({"agent_name": "Text-Cleaner für Köln", "agent_adapters": rows}),
        "b/hosts.yml": CANARY,
        "b/group_vars/canary.yml": json.dumps({"agent_adapters": rows[:1]}),
        "password": "secret\n",
    }
    for name, text in files.items():
        (fleet.root / name).parent.mkdir(parents=True, exist_ok=True)
        (fleet.root / name).write_text(text, encoding="utf-8")
    password = ("--vault-password-file", str(fleet.root / "password"))
    vault = [str(PLAYBOOK.with_name("ansible-vault")), "encrypt", *password, str(fleet.root / "a/group_vars/cleaners/vault.yml")]
    subprocess.run(vault, check=True, env=recording(fleet.root / "record.jsonl"))

    done = check(fleet, [fleet.root / "a", fleet.root / "b"], *password, "--tags", "Text-Cleaner für Köln,8.5")
    assert done.rc == 0, done.output
    nodes = {node["name"]: node for node in done.results[0]["result"]["nodes"]}
    assert nodes["GPU-1.Example.org"]["address"] == "192.0.2.1"
    assert {name: [(row["name"], row["variant"], row["selected"]) for row in node["rows"]] for name, node in nodes.items()} == {
        "GPU-1.Example.org": [(CLEANER_3B, "3", False), (CLEANER_8B, "8.5", True)],
        "gpu2.example.org": [(CLEANER_3B, "3", False)],
    }


def test_script_with_constructed_groups_is_read_and_hides_no_agent(fleet: Fleet) -> None:
    source = fleet.root / "inventory"
    source.mkdir()
    (source / "10-constructed.yml").write_text(CONSTRUCTED, encoding="utf-8")

    def write() -> None:
        groups = {name: {"hosts": hosts, "vars": fleet.groups[name]} for name, hosts in fleet.members.items()}
        agents = {"children": ["jw2", "jw3"], "vars": fleet.groups["agents"]}
        text = json.dumps({"_meta": {"hostvars": fleet.hosts}, "agents": agents, **groups})
        (source / "00-script.sh").write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n", encoding="utf-8")
        (source / "00-script.sh").chmod(0o755)

    write()
    done = check(fleet, [source])
    assert done.rc == 0, done.output
    assert [node["groups"] for node in done.results[0]["result"]["nodes"]] == [
        ["jw2", "gpus", "node_jw2"],
        ["jw3", "gpus", "node_jw3"],
    ]

    fleet.members["jw3"].append("jw2-1")
    write()
    done = check(fleet, [source])
    assert done.rc == 2, done.output
    assert "host jw2-1: is in groups that declare different adapters" in done.output


def test_dates_in_rows_are_delivered_as_text(fleet: Fleet) -> None:
    fleet.groups["jw2"]["agent_adapters"][0].update(dataset="DATE", quality="DATE")
    inventory = fleet.write_inventory()
    inventory.write_text(inventory.read_text(encoding="utf-8").replace('"DATE"', "2026-01-01"), encoding="utf-8")

    done = Background("deploy", "-i", str(inventory), "--limit", "jw2", directory=fleet.root).wait()
    assert done.rc == 0, done.output
