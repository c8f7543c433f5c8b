# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Start the load test's worker in the PEFT interpreter and read its result."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import tempfile
import typing as t

from .._errors import DeliveryError, Problem
from .._isolation import USER
from .child import INSTALL_PEFT, Child, private_directory, run_python
from .confinement import available_isolation
from .interpreter import PACKAGES
from .loading_user import LoadingUser
from .program import write_program
from .result_form import check_form
from .worker.protocol import OpenedDevice, Report, Request, RunError, RunResult, Target

# Bytes: far more than the answers of all adapters of a node.
_LONGEST_RESULT = 64 << 20


@dataclasses.dataclass(frozen=True)
class WorkerRun:
    """The outcome of a worker: reports by adapter, and problems of the run as a whole.

    ``device`` is None if the worker did not get as far as using it. ``isolation`` has words
    of ``_isolation``.
    """

    reports: dict[str, Report]
    seconds: float
    problems: tuple[Problem, ...]
    device: OpenedDevice | None = None
    isolation: tuple[str, ...] = ()


def run_worker(
    python: str,
    device: str,
    targets: t.Sequence[Target],
    timeout: int,
    scratch: str,
    user: LoadingUser | None = None,
    memory_limit: int | None = None,
    dtype: str | None = None,
    attention: str | None = None,
) -> WorkerRun:
    """Load all targets in one process of ``python``, as ``user``; without any, only use the device.

    Its private directory is made in ``scratch``. ``memory_limit`` is the number of bytes of the
    device that may be used; ``dtype`` and ``attention`` default to what suits the device.

    Never raises DeliveryError: a failure of the whole run is among the problems, and the reports of
    the adapters tested before it are kept.
    """
    with private_directory(scratch, user) as directory, tempfile.TemporaryFile() as written:
        program = write_program(directory)
        request_path = os.path.join(directory, "request.json")
        request = Request(device, PACKAGES, tuple(targets), memory_limit, dtype, attention)
        with open(request_path, "w", encoding="utf-8") as stream:
            json.dump(dataclasses.asdict(request), stream)
        arguments = ["-I", "-B", program, request_path, str(written.fileno())]
        try:
            child = run_python(python, arguments, directory, timeout, user, result=written)
        except DeliveryError as exc:
            return WorkerRun({}, 0.0, exc.problems)
        result = _read_result(written)
    problem = _problem(python, device, child, result.current, result.error)
    unfinished = any(target.name not in result.reports for target in targets) or (result.device is None and not targets)
    if problem is None and unfinished:
        problem = Problem(python, f"ended without a result ({child.ending}).{child.stderr_tail}", INSTALL_PEFT)
    own = (USER,) if user is not None and user.throw_away else ()
    isolation = (*own, *available_isolation())
    return WorkerRun(result.reports, result.seconds, (problem,) if problem else (), result.device, isolation)


def _read_result(written: t.BinaryIO) -> RunResult:
    """Return what the worker has written so far; an empty result if there is none."""
    written.seek(0)
    text = written.read(_LONGEST_RESULT + 1)
    # What has taken over the worker can write anything: only the right form is accepted.
    errors = (ValueError, RecursionError, AttributeError, KeyError, TypeError)
    with contextlib.suppress(*errors):
        if len(text) <= _LONGEST_RESULT:
            result = RunResult.from_lines(text)
            check_form(result)
            return result
    return RunResult()


def _problem(python: str, device: str, child: Child, current: str | None, error: RunError | None) -> Problem | None:
    """Return the problem of the run as a whole, or None."""
    during = f" during the test of {current}" if current else ""
    if child.timed_out:
        return Problem(
            python,
            f"did not finish the load test in {child.timeout} seconds{during} and was killed.{child.stderr_tail}",
            "Check whether the device hangs (nvidia-smi), or raise timeout.",
        )
    if child.code == -signal.SIGKILL:
        return Problem(
            python,
            f"was killed by another process or the kernel{during}, most likely because memory ran out.",
            "Look for 'out of memory' in dmesg; free memory, or set level to adapter.",
        )
    if child.code < 0:
        return Problem(
            python,
            f"crashed{during}: {child.ending}.{child.stderr_tail}",
            "Its build of torch does not suit this host: compare it with the driver and the CPU, or install it again.",
        )
    if child.code:
        return Problem(
            python,
            f"failed{during}: {child.ending}.{child.stderr_tail}",
            "If these lines name a package, install that package again.",
        )
    if error is None:
        return None
    if error.kind == "package":
        return Problem(python, f"has no {error.detail}.", INSTALL_PEFT)
    if error.kind == "import":
        return Problem(python, f"has a broken package: {error.detail}.", INSTALL_PEFT)
    if error.kind == "memory":
        return Problem(f"device {device}", f"has too little memory: {error.detail}.", "Free memory on it, or set another device.")
    return Problem(
        f"device {device}",
        f"cannot be used by {python}: {error.detail}.",
        "Check nvidia-smi and the build of torch there. If no GPU is to be used, set device to cpu.",
    )
