# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The deploy playbook on a fleet of local directories, with real adapters and the real rsync."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import sys
import time
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.receipt import read_receipt

from tests.support.fleet import (
    CLEANER_3B,
    CLEANER_8B,
    CONFIG,
    DESCRIBER_3B,
    TRAVELS,
    WEIGHTS,
    Barrier,
    Fleet,
    contents,
    identity,
    travelling,
)
from tests.support.playbooks import LIMIT, Background
from tests.support.ways import COPY

TOKENIZER = TRAVELS - {CONFIG, WEIGHTS}
ALL = ((CLEANER_3B, "jw2-1"), (CLEANER_8B, "jw2-1"), (DESCRIBER_3B, "jw3-1"))
BOXES = ["Cleaner models → jw2", "Describer models → jw3", "All checksums verified", "All nodes tested"]
# These runs require level structure, which loads nothing with PEFT.
AT_STRUCTURE = {**dict.fromkeys(BOXES, True), "All nodes tested": False}


def delivered(fleet: Fleet) -> set[str]:
    """The names of all served adapters, each of which must equal the training server's."""
    found = set()
    for name, node in ALL:
        if fleet.served(node, name).exists():
            assert contents(fleet.served(node, name)) == travelling(fleet.source / name)
            found.add(name)
    return found


def test_deploy_after_check_matches_prediction_and_is_idempotent(fleet: Fleet) -> None:
    clean = contents(fleet.root)
    checked = fleet.deploy("--check", "--diff")
    # Inventory and record are files of this test.
    written = contents(fleet.root).keys() - clean.keys()
    assert written == {"inventory.yml", "record.jsonl", "record.log"}

    done = fleet.deploy("--diff")
    assert delivered(fleet) == {CLEANER_3B, CLEANER_8B, DESCRIBER_3B}
    assert fleet.boxes() == AT_STRUCTURE
    assert done.changed()
    # The transfer matches the prediction of check mode.
    assert checked.changed() == done.changed()
    for node in ("jw2-1", "jw3-1"):
        assert _prediction(checked.adapters(node, "adapter_sync")) == _prediction(done.adapters(node, "adapter_sync"))
        predicted, came = (run.adapters(node, "adapter_release") for run in (checked, done))
        assert {name: entry["action"] for name, entry in predicted.items()} == dict.fromkeys(predicted, "activated")
        assert [entry["release"] for entry in predicted.values()] == [entry["release"] for entry in came.values()]
        assert checked.of(node, "adapter_release")["diff"] == done.of(node, "adapter_release")["diff"]
    # Both adapters have the same tokenizer, which is transferred once.
    sent = done.adapters("jw2-1", "adapter_sync")
    assert set(sent[CLEANER_3B]["downloaded"]) == TRAVELS
    assert set(sent[CLEANER_8B]["downloaded"]) == {CONFIG, WEIGHTS}
    assert set(sent[CLEANER_8B]["reused"]) == TOKENIZER
    shared = sum((fleet.source / CLEANER_8B / name).stat().st_size for name in TOKENIZER)
    assert [sent[name]["reused_bytes"] for name in (CLEANER_3B, CLEANER_8B)] == [0, shared]
    account = done.of("jw2-1", "adapter_sync")
    assert_sent_once(account)
    assert set(account["seconds"]) == {"plan", "wait", "transfer", "verify"}
    assert account["rsync"] == account["source_rsync"]
    # One command on the node and one at the source for each adapter.
    assert [command[0] for command in account["commands"]] == ["sh", "env"] * 2

    def state() -> dict[str, object]:
        found = {f"{node} {path}": value for node in ("jw2-1", "jw3-1") for path, value in identity(fleet.home(node)).items()}
        # A lock names its holder.
        return {path: value for path, value in found.items() if not path.endswith("/lock")}

    first = state()
    # Values from the command line are strings.
    for arguments in ((), ("--check", "-e", "agent_load_test_force=no")):
        again = fleet.deploy(*arguments)
        assert again.changed() == []
        # The check was enough: nothing was transferred, loaded or locked.
        assert again.of("jw2-1", "adapter_up_to_date_info")["up_to_date"]
        assert not [entry for entry in again.results if entry["action"].endswith(("adapter_sync", "_load_test", "_release"))]
        assert state() == first
        assert fleet.boxes() == AT_STRUCTURE


