# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Markdown manifest of the training pipeline as inventory source, and a delivery from it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import typing as t

import pytest
import yaml

from tests.support import tiny_adapters
from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, Fleet, contents, travelling
from tests.support.playbooks import CHECKOUT, LIMIT, PLAYBOOK, Background, recording

SAMPLE = CHECKOUT / "tests" / "fixtures" / "MODEL_MANIFEST.md"


def inventory(path: pathlib.Path, directory: pathlib.Path) -> tuple[int, t.Any, str]:
    """Run ansible-inventory; return its exit status, the inventory and its messages."""
    done = subprocess.run(
        [PLAYBOOK.with_name("ansible-inventory"), "-i", path, "--list"],
        env=recording(directory / "record.jsonl"), cwd=directory, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    # Ansible marks strings that it does not template.
    said = json.loads(done.stdout or "null", object_hook=lambda found: found.get("__ansible_unsafe", found))
    return done.returncode, said, done.stderr


def test_manifest_of_the_pipeline_equals_the_hand_written_inventory(tmp_path: pathlib.Path) -> None:
    _rc, said, _messages = inventory(SAMPLE, tmp_path)
    _rc, etri, _messages = inventory(CHECKOUT / "inventories" / "etri", tmp_path)
    assert {name: group for name, group in said.items() if name != "_meta"} == {
        name: group for name, group in etri.items() if name != "_meta"
    }
    said, etri = said["_meta"]["hostvars"], etri["_meta"]["hostvars"]
    assert said.keys() == etri.keys()
    for host in said:
        for variable in ("ansible_host", "agent_name", "agent_purpose"):
            assert said[host].get(variable) == etri[host].get(variable)
        role = "agent" if "agent_name" in said[host] else "training"
        # The inventory leaves the directory to the default, which is the same on both sides.
        default = yaml.safe_load((CHECKOUT / "roles" / "agent" / "defaults" / "main.yml").read_text(encoding="utf-8"))
        directory = f"{role}_models_dir"
        assert said[host][directory] == etri[host].get(directory, default["agent_models_dir"])
        for name, value in said[host]["lorafleet_training"].items():
            assert value == str(etri[host]["lorafleet_training"][name])
        for ours, theirs in zip(said[host].get("agent_adapters", []), etri[host].get("agent_adapters", []), strict=True):
            # Dataset and quality are worded by hand in the inventory.
            prose = {"dataset": theirs["dataset"], "quality": theirs["quality"]}
            assert {**ours, **prose} == theirs
            assert theirs["dataset"] in ours["dataset"]


def test_unreadable_manifest_ends_the_run(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "MODEL_MANIFEST.md"
    path.write_text(SAMPLE.read_text(encoding="utf-8").replace("LoRA alpha: 32", "LoRA alpha: high"), encoding="utf-8")
    rc, said, messages = inventory(path, tmp_path)
    assert (rc != 0, said) == (True, None)
    assert "MODEL_MANIFEST.md:50: 'high' is not a LoRA alpha. Write '- LoRA alpha: 16 (3B), 32 (8B)'" in messages


def test_texts_of_the_manifest_are_not_templated(tmp_path: pathlib.Path) -> None:
    path, trap = tmp_path / "MODEL_MANIFEST.md", tmp_path / "trap"
    text = SAMPLE.read_text(encoding="utf-8").replace("JFLEG dataset", f"{{{{ lookup('pipe', 'touch {trap}') }}}}")
    path.write_text(text, encoding="utf-8")
    play = [{"hosts": "jw2", "gather_facts": False, "tasks": [{"debug": {"msg": "{{ agent_adapters }}"}}]}]
    (tmp_path / "play.yml").write_text(json.dumps(play), encoding="utf-8")
    command = [PLAYBOOK, "-i", path, tmp_path / "play.yml"]
    environment = recording(tmp_path / "record.jsonl")
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"touch {trap}" in done.stdout
    assert not trap.exists()


@pytest.mark.parametrize("models", ["{home}/models", "~/models"])
def test_deploy_from_manifest_and_site_variables(fleet: Fleet, models: str) -> None:
    """All hosts are this machine, with a models directory each."""
    source = models.format(home=fleet.root / "sbs29" / "home")
    lines = ["# Training Server: sbs29 (127.0.0.1)"]
    for agent, node, adapters in (
        ("Cleaner", "jw2", {"3B Default": CLEANER_3B, "8B Appendix": CLEANER_8B}),
        ("Describer", "jw3", {"3B Default": DESCRIBER_3B}),
    ):
        lines.append(f"### {agent} Agent -> {node} (127.0.0.1)")
        for variant, name in adapters.items():
            lines += [
                f"- **{variant}:**",
                f"  - Source: `{source}/{name}/`",
                f"  - Target: `{node}:{fleet.home(node + '-1')}/models/{name}/`",
                f"  - Base: {tiny_adapters.BASE_NAME}",
            ]
    lines += ["## Training Configuration", "- LoRA rank: 16 (3B), 32 (8B)", "- LoRA alpha: 32"]
    path = fleet.root / "MODEL_MANIFEST.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    facts = fleet.root / "group_vars"
    facts.mkdir()
    for group in ("all", "agents", "training"):
        variables = {key: value for key, value in fleet.groups[group].items() if not key.endswith("_models_dir")}
        (facts / f"{group}.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
    home = {"HOME": str(fleet.root / "sbs29" / "home")}
    done = Background("deploy", "-i", str(path), directory=fleet.root, environment=home).wait()
    assert done.rc == 0, done.output
    for node, name in (("jw2-1", CLEANER_3B), ("jw2-1", CLEANER_8B), ("jw3-1", DESCRIBER_3B)):
        assert contents(fleet.served(node, name)) == travelling(fleet.source / name)
    assert fleet.boxes()["Describer models → jw3"]
    again = Background("deploy", "-i", str(path), "--tags", "8b", directory=fleet.root, environment=home).wait()
    assert (again.rc, again.changed()) == (0, []), again.output
