# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run code under strace, which can list its system calls, and fail, kill or stop it at one."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import functools
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

# From the kernel's prctl.h: permits other processes than ancestors to trace this one.
_PR_SET_PTRACER, _PR_SET_PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)
# These do not exist on all machines: strace ignores an unknown name that starts with "?".
_OPTIONAL = ("chmod", "chown", "mkdir", "rename", "renameat", "rmdir", "symlink", "unlink", "sendfile")


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended:

    ``code`` is 0, 1 after a DeliveryError, 2 after another exception, None after a kill.
    """

    code: t.Optional[int]
    message: str = ""
    changed: t.Optional[bool] = None


@dataclasses.dataclass(frozen=True)
class Call:
    """One system call: its name, its number among those in its thread, its arguments."""

    name: str
    number: int
    arguments: str


# The code of a run; returns whether it changed something.
Run = t.Callable[[], bool]


@functools.lru_cache
def why_not() -> t.Optional[str]:
    """Return why strace cannot be used here, or None."""
    try:
        done = subprocess.run(["strace", "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "strace is not installed"
    return f"strace cannot trace here: {done.stderr.strip()}" if done.returncode else None


@dataclasses.dataclass
class Traced:
    """A started run under strace; the run writes how it ended to ``report``."""

    process: int
    report: t.TextIO
    status: t.Optional[int] = None

    def stopped(self) -> bool:
        """Wait for the run, and return whether it stopped. If not, it has ended."""
        _process, self.status = os.waitpid(self.process, os.WUNTRACED)
        return os.WIFSTOPPED(self.status)

    def ended(self) -> Ended:
        """Return how the run ended. Call it after ``stopped`` has returned False."""
        assert self.status is not None
        code = os.waitstatus_to_exitcode(self.status)
        self.report.seek(0)
        return Ended(**json.load(self.report)) if code >= 0 else Ended(None)

    def kill(self) -> None:
        """Kill the run if it has not ended, so that no stopped process is left."""
        if self.status is None or os.WIFSTOPPED(self.status):
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)


@contextlib.contextmanager
def traced(run: Run, *strace: str) -> t.Iterator[Traced]:
    """Start a run under strace with these options.

    The run is a fork, because starting Python hundreds of times would take minutes.
    """
    go_read, go_write = os.pipe()
    with tempfile.TemporaryFile("w+") as report:
        process = os.fork()
        if process == 0:
            _child(run, go_read, go_write, report)
        os.close(go_read)
        with subprocess.Popen(["strace", "-f", *strace, "-p", str(process)], stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            attached = tracer.stderr.readline()
            os.close(go_write)
            started = Traced(process, report)
            try:
                yield started
            finally:
                started.kill()
            rest = tracer.stderr.read()
        assert "attached" in attached, attached + rest


def _child(run: Run, go_read: int, go_write: int, report: t.TextIO) -> t.NoReturn:
    ended = Ended(2, "ended otherwise")
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _PR_SET_PTRACER_ANY, 0, 0, 0)
        os.close(go_write)
        # The fault may be injected into this read.
        with contextlib.suppress(OSError):
            os.read(go_read, 1)
        ended = attempt(run)
    finally:
        json.dump(dataclasses.asdict(ended), report)
        report.flush()
        os._exit(0)


def attempt(run: Run) -> Ended:
    """Run the code in this process and return how it ended."""
    try:
        return Ended(0, changed=run())
    except DeliveryError as exc:
        return Ended(1, str(exc))
    except Exception as exc:
        return Ended(2, f"{type(exc).__name__}: {exc}")


def run_traced(run: Run, *strace: str) -> Ended:
    with traced(run, *strace) as started:
        assert not started.stopped()
        return started.ended()


def run_with_fault(run: Run, call: Call, fault: str) -> Ended:
    """Run the code with a fault, in the syntax of strace, at one system call."""
    name = _optional(call.name)
    return run_traced(run, "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:{fault}:when={call.number}")


def calls_of(run: Run, names: t.Iterable[str], below: pathlib.Path) -> tuple[Ended, list[Call]]:
    """Run the code, and list its calls with paths below a directory, each (name, number) once."""
    with tempfile.NamedTemporaryFile("r") as log:
        ended = run_traced(run, "-y", "-s", "256", "-o", log.name, "-e", f"trace={','.join(map(_optional, names))}")
        lines = re.findall(r"^(\d+) +(\w+)\((.*)", log.read(), flags=re.MULTILINE)
    # strace counts the calls of each thread separately.
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    calls: dict[tuple[str, int], Call] = {}
    for thread, name, arguments in lines:
        counts[thread, name] += 1
        number = counts[thread, name]
        if str(below) in arguments:
            calls.setdefault((name, number), Call(name, number, arguments))
    return ended, list(calls.values())


def _optional(name: str) -> str:
    return f"?{name}" if name in _OPTIONAL else name
