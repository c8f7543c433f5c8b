# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""Runs a program of ``module_utils/_transfer`` at an end of a transfer, and reads its answers.

The program runs as the user that modules run as there, over the connection of the transfers. It
lives as long as this process says something now and then: then it ends, and all that it has
started. Nothing is copied to the host. What it answers is the host's word.
"""

from __future__ import annotations

import base64
import collections.abc as c
import contextlib
import json
import os
import select
import subprocess
import tempfile
import threading
import time
import types
import typing as t
import zlib

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import shown

from .._contact.answers import INSPECT
from .._contact.forms import Form, Record, UnexpectedForm
from .relay import End, exit_status, has_begun, start, text_of
from .rsync import BEGIN, CONNECTION_FAILED, LOGIN_DENIED, NOT_FOUND

# Seconds between two signs of life.
_SIGN_INTERVAL = 5
# The characters of one answer.
_MOST_ANSWER = 1 << 16
# The bytes of all answers together, which reading takes time for. One a second is far below.
_MOST_ANSWERS = 16 << 20
_READ_SIZE = 1 << 16
# Seconds to wait for a process that has closed its output.
_END_TIMEOUT = 10

# On one line, which every login shell passes on as it is. What follows is read from the pipe, and
# may have a key: before that, the kernel lets nobody attach any more (PR_SET_DUMPABLE).
_BOOTSTRAP = (
    "import ctypes, json, sys; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0);"
    f' print(); print("{BEGIN}", flush=True); given = json.loads(sys.stdin.readline());'
    ' exec(given["loader"], {"given": given})'
)
# Makes a package of the given files and calls ``main`` of the last one.
_LOADER = """import base64, json, sys, types, zlib
package = types.ModuleType("transfer")
package.__path__ = []
sys.modules["transfer"] = package
for name, source in json.loads(zlib.decompress(base64.b64decode(given["files"]))):
    part = types.ModuleType("transfer." + name)
    part.__package__ = "transfer"
    sys.modules[part.__name__] = part
    exec(compile(source, name + ".py", "exec"), part.__dict__)
