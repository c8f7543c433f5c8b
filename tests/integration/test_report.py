# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The callback delivery_report with real playbooks: what it prints and writes, and when."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import stat
import subprocess
import time

import ansible
import jsonschema
import pytest

from tests.support.fleet import CLEANER_3B, CLEANER_8B, CONFIG, DESCRIBER_3B, WEIGHTS, Barrier, Fleet, contents
from tests.support.playbooks import CHECKOUT, LIMIT, PLAYBOOK, Background, recording

SCHEMA = json.loads((CHECKOUT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
FILES = {"report.json", "MANIFEST.md", "report.html", "junit.xml", "lorafleet.prom"}


def printed(output: str) -> list[str]:
    """Return the lines after the recap without the notes: the table and the failures."""
    lines = (line.rstrip() for line in output.split("PLAY RECAP")[1].splitlines()[1:])
    return [line for line in lines if line and ": ok=" not in line and not line.startswith("note: ")]


def test_report_of_check_deploy_status_audit_and_manifest_as_inventory(fleet: Fleet) -> None:
    fleet.groups["jw2"]["agent_purpose"] = "Grammar/Noise"
    checked = fleet.deploy("--check")
    assert not fleet.reports.exists()
    header, *rows = printed(checked.output)
    assert header.split("  ")[0] == "agent"
    assert [row.split()[:3] for row in rows] == [
        ["cleaner", "jw2-1", CLEANER_3B],
        ["cleaner", "jw2-1", CLEANER_8B],
        ["describer", "jw3-1", DESCRIBER_3B],
    ]
    assert all("would be activated" in row for row in rows)

    done = fleet.deploy()
    assert {path.name for path in fleet.reports.iterdir()} == FILES
    assert {stat.S_IMODE(path.stat().st_mode) for path in fleet.reports.iterdir()} == {0o644}
    report = fleet.report()
    jsonschema.validate(report, SCHEMA)
    assert (report["kind"], report["check_mode"], report["failures"]) == ("deploy", False, [])
    assert report["training_server"] == {"name": "sbs29", "address": "sbs29"}
    for node in report["nodes"]:
        assert list(node["seconds"]) == ["describe", "compare", "transfer", "load", "activate"]
        released, synced = (done.adapters(node["node"], f"adapter_{step}") for step in ("release", "sync"))
        assert [adapter["name"] for adapter in node["adapters"]] == list(released)
        for adapter in node["adapters"]:
            found = released[adapter["name"]]
            assert {key: adapter[key] for key in ("release", "digest", "size", "files", "previous", "history", "path")} == {
                key: found[key] for key in ("release", "digest", "size", "files", "previous", "history", "path")
            }
            assert adapter["downloaded_bytes"] == synced[adapter["name"]]["downloaded_bytes"]
            served = fleet.served(node["node"], adapter["name"])
            assert {entry["path"]: entry["size"] for entry in adapter["files"]} == {
                path.name: path.stat().st_size for path in served.iterdir()
            }
    evidence = contents(fleet.reports)

    # A run that proves nothing keeps the files.
    status = fleet.run("status")
    assert [row.split()[4] for row in printed(status.output)[1:]] == ["active"] * 3
    fleet.deploy("--check")
    assert contents(fleet.reports) == evidence

    audited = fleet.run("audit")
    assert audited.rc == 0, audited.output
    assert fleet.report()["kind"] == "audit"
    assert fleet.reported("jw2-1", CLEANER_3B)["state"] == "as_verified"
    assert fleet.boxes()["All checksums verified"]

    # The written manifest is an inventory. Run again with it, and with the variables that a
    # manifest cannot have.
    manifest = fleet.root / "again" / "MANIFEST.md"
    beside = manifest.parent / "group_vars"
    beside.mkdir(parents=True)
    shutil.copy(fleet.reports / "MANIFEST.md", manifest)
    for group in ("all", "training", "agents"):
        (beside / f"{group}.json").write_text(json.dumps(fleet.groups[group]), encoding="utf-8")
    hosts = {name: {**variables, "ansible_host": "127.0.0.1"} for name, variables in fleet.hosts.items()}
    (manifest.parent / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    again = Background("deploy", "-i", str(manifest), "-i", str(manifest.parent / "hosts.json"), directory=manifest.parent).wait()
    assert again.rc == 0, again.output
    assert again.changed() == []
    written = json.loads((manifest.parent / "record.report" / "report.json").read_text(encoding="utf-8"))
    keys = (
        "name", "variant", "default", "base", "rank", "alpha", "target_modules", "dataset", "quality", "release", "source",
        "target",
    )  # fmt: skip
    assert [[adapter[key] for key in keys] for node in written["nodes"] for adapter in node["adapters"]] == [
        [adapter[key] for key in keys] for node in report["nodes"] for adapter in node["adapters"]
    ]
    assert [node["purpose"] for node in written["nodes"]] == [{"cleaner": "Grammar/Noise"}, {"describer": ""}]


def test_report_of_failed_deploy_lists_each_failure_with_remedy(fleet: Fleet) -> None:
    config = fleet.source / CLEANER_8B / CONFIG
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 64}))
    fleet.hosts["jw3-1"].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=9)
    done = fleet.run("deploy")
    assert done.rc != 0
    _header, *rows, rejected, suggested, unreachable = printed(done.output)
    assert [row.split(maxsplit=3)[3].split("  ")[0].strip() for row in rows] == ["skipped", "failed", "unreachable"]
    rejection = f"adapter {CLEANER_8B}, lora_alpha in {CONFIG}: is 64; the inventory declares alpha 32. "
    assert rejected.startswith(f"sbs29 (needed by jw2-1): {rejection}")
    assert rejected.endswith("Deliver the intended adapter, or correct the inventory.")
    assert suggested.startswith(f"sbs29 (needed by jw2-1): adapter {CLEANER_8B}: matches this row instead: ")
    assert unreachable.startswith("jw3-1: is unreachable: ") and "Restore the connection and run again" in unreachable
    report = fleet.report()
    jsonschema.validate(report, SCHEMA)
    assert not any(fleet.boxes().values())
    assert [(failure["node"], failure["adapter"]) for failure in report["failures"]] == [
        ("jw2-1", CLEANER_8B), ("jw2-1", CLEANER_8B), ("jw3-1", None),
    ]  # fmt: skip