def test_deploy_of_up_to_date_node_runs_tasks_after_the_role(fleet: Fleet) -> None:
    after = {"name": "Tell the engine", "ansible.builtin.debug": {}}
    play = {"hosts": "agents", "gather_facts": False, "roles": ["lorafleet.delivery.agent"], "post_tasks": [after]}
    (fleet.root / "own.yml").write_text(json.dumps([play]), encoding="utf-8")
    for up_to_date in (False, True):
        done = fleet.run(str(fleet.root / "own"), "--limit", "jw3")
        assert done.rc == 0, done.output
        assert done.of("jw3-1", "adapter_up_to_date_info")["up_to_date"] == up_to_date
        assert done.of("jw3-1", "debug")


@pytest.mark.parametrize("old", [False, True])
def test_deploy_accepts_old_names_of_variables(fleet: Fleet, old: bool) -> None:
    minimum = "agent_least_level" if old else "agent_minimum_level"
    force = "agent_load_test_again" if old else "agent_load_test_force"
    fleet.groups["agents"] |= {"agent_level": "adapter", minimum: "structure", force: True}
    # At this verbosity the results contain the arguments of the modules.
    done = fleet.deploy("--check", "--limit", "jw3", "-vvv")
    tested, activated = (done.of("jw3-1", f"adapter_{name}")["invocation"]["module_args"] for name in ("load_test", "release"))
    assert (tested["level"], tested["minimum_level"], tested["force"]) == ("adapter", "structure", True)
    assert activated["required_level"] == "structure"


@pytest.mark.parametrize("entry", ["main", "audit", "rollback", "status"])
def test_node_that_is_not_selected_runs_tasks_and_handlers_after_the_role(fleet: Fleet, entry: str) -> None:
    role = {"name": "lorafleet.delivery.agent", "tasks_from": entry}
    before = {"name": "Drain", "ansible.builtin.debug": {}, "changed_when": True, "notify": "Undrain"}
    play = {
        "hosts": "agents",
        "gather_facts": False,
        "tags": ["always"],
        "tasks": [before, {"name": "Apply", "ansible.builtin.import_role": role}],
        "post_tasks": [{"name": "Tell the engine", "ansible.builtin.command": "true"}],
        "handlers": [{"name": "Undrain", "ansible.builtin.debug": {}}],
    }
    (fleet.root / "own.yml").write_text(json.dumps([play]), encoding="utf-8")
    done = fleet.run(str(fleet.root / "own"), "--tags", "describer", "--limit", "jw2")
    assert done.rc == 0, done.output
    ours = [entry for entry in done.results if entry["action"].startswith("lorafleet.delivery.")]
    assert [entry["action"] for entry in ours] == ["lorafleet.delivery.adapter_selection_info"]
    assert done.of("jw2-1", "command")
    assert "RUNNING HANDLER [Undrain]" in done.output


def assert_sent_once(account: dict[str, t.Any]) -> None:
    """The bytes on the wire are the predicted files plus the overhead of rsync."""
    names = sum(len(adapter["downloaded"]) for adapter in account["adapters"])
    sent = sum(adapter["downloaded_bytes"] for adapter in account["adapters"])
    assert sent <= account["wire_bytes"] <= 1.01 * sent + 256 * names + 1024


def _prediction(synced: dict[str, dict[str, object]]) -> dict[str, object]:
    return {
        name: (entry["release"], entry["stored"], entry["downloaded"], entry["downloaded_bytes"])
        for name, entry in synced.items()
    }


