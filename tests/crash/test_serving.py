# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that are killed while they make an engine serve another release, and the runs after them.

A run is killed before and after every call that changes the engine's list, or before and after each
restart of the engine, and at every system call that changes its records.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import typing as t
from unittest import mock

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving import commands
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.contract import Dead
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.desired import read_desired
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines import at_start
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.http import Answer, Client
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.journal import read_pending
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.names import versioned

from tests.crash.conftest import Count
from tests.crash.faults import CALLS, KILL, changes
from tests.crash.traced import calls_of, run_with_fault
from tests.support.fake_engine import faults, running
from tests.support.releases import NAME, release_of, write_version
from tests.support.serving import ServingNode, make_base

OLD, NEW, OLDER = 1, 2, 4
# What is wrong with NEW.
STARTS_NOT, ANSWERS_WRONGLY = "the engine does not start with it", "it answers wrongly"


class Stage:
    """A node that serves OLD and has NEW active, which can be returned to that state."""

    def __init__(self, directory: pathlib.Path, engine: running.FakeEngine, node: ServingNode) -> None:
        self.engine = engine
        self.node = node
        self.node.deploy(OLD)
        assert self.node.serve()["problems"] == []
        self.node.deploy(NEW)
        self.records = pathlib.Path(self.node.node_engines()[0].paths.all)
        self.saved = directory / "saved"
        shutil.copytree(self.records, self.saved)
        # The way back is taken if the public name answers from other weights after the switch.
        self.other = directory / "other"
        write_version(self.other, 3)
        self.goes_back = False

    def reset(self) -> None:
        self.engine.heal()
        client = self.node.node_engines()[0].client
        for row in client.listed():
            client.unload(row.name)
        client.load(NAME, self.node.root(OLD))
        shutil.rmtree(self.records)
        shutil.copytree(self.saved, self.records)
        if self.goes_back:
            self.engine.fault(faults.OTHER_WEIGHTS, name=NAME, times=1, directory=str(self.other))

    def run(self) -> bool:
        return bool(self.node.serve()["changed"])

    def violations(self) -> list[str]:
        """Return what must not be after a kill."""
        found = []
        listed = self.node.listed()
        roots = {self.node.root(OLD): release_of(OLD), self.node.root(NEW): release_of(NEW)}
        pending = read_pending(self.node.node_engines()[0].paths)
        recorded = read_desired(self.node.node_engines()[0].paths).adapters[NAME]
        public = listed.get(NAME)
        if public not in (None, *roots):
            found.append(f"{NAME} leads to {public}")
        if public != recorded.root and pending is None:
            found.append(f"{recorded.root} is recorded, {public} is listed, and there is no journal")
        if self.goes_back and recorded.root != self.node.root(OLD):
            found.append("a release was recorded that did not pass")
        return found

    def heal(self) -> None:
        """Let the release pass."""
        self.engine.heal()

    def violations_after_another_run(self) -> list[str]:
        self.heal()
        result = self.node.serve()
        found = [str(problem) for problem in result["problems"]]
        if self.node.listed() != self.listed_after:
            found.append(f"another run leaves {self.node.listed()}")
        if self.node.desired().adapters[NAME].root != self.node.root(NEW):
            found.append("another run does not record the release")
        if read_pending(self.node.node_engines()[0].paths) is not None:
            found.append("another run leaves a journal")
        if self.run():
            found.append("a third run changes something")
        return found

    def state(self) -> tuple[t.Any, ...]:
        """What another run finds, without the times."""
        paths = self.node.node_engines()[0].paths
        return (*sorted(self.node.listed().items()), read_pending(paths), self.node.desired().rows()[0])

    @property
    def listed_after(self) -> dict[str, t.Optional[str]]:
        """What the engine lists once it serves NEW."""
        return {NAME: self.node.root(NEW)}