def test_report_of_unreachable_training_server_names_it(fleet: Fleet) -> None:
    # The discard port: nothing listens there.
    fleet.hosts["sbs29"].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=9)
    done = fleet.run("deploy")
    assert done.rc != 0
    report = fleet.report()
    jsonschema.validate(report, SCHEMA)
    assert [(failure["node"], failure["subject"]) for failure in report["failures"]] == [("jw2-1", "sbs29"), ("jw3-1", "sbs29")]
    assert {adapter["state"] for node in report["nodes"] for adapter in node["adapters"]} == {"failed"}
    # One message or two: where ssh ends before Ansible has sent it the module, Ansible says that
    # instead of what ssh has said.
    lines = [line for line in printed(done.output) if "is unreachable" in line]
    found = [re.match(r"sbs29 \(needed by ([^)]+)\): is unreachable: ", line) for line in lines]
    assert sorted(", ".join(one[1] for one in found if one).split(", ")) == ["jw2-1", "jw3-1"], lines


def test_report_of_preflight_is_one_table_and_keeps_the_files(fleet: Fleet) -> None:
    fleet.deploy("--limit", "jw3")
    evidence = contents(fleet.reports)
    ready = fleet.run("preflight")
    assert ready.rc == 0, ready.output
    header, *rows, verdict = printed(ready.output)
    assert header.split() == ["host", "check", "state", "found"]
    hosts = list(dict.fromkeys(row.split()[0] for row in rows if "  ok  " in row))
    assert hosts == ["sbs29", "jw2-1", "jw3-1"]
    assert verdict == "Ready for a delivery: 3 of 3 hosts."

    shutil.rmtree(fleet.source / DESCRIBER_3B)
    fleet.hosts["jw2-1"]["agent_owner"] = "no-such-user"
    done = fleet.run("preflight")
    assert done.rc == 2
    lines = printed(done.output)
    assert lines[-1] == "Ready for a delivery: 0 of 3 hosts. Not ready: sbs29, jw2-1, jw3-1."
    # Once each, in the table and below it, although a node's own task fails too.
    assert sum(line.startswith(f"sbs29, jw3-1: adapter {DESCRIBER_3B}: ") for line in lines) == 1
    assert sum(line.startswith("jw2-1: owner and modes: ") for line in lines) == 1
    assert contents(fleet.reports) == evidence


def test_report_of_drift_and_rollback(fleet: Fleet) -> None:
    fleet.deploy("--limit", "jw3")
    old = fleet.reported("jw3-1", DESCRIBER_3B)["release"]
    fleet.offer(DESCRIBER_3B, "adapter_2")
    fleet.deploy("--limit", "jw3")
    (fleet.served("jw3-1", DESCRIBER_3B) / WEIGHTS).unlink()
    audited = fleet.run("audit", "--limit", "jw3")
    assert audited.rc != 0
    adapter = fleet.reported("jw3-1", DESCRIBER_3B)
    assert (adapter["state"], adapter["verified"], adapter["previous"]) == ("differs", False, old)
    # The role's own task failed because of the drift, which is not listed twice.
    [failure] = fleet.report()["failures"]
    assert failure["problem"] == f"missing  {fleet.served('jw3-1', DESCRIBER_3B) / WEIGHTS}"
    assert "Deploy again: it repairs what differs, from the node's own store" in printed(audited.output)[-1]

    back = fleet.run("rollback", "--limit", "jw3")
    assert back.rc == 0, back.output
    report = fleet.report()
    assert report["kind"] == "rollback"
    adapter = fleet.reported("jw3-1", DESCRIBER_3B)
    assert (adapter["state"], adapter["release"], adapter["verified"]) == ("rolled_back", old, True)
    assert [entry["release"] for entry in adapter["history"]][-1] == old
    assert adapter["changes"]["after"]["release"] == old


