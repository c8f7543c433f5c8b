# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starts fake engines for tests, sets their faults and reads what they were asked."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys
import typing as t

from tests.support.paths import CHECKOUT

from . import control
from .faults import Fault
from .personality import Settings

# The command of a site that converts adapters for llama-server: RELEASE and FILE follow.
CONVERT = [sys.executable, str(pathlib.Path(__file__).with_name("convert.py"))]
_LIMIT = 30


@dataclasses.dataclass(frozen=True)
class Seen:
    """A call that the engine got, and what it answered (``status`` None: nothing)."""

    kind: str
    name: str
    route: str
    body: str
    status: int | None
    answer: str
    dead: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


@dataclasses.dataclass(frozen=True)
class FakeEngine:
    """A running engine."""

    port: int
    control: int
    settings: Settings

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def restart_command(self) -> list[str]:
        """The command that restarts it, as a site would have one."""
        return [sys.executable, control.__file__, str(self.control), "restart"]

    def calls(self) -> list[Seen]:
        return [Seen(**fields) for fields in control.ask(self.control, "GET", "/calls")]

    def asked(self) -> list[str]:
        """Return the kinds and names of all calls, in order."""
        return [str(seen) for seen in self.calls()]

    def calls_after_death(self) -> list[Seen]:
        return [seen for seen in self.calls() if seen.dead]

    def fault(self, does: str, **fields: t.Any) -> None:
        """Set a fault: one of ``faults``, with the fields of ``Fault``."""
        control.ask(self.control, "POST", "/faults", [dataclasses.asdict(Fault(does, **fields))])

    def heal(self) -> None:
        """Remove all faults."""
        control.ask(self.control, "DELETE", "/faults")

    def wait_until_held(self, calls: int = 1) -> None:
        """Wait until a fault holds so many calls."""
        assert control.ask(self.control, "POST", f"/held?calls={calls}"), "no call arrived"

    def release(self) -> None:
        """Let all held calls go on."""
        control.ask(self.control, "POST", "/release")

    def restart(self) -> None:
        """End it and start it again, without the adapters that were loaded since its start."""
        control.ask(self.control, "POST", "/restart")


class FakeEngines:
    """Processes of fake engines, which serve one test after the other."""

    def __init__(self) -> None:
        self._processes = contextlib.ExitStack()
        self._idle: list[tuple[int, int]] = []

    def start(self, personality: str, base: str | pathlib.Path, version: str = "", **settings: t.Any) -> FakeEngine:
        """Start an engine on a free port of 127.0.0.1. ``settings`` are fields of ``Settings``."""
        chosen = Settings(personality, str(base), version, **settings)
        if not self._idle:
            self._idle.append(self._processes.enter_context(_process()))
        port, control_port = self._idle.pop()
        engine = FakeEngine(port, control_port, chosen)
        control.ask(control_port, "POST", "/start", dataclasses.asdict(chosen))
        return engine

    def give_back(self, engine: FakeEngine) -> None:
        """Take an engine that no test uses any more."""
        engine.release()
        self._idle.append((engine.port, engine.control))

    def close(self) -> None:
        self._processes.close()


@contextlib.contextmanager
def running(*arguments: t.Any, **settings: t.Any) -> t.Iterator[FakeEngine]:
    """Run an engine in a process of its own. The arguments are those of ``FakeEngines.start``."""
    with contextlib.closing(FakeEngines()) as engines:
        yield engines.start(*arguments, **settings)


@contextlib.contextmanager
def _process() -> t.Iterator[tuple[int, int]]:
    """Run a process, and yield the ports of its engine and of its control."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_engine"],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        ports = process.stdout.readline()
        try:
            if not ports:
                raise RuntimeError("the fake engine does not start")
            port, control_port = json.loads(ports)
            yield port, control_port
        finally:
            process.terminate()
            process.wait(_LIMIT)