class GatewayStage(Stage):
    """A node whose users reach OLD through a gateway, and whose engine still has the one before."""

    def __init__(self, directory: pathlib.Path, engine: running.FakeEngine, node: ServingNode) -> None:
        node.deploy(OLDER)
        assert node.serve()["problems"] == []
        super().__init__(directory, engine, node)

    def reset(self) -> None:
        self.engine.heal()
        client = self.node.node_engines()[0].client
        for row in client.listed():
            client.unload(row.name)
        for version in (OLDER, OLD):
            client.load(versioned(NAME, release_of(version)), self.node.root(version))
        shutil.rmtree(self.records)
        shutil.copytree(self.saved, self.records)
        if self.goes_back:
            self.engine.fault(faults.OTHER_WEIGHTS, name=versioned(NAME, release_of(NEW)), times=1, directory=str(self.other))

    def violations(self) -> list[str]:
        listed = self.node.listed()
        recorded, pending = self.node.desired().adapters[NAME], read_pending(self.node.node_engines()[0].paths)
        rightly = {versioned(NAME, release_of(version)): self.node.root(version) for version in (OLDER, OLD, NEW)}
        found = [f"{name} has {root}" for name, root in listed.items() if root != rightly.get(name)]
        if versioned(NAME, release_of(OLD)) not in listed:
            found.append("the gateway leads to a release that is not loaded")
        if len(listed) > 2:
            found.append(f"three releases are loaded: {sorted(listed)}")
        if versioned(NAME, release_of(NEW)) in listed and recorded.release != release_of(NEW) and pending is None:
            found.append("a release is loaded that no record has")
        if self.goes_back and recorded.release != release_of(OLD):
            found.append("a release was recorded that did not pass")
        return found

    @property
    def listed_after(self) -> dict[str, t.Optional[str]]:
        return {versioned(NAME, release_of(version)): self.node.root(version) for version in (OLD, NEW)}


class RestartedStage(Stage):
    """A node whose engine gets its adapters at its start, and lists their names."""

    def __init__(self, directory: pathlib.Path, engine: running.FakeEngine, node: ServingNode) -> None:
        paths = node.node_engines()[0].paths
        # The unit of the engine reads the file of the store.
        (directory / "options").symlink_to(paths.options)
        super().__init__(directory, engine, node)
        self.options = pathlib.Path(paths.options)
        self.weights = pathlib.Path(node.root(NEW), "adapter_model.safetensors")
        self.kept = self.weights.read_bytes()
        self.wrong = ""

    def reset(self) -> None:
        shutil.rmtree(self.records)
        shutil.copytree(self.saved, self.records)
        self.heal()
        self.engine.restart()
        if self.wrong == STARTS_NOT:
            self.weights.unlink()
        elif self.wrong == ANSWERS_WRONGLY:
            self.node.record(NEW, golden_of=3)

    def heal(self) -> None:
        self.weights.write_bytes(self.kept)
        self.node.record(NEW)

    def violations(self) -> list[str]:
        found = []
        recorded, pending = self.node.desired().adapters[NAME], read_pending(self.node.node_engines()[0].paths)
        if str(self.options.read_text()) != f"LORAFLEET_OPTIONS={NAME}={recorded.root}\n" and pending is None:
            found.append(f"{recorded.root} is recorded, the options are others, and there is no journal")
        if self.wrong and recorded.root != self.node.root(OLD):
            found.append("a release was recorded that did not pass")
        return found

    def state(self) -> tuple[t.Any, ...]:
        try:
            listed: t.Any = tuple(self.node.listed())
        except Dead:
            listed = None
        paths = self.node.node_engines()[0].paths
        return listed, read_pending(paths), self.options.read_text(), self.node.desired().rows()[0]

    @property
    def listed_after(self) -> dict[str, t.Optional[str]]:
        return {NAME: None}


@pytest.fixture
def stage(directory: pathlib.Path) -> t.Iterator[Stage]:
    base = make_base(directory)
    with running.running("vllm", base, "0.32.0") as engine:
        yield Stage(directory, engine, ServingNode(directory, base, engine.url))


@pytest.fixture
def gateway(directory: pathlib.Path) -> t.Iterator[Stage]:
    base = make_base(directory)
    with running.running("vllm", base, "0.32.0") as engine:
        yield GatewayStage(directory, engine, ServingNode(directory, base, engine.url, public_name="none"))


@pytest.fixture(params=["", STARTS_NOT, ANSWERS_WRONGLY])
def restarted(request: pytest.FixtureRequest, directory: pathlib.Path) -> t.Iterator[RestartedStage]:
    base = make_base(directory)
    with running.running("own", base, start=str(directory / "options")) as engine:
        node = ServingNode(directory, base, engine.url, "own", restart=engine.restart_command, start_timeout=60)
        stage = RestartedStage(directory, engine, node)
        stage.wrong = request.param
        yield stage