def test_deploy_with_tags_and_limit_touches_only_the_selection(fleet: Fleet) -> None:
    wrong = fleet.run("deploy", "--tags", "cleaner,16b")
    assert wrong.rc != 0
    assert "tag 16b: names no agent and no variant of the inventory." in wrong.output
    assert "Agents: cleaner, describer. Variants: 3b, 8b." in wrong.output
    assert delivered(fleet) == set()

    fleet.deploy("--tags", "8b")
    assert delivered(fleet) == {CLEANER_8B}
    assert not any(fleet.boxes().values())

    # Both tags exist in the inventory, but the describer has no 8b.
    wrong = fleet.run("deploy", "--tags", "describer,8b")
    assert wrong.rc != 0
    assert "tags 8b, describer: together select no adapter: none of these agents has such a variant." in wrong.output
    assert not wrong.worked_on()

    fleet.deploy("--tags", "cleaner")
    assert delivered(fleet) == {CLEANER_3B, CLEANER_8B}
    assert fleet.boxes() == {**dict.fromkeys(BOXES, False), BOXES[0]: True}

    selected = fleet.deploy("--tags", "cleaner,8b", "--check")
    assert list(selected.adapters("jw2-1", "adapter_up_to_date_info")) == [CLEANER_8B]
    assert selected.worked_on() == {"jw2-1"}
    selected = fleet.deploy("--skip-tags", "describer,3b", "--check")
    assert list(selected.adapters("jw2-1", "adapter_up_to_date_info")) == [CLEANER_8B]
    assert selected.worked_on() == {"jw2-1"}

    # The limit need not include the training server.
    limited = fleet.deploy("--limit", "jw3")
    assert limited.worked_on() == {"jw3-1"}
    assert delivered(fleet) == {CLEANER_3B, CLEANER_8B, DESCRIBER_3B}
    # The report covers the whole fleet and ticks the selected agent's box.
    assert fleet.boxes() == {**dict.fromkeys(BOXES, False), BOXES[1]: True}
    assert fleet.reported("jw2-1", CLEANER_3B)["state"] == "not_selected"


def test_deploy_describes_shared_adapters_once(fleet: Fleet) -> None:
    fleet.add_node("jw2", "jw2-2")
    first, second = fleet.deploy(), fleet.deploy()
    nodes = ("jw2-1", "jw2-2")
    # Had each node asked, the later one would have found cached hashes.
    assert [first.of(node, "adapter_info")["cached"] for node in nodes] == [[], []]
    # The next run describes again.
    assert [second.of(node, "adapter_info")["cached"] for node in nodes] == [[CLEANER_3B, CLEANER_8B]] * 2


def test_deploy_after_failed_first_description_describes_in_parallel(fleet: Fleet) -> None:
    for node in ("jw2-2", "jw2-3"):
        fleet.add_node("jw2", node)
    ended, met, pipe = (fleet.root / name for name in ("ended", "met", "pipe"))
    os.mkfifo(pipe)
    # The first call fails. After that, two calls wait for each other.
    fleet.before_module("sbs29", "adapter_info", f"mkdir {ended} && exit 1; if mkdir {met}; then cat {pipe}; else : > {pipe}; fi")
    done = fleet.run("deploy", "--limit", "jw2", limit=LIMIT / 3)
    assert done.rc != 0
    served = [node for node in fleet.members["jw2"] if fleet.served(node, CLEANER_3B).exists()]
    assert len(served) == 2, done.output


def test_deploy_with_a_blocked_node_delivers_the_others(fleet: Fleet) -> None:
    barrier = Barrier(fleet, "jw2-1", "adapter_sync")
    run = Background("deploy", "-i", str(fleet.write_inventory()), directory=fleet.root)
    try:
        deadline = time.monotonic() + LIMIT
        while not fleet.served("jw3-1", DESCRIBER_3B).exists():
            assert time.monotonic() < deadline
            assert not run.ended, run.output
            time.sleep(0.02)
        assert delivered(fleet) == {DESCRIBER_3B}
        barrier.open()
        done = run.wait()
    finally:
        run.kill()
    assert done.rc == 0, done.output
    assert delivered(fleet) == {CLEANER_3B, CLEANER_8B, DESCRIBER_3B}
    assert fleet.boxes() == AT_STRUCTURE


