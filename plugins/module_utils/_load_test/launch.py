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
import typing as t

from .._errors import DeliveryError, Problem
from .._files import open_regular
from .child import INSTALL_PEFT, Child, private_directory, run_python
from .interpreter import PACKAGES
from .program import write_program
from .result_form import check_form
from .serving_user import ServingUser
from .worker.protocol import OpenedDevice, Report, Request, RunError, RunResult, Target

# Bytes: far more than the answers of all adapters of a node.
_LONGEST_RESULT = 64 << 20


@dataclasses.dataclass(frozen=True)
class WorkerRun:
    """The outcome of a worker: reports by adapter, and problems of the run as a whole.

    ``device`` is None if the worker did not get as far as using it.
    """

    reports: dict[str, Report]
    seconds: float
    problems: tuple[Problem, ...]
    device: OpenedDevice | None = None


def run_worker(
    python: str,
    device: str,
    targets: t.Sequence[Target],
    timeout: int,
    scratch: str,
    user: ServingUser | None = None,
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
    with private_directory(scratch, user) as directory:
        program = write_program(directory)
        request_path, result_path = (os.path.join(directory, name) for name in ("request.json", "result.json"))
        request = Request(device, PACKAGES, tuple(targets), memory_limit, dtype, attention)
        with open(request_path, "w", encoding="utf-8") as stream:
            json.dump(dataclasses.asdict(request), stream)
        try:
            child = run_python(python, ["-I", "-B", program, request_path, result_path], directory, timeout, user)
        except DeliveryError as exc:
            return WorkerRun({}, 0.0, exc.problems)
        result = _read_result(result_path)
    problem = _problem(python, device, child, result.current, result.error)
    unfinished = any(target.name not in result.reports for target in targets) or (result.device is None and not targets)
    if problem is None and unfinished:
        problem = Problem(python, f"ended without a result ({child.ending}).{child.stderr_tail}", INSTALL_PEFT)
    return WorkerRun(result.reports, result.seconds, (problem,) if problem else (), result.device)


def _read_result(path: str) -> RunResult:
    """Return what the worker has written so far; an empty result if there is none."""
    # Another user can put anything there: only a regular file is read, and only of the right form.
    errors = (DeliveryError, OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError)
    with contextlib.suppress(*errors), open_regular(path) as stream:
        text = stream.read(_LONGEST_RESULT + 1)
        if len(text) <= _LONGEST_RESULT:
            result = RunResult.from_json(json.loads(text))
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
