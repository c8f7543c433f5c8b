# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run something in a process of its own under strace, which can list its system calls, fail them, kill it or stop it there."""

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

# From the kernel's prctl.h: lets a process that is no ancestor trace this one, where that is restricted.
_PR_SET_PTRACER, _PR_SET_PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)
# Who may inject into what does not exist on this machine: names with a "?" are passed over there.
_OPTIONAL = ("chmod", "chown", "mkdir", "rename", "renameat", "rmdir", "symlink", "unlink", "sendfile")


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended: C(code) 0, 1 for a clean DeliveryError, 2 for any other exception, None when it was killed."""

    code: t.Optional[int]
    message: str = ""
    changed: t.Optional[bool] = None


@dataclasses.dataclass(frozen=True)
class Call:
    """One system call: its name, which one of its kind it is in its thread, and its arguments, with the paths of descriptors."""

    name: str
    number: int
    arguments: str


# What a run does; returns whether it changed something.
Run = t.Callable[[], bool]


@functools.lru_cache
def why_not() -> t.Optional[str]:
    """Why nothing can be traced here, or None."""
    try:
        done = subprocess.run(["strace", "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "strace is not installed"
    return f"strace cannot trace here: {done.stderr.strip()}" if done.returncode else None


@dataclasses.dataclass
class Traced:
    """A run under strace that was begun; C(report) is where it leaves how it ended."""

    process: int
    report: t.TextIO
    status: t.Optional[int] = None

    def stopped(self) -> bool:
        """Wait until it stops (True) or ends (False; then C(ended) does not wait again)."""
        _process, self.status = os.waitpid(self.process, os.WUNTRACED)
        return os.WIFSTOPPED(self.status)

    def ended(self) -> Ended:
        """How it ended, after C(stopped) was False."""
        assert self.status is not None
        code = os.waitstatus_to_exitcode(self.status)
        self.report.seek(0)
        return Ended(**json.load(self.report)) if code >= 0 else Ended(None)

    def kill(self) -> None:
        """Let nothing stand still for ever when whoever watches it has gone."""
        if self.status is None or os.WIFSTOPPED(self.status):
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)


@contextlib.contextmanager
def traced(run: Run, *strace: str) -> t.Iterator[Traced]:
    """Begin a run under strace with these options.

    A fork, because hundreds of starts of Python would take minutes.
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
            begun = Traced(process, report)
            try:
                yield begun
            finally:
                begun.kill()
            rest = tracer.stderr.read()
        assert "attached" in attached, attached + rest


def _child(run: Run, go_read: int, go_write: int, report: t.TextIO) -> t.NoReturn:
    ended = Ended(2, "ended otherwise")
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _PR_SET_PTRACER_ANY, 0, 0, 0)
        os.close(go_write)
        # This read may be the one that is made to fail.
        with contextlib.suppress(OSError):
            os.read(go_read, 1)
        ended = attempt(run)
    finally:
        json.dump(dataclasses.asdict(ended), report)
        report.flush()
        os._exit(0)


def attempt(run: Run) -> Ended:
    """Run it here and tell how it ended, as a module would."""
    try:
        return Ended(0, changed=run())
    except DeliveryError as exc:
        return Ended(1, str(exc))
    except Exception as exc:
        return Ended(2, f"{type(exc).__name__}: {exc}")


def run_traced(run: Run, *strace: str) -> Ended:
    with traced(run, *strace) as begun:
        assert not begun.stopped()
        return begun.ended()


def run_with_fault(run: Run, call: Call, fault: str) -> Ended:
    """Run it with C(fault), in strace's words, at one system call."""
    name = _optional(call.name)
    return run_traced(run, "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:{fault}:when={call.number}")


def calls_of(run: Run, names: t.Iterable[str], below: pathlib.Path) -> tuple[Ended, list[Call]]:
    """Run it and list those of its calls that are about something below a directory, each (name, number) once."""
    with tempfile.NamedTemporaryFile("r") as log:
        ended = run_traced(run, "-y", "-s", "256", "-o", log.name, "-e", f"trace={','.join(map(_optional, names))}")
        lines = re.findall(r"^(\d+) +(\w+)\((.*)", log.read(), flags=re.MULTILINE)
    # strace counts for each thread on its own.
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