def test_deploy_with_old_rsync_warns_and_does_not_compress(fleet: Fleet) -> None:
    (fleet.root / "bin").mkdir()
    old, rsync = fleet.root / "bin" / "rsync", shutil.which("rsync")
    says = f"{rsync} --version | sed 's/version [^ ]*/version 3.2.7/; s/zstd//'"
    old.write_text(f'#!/bin/sh\ntest "$*" != --version || exec sh -c "{says}"\nexec {rsync} "$@"\n', encoding="utf-8")
    old.chmod(0o755)
    environment = {"PATH": f"{old.parent}{os.pathsep}{os.environ['PATH']}"}
    done = fleet.run("deploy", "--limit", "jw3", environment=environment)
    assert done.rc == 0, done.output
    account = done.of("jw3-1", "adapter_sync")
    assert account["rsync"] == account["source_rsync"] == "3.2.7"
    assert [warning.split(".")[0] for warning in account["warnings"]] == ["jw3-1 has rsync 3", "sbs29 has rsync 3"]
    assert all("CVE-2024-12084" in warning for warning in account["warnings"])

    fleet.offer(DESCRIBER_3B, "adapter")
    fleet.groups["agents"]["agent_transfer_compress"] = True
    refused = fleet.run("deploy", "--limit", "jw3", environment=environment)
    assert refused.rc != 0
    assert refused.failures("jw3-1")[0].startswith(
        "jw3-1: has an rsync (3.2.7) that cannot compress with zstd. Set transfer_compress to false"
    )


def test_deploy_by_command_without_rsync_and_with_the_relay_as_fall_back(fleet: Fleet, tmp_path: pathlib.Path) -> None:
    """The platform of the site has the adapters of jw3, and not those of jw2."""
    platform = tmp_path / "platform"
    shutil.copytree(fleet.source / DESCRIBER_3B, platform / DESCRIBER_3B)
    command = [sys.executable, "-c", COPY, f"{platform}/{{adapter}}", "{files}", "{staging}"]
    fleet.groups["agents"].update(agent_transfer="auto", agent_transfer_command=command)
    fleet.hosts["jw3-1"]["agent_transfer"] = "command"
    done = fleet.deploy()
    assert delivered(fleet) == {CLEANER_3B, CLEANER_8B, DESCRIBER_3B}
    brought = done.of("jw3-1", "adapter_sync")
    assert (brought["adapters"][0]["way"], brought["adapters"][0]["not_taken"]) == ("command", [])
    assert brought["wire_bytes"] == brought["adapters"][0]["downloaded_bytes"]
    assert not {"rsync", "commands", "python"} & brought.keys()
    relayed = done.of("jw2-1", "adapter_sync")
    for adapter in relayed["adapters"]:
        [refused] = adapter["not_taken"]
        assert (adapter["way"], refused["way"]) == ("relay", "command")
        assert "did not bring the files: it ended with status 1" in refused["why"]
        assert f"jw2-1: adapter {adapter['name']} takes another way than command: did not bring" in " ".join(done.output.split())
    assert "commands" in relayed


def test_deploy_directly_needs_no_rsync(fleet: Fleet) -> None:
    settings = {"agent_transfer": "direct", "agent_transfer_direct_ports": "0", "agent_transfer_direct_address": "127.0.0.1"}
    fleet.groups["agents"].update(settings)
    done = fleet.deploy()
    assert delivered(fleet) == {CLEANER_3B, CLEANER_8B, DESCRIBER_3B}
    for node in ("jw2-1", "jw3-1"):
        account = done.of(node, "adapter_sync")
        assert {(adapter["way"], *adapter["not_taken"]) for adapter in account["adapters"]} == {("direct",)}
        assert account["wire_bytes"] == sum(adapter["downloaded_bytes"] for adapter in account["adapters"])
        assert not {"rsync", "commands", "python"} & account.keys()


def test_deploy_by_a_swarm_goes_to_several_nodes_without_waiting_for_slots(fleet: Fleet) -> None:
    fleet.add_node("jw2", "jw2-2")
    settings = {"agent_transfer": "auto", "agent_transfer_swarm_ports": "0", "agent_transfer_direct_address": "127.0.0.1"}
    pythons = {"agent_transfer_swarm_python": sys.executable, "agent_training_swarm_python": sys.executable}
    addresses = {"agent_transfer_swarm_address": "127.0.0.1", "agent_transfer_streams": 1}
    fleet.groups["agents"].update({**settings, **pythons, **addresses})
    without = fleet.root / "without_libtorrent"
    without.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    without.chmod(0o755)
    fleet.hosts["jw3-1"]["agent_transfer_swarm_python"] = str(without)
    done = fleet.deploy()
    ways = {node: done.of(node, "adapter_sync")["adapters"] for node in ("jw2-1", "jw2-2", "jw3-1")}
    taken = {node: {adapter["way"] for adapter in adapters} for node, adapters in ways.items()}
    assert taken == {"jw2-1": {"swarm"}, "jw2-2": {"swarm"}, "jw3-1": {"relay"}}
    assert "libtorrent cannot be imported" in ways["jw3-1"][0]["not_taken"][0]["why"]
    for node in ("jw2-1", "jw2-2"):
        account = done.of(node, "adapter_sync")
        assert account["wire_bytes"] == sum(adapter["downloaded_bytes"] for adapter in account["adapters"])
        assert account["seconds"]["wait"] == 0
    assert contents(fleet.served("jw2-2", CLEANER_3B)) == contents(fleet.served("jw2-1", CLEANER_3B))