part.main(given["job"])
"""


class NotStarted(DeliveryError):
    """A program did not start at a host."""


class Unreached(NotStarted):
    """The connection to the host failed before the program answered, which may work next time."""


def lease(timeout: int) -> int:
    """Return the seconds without a sign of life after which a program ends.

    A receiver of the next attempt waits longer than that for the staging directory.
    """
    return max(3 * _SIGN_INTERVAL, timeout // 2)


class Program:
    """A running program: it gets a job and answers with lines of JSON.

    ``parts`` are its files, the last of which has ``main``. ``host`` is for messages, and
    ``interpreter`` is the Python there, which starts while the caller goes on. It is ended when
    ``running`` is closed.
    """

    def __init__(
        self,
        running: contextlib.ExitStack,
        end: End,
        host: str,
        interpreter: str,
        parts: c.Sequence[types.ModuleType],
        answers: c.Mapping[str, Form],
        timeout: int,
    ) -> None:
        self.host, self._end, self._interpreter, self._parts, self._timeout = host, end, interpreter, parts, timeout
        self._answers = Record({}, answers)
        self._stderr = running.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._process = start(running, end, end.argv(_command(interpreter)), subprocess.PIPE, self._stderr)
        self._stdin, self._stdout = (t.cast("t.IO[bytes]", pipe) for pipe in (self._process.stdin, self._process.stdout))
        self._buffer, self._answered, self._said = b"", 0, time.monotonic()

    def wait(self) -> None:
        """Wait until it has started. Raises NotStarted if it has not within the time limit."""
        become = self._end.become
        try:
            became = become is None or become.wait(self._process, self._stderr, self._timeout)
        except DeliveryError as exc:
            raise NotStarted(*exc.problems) from exc
        if not became or not has_begun(self._process, self._timeout):
            raise self._not_started()
        for pipe in (self._stdin, self._stdout):
            os.set_blocking(pipe.fileno(), False)

    def begin(self, **job: t.Any) -> None:
        """Give the program its job, with its ``lease``, once it has started.

        Raises NotStarted and DeliveryError.
        """
        self.wait()
        files = [(part.__name__.rpartition(".")[2], _source_of(part)) for part in self._parts]
        # All nodes get them over the controller's link.
        packed = base64.b64encode(zlib.compress(json.dumps(files).encode())).decode()
        given = {"loader": _LOADER, "files": packed, "job": {**job, "lease": lease(self._timeout)}}
        self._send(json.dumps(given).encode() + b"\n", self._timeout)

    def _not_started(self) -> NotStarted:
        status, messages = exit_status(self._process, _END_TIMEOUT), " ".join(text_of(self._stderr).split())[-600:]
        if status == NOT_FOUND:
            return NotStarted(Problem(self.host, f"has no {self._interpreter}: {messages}.", "Set ansible_python_interpreter."))
        unreached = status == CONNECTION_FAILED
        what = "could not be reached for the transfer" if unreached else "did not start its part of the transfer"
        problem = Problem(self.host, f"{what}: {messages or f'status {status}'}.", "Check the connection to it.")
        # A denied login stays denied.
        return Unreached(problem) if unreached and LOGIN_DENIED not in messages else NotStarted(problem)

    def _send(self, data: bytes, timeout: int) -> None:
        """Send data to the program. Raises DeliveryError if it does not read it in time."""
        ready = select.poll()
        ready.register(self._stdin, select.POLLOUT)
        deadline = time.monotonic() + timeout
        while data:
            if not ready.poll(max(0, 1000 * (deadline - time.monotonic()))):
                raise DeliveryError.of(self.host, f"has not read its part of the transfer for {timeout} seconds.", INSPECT)
            try:
                data = data[os.write(self._stdin.fileno(), data) :]
            except BrokenPipeError:
                raise self.ended() from None

    def say(self, **message: t.Any) -> None:
        """Send a message to a program that has answered before. Raises DeliveryError."""
        self._send(json.dumps(message).encode() + b"\n", self._timeout)

    def end(self) -> None:
        """Let it end what it does, for instance take back what it has changed at the host."""
        self._stdin.close()
        exit_status(self._process, _END_TIMEOUT)

    def ended(self) -> DeliveryError:
        """The error for a program that has ended without its last answer."""
        messages = " ".join(text_of(self._stderr).split())[-600:]
        status = exit_status(self._process, _END_TIMEOUT)
        why = f"{messages} (status {status})" if messages else f"status {status}"
        problem = f"ended its part of the transfer before its end: {shown(why)}."
        error = Unreached if status == CONNECTION_FAILED else DeliveryError
        return error(Problem(self.host, problem, "The received files were kept; run again to resume."))

    def answers(self, seconds: float) -> list[dict[str, t.Any]] | None:
        """The answers that have arrived, after ``seconds`` without one at most.

        None when it has ended. Keeps it alive. Raises DeliveryError for answers of another form.
        """
        ready = select.poll()
        ready.register(self._stdout, select.POLLIN)
        arrived = ready.poll(1000 * seconds)
        if time.monotonic() - self._said >= _SIGN_INTERVAL:
            self._sign()
        if not arrived:
            return []
        block = os.read(self._stdout.fileno(), _READ_SIZE)
        if not block:
            return None
        self._answered += len(block)
        if self._answered > _MOST_ANSWERS:
            raise DeliveryError.of(self.host, "gave too many answers.", INSPECT)
        *lines, self._buffer = (self._buffer + block).split(b"\n")
        if len(self._buffer) > _MOST_ANSWER:
            raise DeliveryError.of(self.host, "gave an answer that is too long.", INSPECT)
        try:
            return [self._answers.read(json.loads(line)) for line in lines]
        except UnexpectedForm as exc:
            raise self._other_form(f"{exc.key} {exc.problem}") from exc
        except (ValueError, RecursionError) as exc:
            raise self._other_form(str(exc)) from exc

    def _sign(self) -> None:
        self._said = time.monotonic()
        # A program that does not read for long has many signs left to read.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._stdin.fileno(), b"\n")

    def _other_form(self, why: str) -> DeliveryError:
        return DeliveryError.of(self.host, f"gave an answer of another form: {shown(why)}.", INSPECT)


@contextlib.contextmanager
def kept_alive(programs: c.Sequence[Program]) -> c.Iterator[None]:
    """Keep programs alive while this thread waits for another host."""
    waited = threading.Event()

    def sign() -> None:
        while not waited.wait(_SIGN_INTERVAL):
            for program in programs:
                program._sign()

    signing = threading.Thread(target=sign, daemon=True)
    signing.start()
    try:
        yield
    finally:
        waited.set()
        signing.join()


def _command(interpreter: str) -> list[str]:
    """A shell says in its own words, as over ssh, that there is no such interpreter."""
    return ["sh", "-c", 'exec "$0" -I -c "$1"', interpreter, _BOOTSTRAP]


def _source_of(part: types.ModuleType) -> str:
    with open(str(part.__file__), encoding="utf-8") as stream:
        return stream.read()
