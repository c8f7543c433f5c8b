# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deliveries over real ssh connections, to an sshd on this machine's loopback interface."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import pwd
import re
import signal
import subprocess
import sys
import threading
import time

from tests.support import sshd as sshd_server
from tests.support.fleet import (
    CLEANER_3B,
    CLEANER_8B,
    DESCRIBER_3B,
    Fleet,
    contents,
    travelling,
)
from tests.support.playbooks import Run

MIB = 1 << 20

SLOW_SSH = """\
#!{python}
import os, subprocess, sys, time
if "--sender" not in " ".join(sys.argv):
    os.execvp("ssh", ["ssh", *sys.argv[1:]])
source = subprocess.Popen(["ssh", *sys.argv[1:]], stdout=subprocess.PIPE)
left = {first}
while left and (data := os.read(source.stdout.fileno(), min(left, 65536))):
    os.write(1, data)
    left -= len(data)
while not left and not os.path.exists({stop!r}):
    time.sleep(0.1)
source.kill()
"""


def served_as_offered(fleet: Fleet, node: str, *names: str) -> bool:
    return all(contents(fleet.served(node, name)) == travelling(fleet.source / name) for name in names)


def test_deploy_with_either_end_or_both_over_ssh(fleet: Fleet, sshd: sshd_server.Server) -> None:
    fleet.hosts["jw2-1"].update(sshd.variables())
    fleet.deploy()
    assert served_as_offered(fleet, "jw2-1", CLEANER_3B, CLEANER_8B)
    assert served_as_offered(fleet, "jw3-1", DESCRIBER_3B)

    fleet.hosts["sbs29"].update(sshd.variables())
    # ~ is the home on the training server, not that of the controller's user.
    fleet.groups["training"]["training_models_dir"] = f"~/{os.path.relpath(fleet.source, pwd.getpwuid(os.getuid()).pw_dir)}"
    fleet.offer(CLEANER_3B, "bf16")
    fleet.offer(DESCRIBER_3B, "adapter")
    fleet.groups["agents"].update(agent_transfer_streams=1, agent_transfer_bwlimit="100M", agent_transfer_compress=True)
    done = fleet.deploy()
    assert served_as_offered(fleet, "jw2-1", CLEANER_3B, CLEANER_8B)
    assert served_as_offered(fleet, "jw3-1", DESCRIBER_3B)
    # The program that started each end: none for the local node, ssh for all others.
    starters = {node: [command[0] for command in done.of(node, "adapter_sync")["commands"]] for node in ("jw2-1", "jw3-1")}
    assert starters == {"jw2-1": ["ssh", "ssh"], "jw3-1": ["sh", "ssh"]}
    assert {"--bwlimit=100M", "--compress-choice=zstd"} <= set(done.of("jw3-1", "adapter_sync")["commands"][0])
    assert fleet.deploy().changed() == []


def test_deploy_directly_and_through_the_ssh_server_of_the_source(fleet: Fleet, sshd: sshd_server.Server) -> None:
    for host in ("sbs29", "jw2-1", "jw3-1"):
        fleet.hosts[host].update(sshd.variables())
    fleet.groups["training"]["training_models_dir"] = f"~/{os.path.relpath(fleet.source, pwd.getpwuid(os.getuid()).pw_dir)}"
    keys = sshd.private_key.parent / "authorized_keys"
    before = keys.read_bytes()
    through_ssh = {"agent_transfer_direct_ssh": True, "agent_transfer_direct_authorized_keys": str(keys)}
    fleet.groups["agents"].update(agent_transfer="auto", **through_ssh)
    fleet.hosts["jw2-1"]["agent_transfer_direct_ports"] = "0"
    done = fleet.deploy()
    assert served_as_offered(fleet, "jw2-1", CLEANER_3B, CLEANER_8B)
    assert served_as_offered(fleet, "jw3-1", DESCRIBER_3B)
    ways = {node: {one["way"] for one in done.of(node, "adapter_sync")["adapters"]} for node in ("jw2-1", "jw3-1")}
    assert ways == {"jw2-1": {"direct"}, "jw3-1": {"direct_ssh"}}
    assert keys.read_bytes() == before