def test_upgrade_transfers_changes_only_and_keeps_the_old_release(fleet: Fleet) -> None:
    fleet.deploy("--limit", "jw3")
    old = contents(fleet.served("jw3-1", DESCRIBER_3B))
    # The next release has another rank and the same tokenizer.
    fleet.offer(DESCRIBER_3B, "adapter_b")
    fleet.groups["jw3"]["agent_adapters"][0]["rank"] = 32
    checked = fleet.deploy("--limit", "jw3", "--check", "--diff")
    assert contents(fleet.served("jw3-1", DESCRIBER_3B)) == old
    for line in (
        r"- +rank: 16", r"\+ +rank: 32", r"\+ +tensors: 28 of 28 tensors changed", r"\+ +tokenizer: same",
        r"\+ +largest_change_of_norm: \+\d+ % in model\.layers\.\d\.\w+\.\w+_proj",
        rf"\+{DESCRIBER_3B} \w+: \d+ bytes to download \({CONFIG}, {WEIGHTS}\), 3 files from this node",
    ):  # fmt: skip
        assert re.search(line, checked.output), checked.output
    assert "lora_A" not in checked.output

    done = fleet.deploy("--limit", "jw3")
    assert checked.changed() == done.changed()
    assert contents(fleet.served("jw3-1", DESCRIBER_3B)) == travelling(fleet.source / DESCRIBER_3B)
    synced = done.adapters("jw3-1", "adapter_sync")[DESCRIBER_3B]
    assert set(synced["downloaded"]) == {CONFIG, WEIGHTS}
    assert set(synced["reused"]) == TOKENIZER
    assert_sent_once(done.of("jw3-1", "adapter_sync"))
    released = done.adapters("jw3-1", "adapter_release")[DESCRIBER_3B]
    assert released["action"] == "activated"
    assert contents(fleet.stored("jw3-1", DESCRIBER_3B) / "releases" / released["previous"]) == old
    assert contents(pathlib.Path(released["path"])) == contents(fleet.served("jw3-1", DESCRIBER_3B))
    assert fleet.deploy("--limit", "jw3").changed() == []


def test_deploy_takes_over_directories_copied_by_hand(fleet: Fleet) -> None:
    # Copied by hand: one equals the offered adapter, the other does not.
    by_hand = fleet.offer(CLEANER_3B, into=fleet.home("jw2-1") / "models")
    (by_hand / "README.md").unlink()
    other = fleet.offer(CLEANER_8B, "rslora", into=fleet.home("jw2-1") / "models")
    found = contents(other)
    done = fleet.deploy("--limit", "jw2")
    assert contents(by_hand) == travelling(fleet.source / CLEANER_3B)
    assert contents(other) == travelling(fleet.source / CLEANER_8B)
    assert done.adapters("jw2-1", "adapter_sync")[CLEANER_3B]["downloaded"] == []
    released = done.adapters("jw2-1", "adapter_release")
    assert released[CLEANER_3B]["adopted"] is None
    assert not list(fleet.stored("jw2-1", CLEANER_3B).glob("adopted-*"))
    [adopted] = fleet.stored("jw2-1", CLEANER_8B).glob("adopted-*")
    assert released[CLEANER_8B]["adopted"] == str(adopted)
    assert contents(adopted) == found
    assert fleet.deploy("--limit", "jw2").changed() == []