def run_and_die(stage: Stage, number: int, after: bool) -> bool:
    """Run in a process that is killed at one call. Returns whether there was such a call."""
    request = Client._request
    seen = 0

    def counted(client: Client, method: str, path: str, body: t.Optional[str], timeout: t.Optional[float]) -> Answer:
        nonlocal seen
        seen += path.endswith("load_lora_adapter")
        dies = path.endswith("load_lora_adapter") and seen == number
        if dies and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = request(client, method, path, body, timeout)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    process = os.fork()
    if process == 0:
        try:
            with mock.patch.object(Client, "_request", counted):
                stage.run()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("goes_back", [False, True])
def test_serving_killed_at_any_call_of_the_engine_ends_with_the_next_run(stage: Stage, goes_back: bool, count: Count) -> None:
    stage.goes_back = goes_back
    # Load, unload, load and unload; the way back unloads, loads and unloads.
    kill_at_calls(stage, 6 if goes_back else 4, count)


@pytest.mark.parametrize("goes_back", [False, True])
def test_serving_for_a_gateway_killed_at_any_call_of_the_engine_ends_with_the_next_run(
    gateway: Stage, goes_back: bool, count: Count
) -> None:
    gateway.goes_back = goes_back
    # Unload and load; the way back unloads.
    kill_at_calls(gateway, 3 if goes_back else 2, count)


def kill_at_calls(stage: Stage, calls: int, count: Count) -> None:
    found, kills = [], 0
    for after in (False, True):
        number = 1
        while True:
            stage.reset()
            if not run_and_die(stage, number, after):
                break
            where = f"{'after' if after else 'before'} change {number}: "
            found += [where + what for what in (*stage.violations(), *stage.violations_after_another_run())]
            number, kills = number + 1, kills + 1
    count("runs killed at a call of the engine", kills)
    assert kills == 2 * calls
    assert found == []


def run_and_die_at_restart(stage: Stage, number: int, after: bool) -> bool:
    """Run in a process that is killed at one restart. Returns whether there was such a restart."""
    run = commands.run
    seen = 0

    def counted(command: t.Sequence[str], seconds: float, key: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        run(command, seconds, key)
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    process = os.fork()
    if process == 0:
        try:
            with mock.patch.object(commands, "run", counted):
                stage.run()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def test_serving_killed_at_any_restart_of_the_engine_ends_with_the_next_run(restarted: RestartedStage, count: Count) -> None:
    found, kills = [], 0
    for after in (False, True):
        number = 1
        while True:
            restarted.reset()
            if not run_and_die_at_restart(restarted, number, after):
                break
            where = f"{'after' if after else 'before'} restart {number}: "
            found += [where + what for what in (*restarted.violations(), *restarted.violations_after_another_run())]
            number, kills = number + 1, kills + 1
    count("runs killed at a restart of the engine", kills)
    # The way back is another restart.
    assert kills == 2 * (2 if restarted.wrong else 1)
    assert found == []


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("goes_back", [False, True])
def test_serving_killed_at_any_change_of_its_records_ends_with_the_next_run(stage: Stage, goes_back: bool, count: Count) -> None:
    stage.goes_back = goes_back
    kill_at_changes_of_records(stage, count)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("goes_back", [False, True])
def test_serving_for_a_gateway_killed_at_any_change_of_its_records_ends_with_the_next_run(
    gateway: Stage, goes_back: bool, count: Count
) -> None:
    gateway.goes_back = goes_back
    kill_at_changes_of_records(gateway, count)


@pytest.mark.usefixtures("strace")
def test_serving_by_restarts_killed_at_any_change_of_its_records_ends_with_the_next_run(
    restarted: RestartedStage, count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    # strace would count, and kill, the calls of the command.
    monkeypatch.setattr(at_start, "restart", lambda _command, _seconds: restarted.engine.restart())
    kill_at_changes_of_records(restarted, count)


def kill_at_changes_of_records(stage: Stage, count: Count) -> None:
    stage.reset()
    _ended, calls = calls_of(stage.run, CALLS, stage.records)
    found, kills, seen = [], 0, set()
    for call in filter(changes, calls):
        stage.reset()
        if run_with_fault(stage.run, call, KILL).code is not None:
            found.append(f"{call.name} number {call.number}: the run was not killed")
        kills += 1
        where = f"{call.name} number {call.number} ({call.arguments[:120]}): "
        found += [where + what for what in stage.violations()]
        if stage.state() not in seen:
            seen.add(stage.state())
            found += [where + what for what in stage.violations_after_another_run()]
    count("runs killed at a change of the records", kills)
    assert kills > 10
    assert found == []