def test_deploy_with_unreachable_hosts_delivers_the_others(
    fleet: Fleet, sshd: sshd_server.Server, tmp_path: pathlib.Path
) -> None:
    other_key = tmp_path / "other_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other_key], check=True)
    wrong_hosts = tmp_path / "wrong_hosts"
    wrong_hosts.write_text(f"[127.0.0.1]:{sshd.port} {other_key.with_suffix('.pub').read_text(encoding='utf-8')}")
    closed = {**sshd.variables(), "ansible_port": 1}
    # No shared connection: Ansible has checked the host key of an open one already.
    alone = {"ansible_ssh_args": "-o ControlMaster=no"}
    wrong_key = {**dataclasses.replace(sshd, known_hosts=wrong_hosts).variables(), **alone}
    fleet.add_node("jw2", "jw2-2", **wrong_key)
    fleet.add_node("jw3", "jw3-2", agent_training_host="sbs30")
    fleet.hosts["jw2-1"].update(closed)
    fleet.hosts["sbs30"] = wrong_key
    fleet.members["training"].append("sbs30")
    done = fleet.run("deploy")
    assert done.rc != 0
    reasons = {"jw2-1": "port 1: Connection refused", **dict.fromkeys(("jw2-2", "jw3-2"), "Host key verification failed")}
    for refused, reason in reasons.items():
        # Ansible does not wait for ssh's stderr if the pipe to it breaks first.
        assert re.search(f"{reason}|Data could not be sent to remote host", done.failures(refused)[0])
    for node in ("jw2-1", "jw2-2", "jw3-2"):
        assert contents(fleet.home(node)) == {"models": b""}
    assert served_as_offered(fleet, "jw3-1", DESCRIBER_3B)
    assert not any(fleet.boxes().values())


def test_deploy_without_rsync_at_the_source_names_it(fleet: Fleet, sshd: sshd_server.Server, tmp_path: pathlib.Path) -> None:
    """The controller is the training server and has no rsync; the node has another search path."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for directory in reversed(os.environ["PATH"].split(os.pathsep)):
        for path in pathlib.Path(directory).glob("*") if directory else ():
            (programs / path.name).unlink(missing_ok=True)
            (programs / path.name).symlink_to(path)
    (programs / "rsync").unlink()
    fleet.hosts["jw3-1"].update(sshd.variables())
    done = fleet.run("deploy", "--limit", "jw3", environment={"PATH": str(programs)})
    assert done.rc != 0
    [message] = done.failures("jw3-1")
    assert f"adapter {DESCRIBER_3B}, sbs29: did not find rsync in the search path of commands" in message
    assert not fleet.served("jw3-1", DESCRIBER_3B).exists()


def test_deploy_resumes_after_a_killed_receiver(fleet: Fleet, sshd: sshd_server.Server) -> None:
    size, first = 40 * MIB, 8 * MIB
    directory = fleet.offer(DESCRIBER_3B)
    (directory / "merges.txt").write_bytes(os.urandom(size))
    fleet.groups["jw3"]["agent_adapters"][0]["extra_files"] = ["merges.txt"]
    # The source's connection stalls after the first bytes of every try, also after its peer's end.
    slow, stop = fleet.root / "slow-ssh", fleet.root / "stop"
    slow.write_text(SLOW_SSH.format(python=sys.executable, first=first, stop=str(stop)), encoding="utf-8")
    slow.chmod(0o755)
    fleet.hosts["sbs29"].update(sshd.variables(), ansible_ssh_executable=str(slow))
    fleet.groups["agents"]["agent_transfer_timeout"] = 5
    ended: list[Run] = []
    deploy = threading.Thread(target=lambda: ended.append(fleet.run("deploy", "--limit", "jw3")))
    deploy.start()
    staging = fleet.stored("jw3-1", DESCRIBER_3B) / "staging"
    receivers: list[int] = []
    try:
        # On a busy machine whole tries may pass between two checks.
        while not receivers and deploy.is_alive():
            time.sleep(0.02)
            if any(path.stat().st_size >= first // 2 for path in staging.glob("*/merges.txt")):
                receivers = processes_with(str(staging))
        for number in receivers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        deploy.join()
    finally:
        stop.touch()
    assert receivers
    [killed] = ended
    assert killed.rc != 0
    assert "run again to resume" in killed.failures("jw3-1")[0]
    assert not fleet.served("jw3-1", DESCRIBER_3B).exists()
    [kept] = staging.glob("*/merges.txt")
    arrived = kept.stat().st_size
    # Every try resumed the one before.
    assert first < arrived < size

    done = fleet.deploy("--limit", "jw3")
    assert (fleet.served("jw3-1", DESCRIBER_3B) / "merges.txt").read_bytes() == (directory / "merges.txt").read_bytes()
    assert served_but(fleet, "merges.txt")
    account = done.of("jw3-1", "adapter_sync")
    missing = sum(adapter["downloaded_bytes"] for adapter in account["adapters"]) - arrived
    assert missing <= account["wire_bytes"] <= 1.02 * missing


def served_but(fleet: Fleet, name: str) -> bool:
    found = contents(fleet.served("jw3-1", DESCRIBER_3B))
    return {key: value for key, value in found.items() if key != name} == travelling(fleet.source / DESCRIBER_3B)


def processes_with(argument: str) -> list[int]:
    """The PIDs of the rsync processes with this text in an argument."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().split(b"\0")
            if pathlib.Path(os.fsdecode(command[0])).name == "rsync" and any(argument.encode() in word for word in command):
                found.append(int(path.parent.name))
    return found
