# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Runs the load test (C(_load_worker)) in another interpreter."""

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
from .request import Target
from .serving_user import ServingUser


@dataclasses.dataclass(frozen=True)
class LoadTest:
    """What a run gave: a report for each adapter that it came to, and problems of the run itself."""

    reports: dict[str, dict[str, t.Any]]
    versions: dict[str, str]
    seconds: float
    problems: tuple[Problem, ...]


def load_test(
    python: str,
    device: str,
    targets: t.Sequence[Target],
    timeout: int,
    scratch: str,
    user: t.Optional[ServingUser] = None,
    memory_limit: t.Optional[int] = None,
    dtype: t.Optional[str] = None,
    attention: t.Optional[str] = None,
) -> LoadTest:
    """Load all targets in one process of C(python), as C(user); C(scratch) is where its private directory is made.

    C(memory_limit) are the bytes that may be taken of the device. C(dtype) and C(attention) are what bases are computed
    with, by default what suits the device.

    Never raises DeliveryError: what goes wrong with the run as a whole is among the problems, and the reports of the
    adapters tested before that are kept.
    """
    with private_directory(scratch, user) as directory:
        program = write_program(directory)
        request, outcome = (os.path.join(directory, name) for name in ("request.json", "result.json"))
        wanted = {"device": device, "packages": PACKAGES, "memory_limit": memory_limit, "dtype": dtype, "attention": attention}
        with open(request, "w", encoding="utf-8") as stream:
            json.dump({**wanted, "adapters": [dataclasses.asdict(target) for target in targets]}, stream)
        try:
            child = run_python(python, ["-I", "-B", program, request, outcome], directory, timeout, user)
        except DeliveryError as exc:
            return LoadTest({}, {}, 0.0, exc.problems)
        result = _read_result(outcome)
    problem = _problem(python, device, child, result["current"], result["error"])
    if problem is None and any(target.name not in result["adapters"] for target in targets):
        problem = Problem(python, f"ended without a result ({child.ending}).{child.last_words}", INSTALL_PEFT)
    return LoadTest(result["adapters"], result["versions"], result["seconds"], (problem,) if problem else ())


def _read_result(path: str) -> dict[str, t.Any]:
    """What the program has written so far; an empty result where that is nothing, or nothing that it would write."""
    result: dict[str, t.Any] = {"adapters": {}, "current": None, "error": None, "versions": {}, "seconds": 0.0}
    # A plain file, since another user could put anything there.
    with contextlib.suppress(DeliveryError, OSError, ValueError, RecursionError), open_regular(path) as stream:
        found = json.loads(stream.read())
        if isinstance(found, dict) and all(isinstance(found.get(key), dict) for key in ("adapters", "versions")):
            result.update(found)
    return result


def _problem(
    python: str, device: str, child: Child, current: t.Optional[str], error: t.Optional[dict[str, str]]
) -> t.Optional[Problem]:
    """What went wrong with the run as a whole, or None."""
    during = f" while it tested {current}" if current else ""
    if child.timed_out:
        return Problem(
            python,
            f"did not finish the load test in {child.timeout} seconds{during} and was killed.{child.last_words}",
            "Look whether the device hangs (nvidia-smi), or raise the timeout.",
        )
    if child.code == -signal.SIGKILL:
        return Problem(
            python,
            f"was killed from outside{during}, most likely because memory ran out.",
            "Look for 'out of memory' in dmesg; free memory, or ask for level adapter.",
        )
    if child.code < 0:
        return Problem(
            python,
            f"crashed{during}: {child.ending}.{child.last_words}",
            "Its torch does not fit this host: compare its build with the driver and the CPU, or install it again.",
        )
    if child.code:
        return Problem(
            python,
            f"failed{during}: {child.ending}.{child.last_words}",
            "When these lines speak of a package, install that one again.",
        )
    if error is None:
        return None
    if error["kind"] == "package":
        return Problem(python, f"has no {error['detail']}.", INSTALL_PEFT)
    if error["kind"] == "import":
        return Problem(python, f"has a broken package: {error['detail']}.", INSTALL_PEFT)
    return Problem(
        f"device {device}",
        f"cannot be used by {python}: {error['detail']}.",
        "Look at nvidia-smi and at the build of torch there. Where no GPU is meant to be used, ask for device cpu.",
    )