def test_deploy_repairs_drift_without_a_transfer(fleet: Fleet) -> None:
    fleet.deploy("--limit", "jw2")
    wanted = {name: contents(fleet.served("jw2-1", name)) for name in (CLEANER_3B, CLEANER_8B)}
    served = fleet.served("jw2-1", CLEANER_3B)
    weights = bytearray((served / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (served / WEIGHTS).write_bytes(weights)
    (served / CONFIG).unlink()
    (served / "notes.txt").write_text("mine")
    shutil.rmtree(fleet.served("jw2-1", CLEANER_8B))

    checked = fleet.deploy("--limit", "jw2", "--check")
    done = fleet.deploy("--limit", "jw2")
    assert {name: contents(fleet.served("jw2-1", name)) for name in (CLEANER_3B, CLEANER_8B)} == wanted
    assert "wire_bytes" not in done.of("jw2-1", "adapter_sync")
    assert checked.changed() == done.changed()
    predicted, came = (run.adapters("jw2-1", "adapter_release") for run in (checked, done))
    assert {name: entry["action"] for name, entry in came.items()} == dict.fromkeys(wanted, "repaired")
    assert {name: entry["drift"] for name, entry in predicted.items()} == {name: entry["drift"] for name, entry in came.items()}
    drift = "\n".join(came[CLEANER_3B]["drift"])
    for line in (f"changed  {served / WEIGHTS}", f"missing  {served / CONFIG}", f"extra    {served / 'notes.txt'}"):
        assert line in drift
    # No file is lost.
    [adopted] = fleet.stored("jw2-1", CLEANER_3B).glob("adopted-*")
    assert (adopted / "notes.txt").read_text() == "mine"
    assert (adopted / WEIGHTS).read_bytes() == weights
    assert fleet.deploy("--limit", "jw2").changed() == []


def test_deploy_restores_lost_release_from_served_directory(fleet: Fleet) -> None:
    fleet.deploy("--limit", "jw3")
    shutil.rmtree(fleet.home("jw3-1") / ".lorafleet")
    before = identity(fleet.served("jw3-1", DESCRIBER_3B))
    done = fleet.deploy("--limit", "jw3")
    assert done.adapters("jw3-1", "adapter_sync")[DESCRIBER_3B]["downloaded"] == []
    assert contents(fleet.served("jw3-1", DESCRIBER_3B)) == travelling(fleet.source / DESCRIBER_3B)
    assert identity(fleet.served("jw3-1", DESCRIBER_3B)) == before
    assert fleet.deploy("--limit", "jw3").changed() == []


def test_deploy_loads_with_peft_once_and_again_when_forced(fleet: Fleet) -> None:
    fleet.base["path"] = str(fleet.tiny / "base")
    fleet.groups["agents"]["agent_level"] = "model"
    done = fleet.deploy("--limit", "jw3")
    tested = done.adapters("jw3-1", "adapter_load_test")[DESCRIBER_3B]
    assert (tested["level"], tested["device"], tested["from_receipt"]) == ("model", "cpu", False)
    paths = AdapterPaths(str(fleet.home("jw3-1") / "models"), str(fleet.home("jw3-1") / ".lorafleet"), DESCRIBER_3B)
    receipt = read_receipt(paths, tested["release"])
    assert receipt is not None
    assert (receipt["level"], receipt["device"], receipt["release"]) == ("model", "cpu", tested["release"])
    assert {"python", "torch", "peft", "transformers", "safetensors"} <= set(receipt["versions"])
    assert receipt["effect"] > 0.01
    written = fleet.reported("jw3-1", DESCRIBER_3B)
    assert (written["state"], written["verified"], written["tested"]) == ("activated", True, True)
    assert (written["test"]["level"], written["test"]["device"]) == ("model", "cpu")
    assert written["test"]["effect"] == receipt["effect"]

    again = fleet.deploy("--limit", "jw3")
    assert again.changed() == []
    assert again.adapters("jw3-1", "adapter_up_to_date_info")[DESCRIBER_3B]["receipt"] == receipt
    written = fleet.reported("jw3-1", DESCRIBER_3B)
    assert (written["state"], written["verified"], written["tested"]) == ("unchanged", True, True)
    assert (written["test"]["level"], written["test"]["from_receipt"], written["downloaded_bytes"]) == ("model", True, 0)
    asked = fleet.deploy("--limit", "jw3", "-e", '{"agent_load_test_force": true}')
    assert not asked.adapters("jw3-1", "adapter_load_test")[DESCRIBER_3B]["from_receipt"]
    renewed = read_receipt(paths, tested["release"])
    assert renewed is not None
    assert renewed["checks"] == receipt["checks"]
