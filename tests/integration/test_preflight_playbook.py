# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The preflight playbook: every host, every problem, and nothing left behind."""

from __future__ import annotations

import pathlib
import shutil
import sys

import pytest

from tests.support import sshd as sshd_server
from tests.support import tiny_adapters
from tests.support.accounts import SECRET, Accounts
from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, Fleet, contents
from tests.support.playbooks import Run, Variables

HOSTS = ("sbs29", "jw2-1", "jw3-1")


def states(fleet: Fleet) -> dict[str, dict[str, bytes]]:
    """The files of all hosts."""
    return {host: contents(fleet.root / host) for host in HOSTS}


def checks(done: Run, host: str) -> dict[str, Variables]:
    """The last entry of each check that a host's own preflight returned."""
    found = [
        entry["result"]["checks"]
        for entry in done.results
        if entry["host"] == host and entry["action"].endswith("preflight_info")
    ]
    return {one["check"]: one for one in found[-1]}


def failed(done: Run, host: str) -> set[str]:
    return {name for name, one in checks(done, host).items() if one["state"] == "failed"}


def programs_without(fleet: Fleet, host: str, *names: str) -> None:
    """Let modules on a host find these programs only."""
    directory = fleet.root / f"{host}-programs"
    directory.mkdir()
    for name in names:
        (directory / name).symlink_to(str(shutil.which(name)))
    python = fleet.root / f"{host}-python"
    python.write_text(f'#!/bin/sh\nPATH={directory} exec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    fleet.hosts[host]["ansible_python_interpreter"] = str(python)


def test_preflight_of_ready_fleet_passes_and_changes_nothing(fleet: Fleet) -> None:
    before = states(fleet)
    done = fleet.run("preflight")
    assert done.rc == 0, done.output
    assert states(fleet) == before
    assert [host for host in HOSTS if failed(done, host)] == []
    assert done.changed() == []
    assert checks(done, "jw2-1")["connection"]["found"] == "local"
    # The training server is asked once for each node's adapters, and checks itself.
    assert checks(done, "sbs29")[f"adapter {DESCRIBER_3B}"]["state"] == "ok"

    # What it promises is what a delivery does.
    promised = next(entry["result"] for entry in done.results if "download_bytes" in entry["result"] and entry["host"] == "jw2-1")
    sent = fleet.deploy().of("jw2-1", "adapter_sync")["adapters"]
    assert promised["download_bytes"] == sum(adapter["downloaded_bytes"] for adapter in sent)

    # A fleet to which everything was delivered is ready too.
    before = states(fleet)
    again = fleet.run("preflight")
    assert (again.rc, states(fleet) == before) == (0, True), again.output
    assert checks(again, "jw2-1")["transfer"]["found"].startswith("0 B to receive")


def test_preflight_finds_six_faults_of_a_node_at_once(fleet: Fleet) -> None:
    programs_without(fleet, "jw2-1", "flock")
    base = fleet.groups["agents"]["agent_bases"][tiny_adapters.BASE_NAME]
    fleet.hosts["jw2-1"].update(
        agent_store=str(fleet.root / "jw2-1" / "absent" / ".lorafleet"),
        agent_owner="no-such-user",
        agent_python=sys.executable,
        agent_level="adapter",
        agent_bases={tiny_adapters.BASE_NAME: {**base, "path": "/absent"}},
    )
    fleet.groups["jw2"]["agent_adapters"][0]["alpha"] = 64
    before = states(fleet)
    done = fleet.run("preflight")
    assert done.rc == 2
    assert states(fleet) == before
    wanted = {"rsync", "store", "owner and modes", "PEFT interpreter", f"base {tiny_adapters.BASE_NAME}", f"adapter {CLEANER_3B}"}
    assert failed(done, "jw2-1") == wanted
    [message] = done.failures("jw2-1")
    for name, one in checks(done, "jw2-1").items():
        assert (f"{name}: {one['found']} {one['remedy']}" in message) == (name in wanted)
        assert one["remedy"] or name not in wanted
    # The other hosts are checked all the same, and the training server has the wrong adapter.
    assert failed(done, "jw3-1") == set()
    assert failed(done, "sbs29") == {f"adapter {CLEANER_3B}"}


def test_preflight_with_wrong_adapters_fails_each_of_them_with_a_limit_too(fleet: Fleet) -> None:
    for name in (CLEANER_3B, CLEANER_8B):
        shutil.rmtree(fleet.source / name)
    done = fleet.run("preflight", "--limit", "jw2")
    assert done.rc == 2
    assert failed(done, "jw2-1") == {f"adapter {CLEANER_3B}", f"adapter {CLEANER_8B}"}
    assert done.worked_on() == {"jw2-1"}
    # Tags narrow it as they narrow a delivery, and a limit may name the training server alone.
    done = fleet.run("preflight", "--tags", "describer", "--limit", "sbs29")
    assert (done.rc, done.worked_on()) == (0, {"sbs29"}), done.output
    assert f"adapter {DESCRIBER_3B}" in checks(done, "sbs29")
    assert f"adapter {CLEANER_3B}" not in checks(done, "sbs29")


def test_preflight_over_ssh_names_hosts_that_cannot_be_reached(fleet: Fleet, sshd: sshd_server.Server) -> None:
    fleet.hosts["jw2-1"].update(sshd.variables())
    fleet.hosts["sbs29"].update(sshd.variables())
    fleet.hosts["jw3-1"].update({**sshd.variables(), "ansible_port": 1})
    keys = sshd.private_key.parent / "authorized_keys"
    before = keys.read_bytes()
    through_ssh = {"agent_transfer_direct_ssh": True, "agent_transfer_direct_authorized_keys": str(keys)}
    fleet.hosts["jw2-1"].update(agent_transfer="auto", agent_transfer_direct_ports="0", **through_ssh)
    done = fleet.run("preflight")
    assert done.rc == 2
    assert (failed(done, "jw2-1"), failed(done, "sbs29")) == (set(), set())
    assert checks(done, "jw2-1")["connection"]["found"] == f"ssh to 127.0.0.1 port {sshd.port} as {sshd.user}"
    ways = {name: one["found"] for name, one in checks(done, "jw2-1").items() if name.startswith("way ")}
    assert list(ways) == ["way direct", "way direct_ssh"]
    assert ways["way direct_ssh"] == f"the node reaches port {sshd.port} of 127.0.0.1"
    assert keys.read_bytes() == before
    lost = checks(done, "jw3-1")
    assert list(lost) == ["connection"]
    assert "Connection refused" in lost["connection"]["found"]
    assert "ssh -p 1 -l" in lost["connection"]["remedy"]
    assert not done.unreachable("jw3-1")


def test_preflight_with_lost_training_server_still_checks_nodes(fleet: Fleet, sshd: sshd_server.Server) -> None:
    fleet.hosts["sbs29"].update({**sshd.variables(), "ansible_port": 1})
    fleet.hosts["jw2-1"]["agent_owner"] = "no-such-user"
    done = fleet.run("preflight")
    assert done.rc == 2
    assert failed(done, "sbs29") == {"connection"}
    assert failed(done, "jw2-1") == {"training server", "owner and modes"}
    assert failed(done, "jw3-1") == {"training server"}
    assert checks(done, "jw3-1")["training server"]["found"].startswith("connection: ssh to 127.0.0.1 port 1")


@pytest.mark.parametrize("script", ["exit 1", "echo no JSON"])
def test_preflight_where_no_module_runs_names_python(fleet: Fleet, tmp_path: pathlib.Path, script: str) -> None:
    python = tmp_path / "broken"
    python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    fleet.hosts["jw3-1"]["ansible_python_interpreter"] = str(python)
    done = fleet.run("preflight")
    assert done.rc == 2
    assert failed(done, "jw3-1") == {"Ansible's Python"}
    assert failed(done, "jw2-1") == set()


def test_preflight_in_check_mode_tries_nothing(fleet: Fleet) -> None:
    done = fleet.run("preflight", "--check")
    assert done.rc == 0, done.output
    unknown = {name for name, one in checks(done, "jw2-1").items() if one["state"] == "unknown"}
    assert unknown == {"locks", "owner and modes"}


def test_preflight_as_operator_names_missing_password_and_rights(fleet: Fleet, accounts: Accounts) -> None:
    """One node requires a sudo password, the other belongs to root but has no become."""
    accounts.may("(ALL) ALL")
    for node, become in (("jw2-1", True), ("jw3-1", False)):
        home = accounts.directory(node, "root")
        (home / "models").mkdir()
        fleet.hosts[node].update(
            {**accounts.server.variables(), "ansible_python_interpreter": "/usr/bin/python3", "ansible_become": become},
            agent_models_dir=str(home / "models"),
            agent_store=str(home / ".lorafleet"),
        )
    fleet.hosts["jw3-1"]["agent_load_test_user"] = accounts.operator
    done = fleet.run("preflight")
    assert done.rc == 2
    assert failed(done, "jw2-1") == {"become"}
    become = checks(done, "jw2-1")["become"]
    assert "sudo requires a password, but none is set" in become["found"]
    assert "ansible_become_password" in become["remedy"]
    assert failed(done, "jw3-1") == {"models directory", "store"}
    assert checks(done, "jw3-1")["become"]["found"] == f"not used, modules run as {accounts.operator}"
    for node in ("jw2-1", "jw3-1"):
        assert contents(accounts.home / node) == {"models": b""}
    # With the password it is ready.
    fleet.hosts["jw2-1"]["ansible_become_password"] = SECRET
    done = fleet.run("preflight", "--limit", "jw2")
    assert (done.rc, failed(done, "jw2-1")) == (0, set()), done.output
    assert checks(done, "jw2-1")["become"]["found"] == "to root by sudo, modules run as root"
    assert SECRET not in done.output + str(done.results)
    assert contents(accounts.home / "jw2-1") == {"models": b""}