def test_report_of_killed_run_has_empty_boxes(fleet: Fleet) -> None:
    fleet.deploy("--limit", "jw3")
    assert fleet.boxes()["Describer models → jw3"]
    # The module stops before it transfers anything.
    Barrier(fleet, "jw3-1", "adapter_sync")
    run = Background("deploy", "-i", str(fleet.write_inventory()), "--limit", "jw3", directory=fleet.root)
    try:
        deadline = time.monotonic() + LIMIT
        while fleet.boxes()["Describer models → jw3"]:
            assert time.monotonic() < deadline and not run.ended, run.output
            time.sleep(0.02)
    finally:
        run.kill()
    assert not any(fleet.boxes().values())
    assert fleet.report()["ended"] is None


def ansible_playbook(directory: pathlib.Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it with separate outputs."""
    env = {**recording(directory / "record.jsonl"), **environment}
    command = [str(PLAYBOOK), *map(str, arguments)]
    return subprocess.run(
        command, env=env, cwd=directory, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL, check=False
    )


def test_report_of_other_playbooks_is_not_written(tmp_path: pathlib.Path) -> None:
    playbook = [{"hosts": "localhost", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": "hello"}}]}]
    (tmp_path / "plain.yml").write_text(json.dumps(playbook))
    ours_alone = {"ANSIBLE_CALLBACKS_ENABLED": "lorafleet.delivery.delivery_report"}
    done = ansible_playbook(tmp_path, "-i", "localhost,", "plain.yml", **ours_alone)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "agent" not in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"plain.yml"}


def test_report_covers_all_plays_of_a_playbook(fleet: Fleet) -> None:
    (fleet.served("jw3-1", DESCRIBER_3B)).symlink_to("nowhere")
    plays = [{"hosts": group, "gather_facts": False, "roles": ["lorafleet.delivery.agent"]} for group in ("jw2", "jw3")]
    (fleet.root / "site.yml").write_text(json.dumps(plays))
    done = ansible_playbook(fleet.root, "-i", fleet.write_inventory(), "site.yml")
    assert done.returncode != 0
    states = [adapter["state"] for node in fleet.report()["nodes"] for adapter in node["adapters"]]
    assert states == ["activated", "activated", "failed"]


def test_report_with_json_stdout_goes_to_stderr(fleet: Fleet) -> None:
    if not (pathlib.Path(ansible.__file__).parents[1] / "ansible_collections" / "ansible" / "posix").exists():
        pytest.skip("the collection ansible.posix, with its callback json, is not installed (requirements/lab.txt)")
    playbook = CHECKOUT / "playbooks" / "deploy.yml"
    arguments = ("-i", fleet.write_inventory(), playbook, "--limit", "jw3")
    ours = ",".join(f"lorafleet.delivery.delivery_{name}" for name in ("progress", "report"))
    json_and_ours = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_CALLBACKS_ENABLED": ours}
    done = ansible_playbook(fleet.root, *arguments, **json_and_ours)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["stats"]["jw3-1"]["failures"] == 0
    assert "jw3-1: activating" in done.stderr
    assert f"describer  jw3-1  {DESCRIBER_3B}" in done.stderr
    # A directory that cannot be written does not fail the run.
    (fleet.root / "taken").write_text("")
    there = str(fleet.root / "taken" / "below")
    done = ansible_playbook(fleet.root, *arguments, ANSIBLE_STDOUT_CALLBACK="minimal", LORAFLEET_REPORT_DIR=there)
    assert done.returncode == 0
    assert f"describer  jw3-1  {DESCRIBER_3B}" in done.stdout
    assert "delivery_report:" in done.stderr and "Set LORAFLEET_REPORT_DIR to another directory" in done.stderr


def test_report_of_run_with_no_log_says_why_it_is_empty(fleet: Fleet) -> None:
    done = fleet.run("deploy", environment={"ANSIBLE_NO_LOG": "true"})
    assert done.rc == 0, done.output
    assert "delivery_report: has no results, because no_log hides them." in done.output
    assert not any(fleet.boxes().values())
