# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A hostile local user of a node: a process of the load test's user wants to write its result."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pwd
import subprocess
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._linux import capabilities
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test import child as child_file
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test import confinement
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import WorkerRun, run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.loading_user import LoadingUser
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import (
    LoadTestResult,
    Report,
    RunResult,
    Target,
)

NAME = "nobody"
LIMIT = 60
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# What another process of the user tries on the load test's process, which waits meanwhile. It
# prints how many descriptors and files it has found, and what it was able to do.
ATTACK = r"""
import ctypes, glob, json, os, sys
marker, started, go, forged = sys.argv[1:]
open(started).read()
libc = ctypes.CDLL(None, use_errno=True)
own = os.getpid()
pids, done, tried = [], [], 0

def attempt(what, call, *arguments):
    global tried
    tried += 1
    try:
        if call(*arguments) not in (-1, []):
            done.append(what)
    except OSError:
        pass

def write(path):
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, forged.encode() + b"\n")
    os.close(descriptor)

def take(pid, number):
    handle = libc.syscall(434, pid, 0)
    descriptor = libc.syscall(438, handle, number, 0)
    if descriptor >= 0:
        os.write(descriptor, forged.encode() + b"\n")
    return descriptor

def attach(pid):
    if libc.ptrace(16, pid, 0, 0):
        return -1
    os.waitpid(pid, 0)
    return libc.ptrace(17, pid, 0, 0)

for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
    try:
        status = open(f"/proc/{pid}/status").read()
        command = open(f"/proc/{pid}/cmdline").read()
    except OSError:
        continue
    if pid != own and f"Uid:\t{os.getuid()}\t" in status and marker in command:
        pids.append(pid)
        attempt("open memory", os.open, f"/proc/{pid}/mem", os.O_RDWR)
        attempt("open root", os.listdir, f"/proc/{pid}/root")
        for number in range(3, 64):
            attempt("write to descriptor", write, f"/proc/{pid}/fd/{number}")
            attempt("take descriptor", take, pid, number)
        attempt("attach", attach, pid)
places = glob.glob("/tmp/tmp*/*") + glob.glob("/tmp/tmp*/*/*")
for path in places:
    if os.path.basename(path) in ("load.py", "request.json", "home", "result.json", "main.py"):
        attempt("write " + os.path.basename(path), write, path)
        attempt("replace " + os.path.basename(path), os.rename, path, path + ".old")
        if os.path.isdir(path):
            attempt("plant", os.open, os.path.join(path, "planted"), os.O_CREAT | os.O_WRONLY)
open(go, "w").close()
print(json.dumps({"pids": len(pids), "tried": tried, "done": sorted(set(done))}))
"""


@dataclasses.dataclass(frozen=True)
class Attack:
    """The load test beside an attack, and what the attacker said."""

    outcome: WorkerRun
    pids: int
    tried: int
    done: list[str]


@pytest.fixture
def attack() -> t.Iterator[t.Callable[[], Attack]]:
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory)
        path.chmod(0o755)
        yield lambda: _attack(path)


def _attack(directory: pathlib.Path) -> Attack:
    user = pwd.getpwnam(NAME)
    started, go, program, python = (directory / name for name in ("started", "go", "attack", "honest-python"))
    for fifo in (started, go):
        os.mkfifo(fifo)
        os.chown(fifo, user.pw_uid, -1)
    program.write_text(ATTACK, encoding="utf-8")
    # An honest interpreter without PEFT, which is attacked from its first moment on.
    python.write_text(f'#!/bin/bash\n: > {started}\nread < {go}\nexec /usr/bin/python3 "$@"\n', encoding="utf-8")
    for path in (program, python):
        path.chmod(0o755)
    passed = RunResult({"a": Report(LoadTestResult(level="golden", device="forged"), passed=True)})
    command = ["/usr/bin/python3", str(program), str(python), str(started), str(go), json.dumps(dataclasses.asdict(passed))]
    identity: dict[str, t.Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/", **identity)
    try:
        target = Target("a", "/nonexistent", "adapter_model.safetensors", "adapter", {}, None, False)
        outcome = run_worker(str(python), "cpu", [target], LIMIT, "/nonexistent", LoadingUser.named(NAME))
        said = json.loads(attacker.communicate(timeout=LIMIT)[0])
    finally:
        attacker.kill()
        attacker.wait()
    return Attack(outcome, **said)


@pytest.fixture(params=[True, False], ids=["isolated", "not isolated"])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(child_file, "available_isolation", lambda: ())
    elif not confinement.available_isolation():
        pytest.skip("no namespaces can be made here")


@pytest.mark.usefixtures("isolation")
def test_receipt_cannot_be_forged_by_another_process_of_the_user(attack: t.Callable[[], Attack]) -> None:
    found = attack()
    # It has seen the process and tried everything on it.
    assert found.pids >= 1
    assert found.tried > 100
    assert found.done == []
    assert found.outcome.reports == {}
    assert "has no torch" in str(found.outcome.problems[0])


@pytest.mark.usefixtures("isolation")
def test_attack_on_a_process_without_a_guard_attaches(attack: t.Callable[[], Attack], monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack is real: the guard is what holds it, before Python can protect itself."""
    if pathlib.Path("/proc/sys/kernel/yama/ptrace_scope").exists():
        pytest.skip("Yama holds processes back from each other on this machine")
    monkeypatch.setattr(capabilities, "permitted", lambda: 0)
    found = attack()
    assert {"attach", "open memory", "take descriptor"} <= set(found.done)
