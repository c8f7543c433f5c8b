# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Runs the load test (C(_load_worker)) in another interpreter, and tells what that interpreter's environment is."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import inspect
import json
import os
import re
import signal
import subprocess
import tempfile
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils import _device, _golden_worker, _load_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._base_model import BRING_BASE
from ansible_collections.lorafleet.delivery.plugins.module_utils._digest import open_regular
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving_user import ServingUser

# What of our environment the child gets; no secrets, no settings of Python, PEFT or the Hub.
_KEPT = re.compile(r"PATH|LANG|LD_LIBRARY_PATH|TMPDIR|CUDA_.*|NVIDIA_.*")
_NVIDIA = "/proc/driver/nvidia"
_INSTALL = "Install the PEFT environment on this host, or set agent_python to an interpreter that has it."
_LAST_LINES = 12
# Where the program runs its files are this package. Isolated (-I), Python does not look beside the program by itself.
_PACKAGE = "delivery_worker"
_START = f"""
import os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from {_PACKAGE}._load_worker import main
main()
"""

# Reads what is installed without importing it: torch alone takes seconds.
_LIST_VERSIONS = f"""
import importlib.metadata as metadata, json, platform
found = {{"python": platform.python_version()}}
for name in {_load_worker.PACKAGES!r}:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """One adapter to load: C(base_path) is the directory of its base with weights, C(base_config) does without.

    C(questions) are what level golden asks, C(recording) what a golden is to be recorded of; see C(_golden_worker).
    """

    name: str
    directory: str
    weights_file: str
    level: str
    base_config: t.Optional[dict[str, t.Any]]
    base_path: t.Optional[str]
    allow_pickle: bool
    questions: t.Optional[list[dict[str, t.Any]]] = None
    recording: t.Optional[dict[str, t.Any]] = None


@dataclasses.dataclass(frozen=True)
class LoadTest:
    """What a run gave: a report for each adapter that it came to, and problems of the run itself."""

    reports: dict[str, dict[str, t.Any]]
    versions: dict[str, str]
    seconds: float
    problems: tuple[Problem, ...]


def check_device(name: str) -> None:
    """Raises DeliveryError for what is no name of a device."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeliveryError.of(f"device is {name}", "expected cpu, cuda, or cuda: and a number.")


def library_versions(python: str, user: t.Optional[ServingUser] = None) -> dict[str, str]:
    """The versions of an interpreter and of the packages that the load test needs; those not installed are left out.

    Raises DeliveryError when the interpreter cannot be started or is none.
    """
    with _private_directory(None, user) as directory:
        child = _run(python, ["-I", "-c", _LIST_VERSIONS], directory, timeout=60, user=user)
    try:
        found = json.loads(child.output)
        return {str(name): str(version) for name, version in found.items()}
    except (ValueError, AttributeError):
        raise DeliveryError.of(
            python, f"does not work as a Python interpreter: {child.ending}.{child.last_words}", _INSTALL
        ) from None


def environment(python: str, device: str, user: t.Optional[ServingUser] = None) -> dict[str, t.Any]:
    """What a load test depends on beside the adapter and its base: versions, device, GPU models and driver.

    Raises DeliveryError when the interpreter does not work or lacks a package.
    """
    versions = library_versions(python, user)
    missing = [package for package in _load_worker.PACKAGES if package not in versions]
    if missing:
        raise DeliveryError.of(python, f"has no {', '.join(missing)}.", _INSTALL)
    found: dict[str, t.Any] = {"versions": versions, "device": device}
    if user is not None and user.is_other:
        found["user"] = user.name
    if device != "cpu":
        found["driver"] = _lines(f"{_NVIDIA}/version", "NVRM version")
        found["gpus"] = [line for path in sorted(glob.glob(f"{_NVIDIA}/gpus/*/information")) for line in _lines(path, "Model")]
    return found


def base_fingerprint(base: dict[str, t.Any]) -> dict[str, t.Any]:
    """What tells one base from another without reading its weights. C(base) may have C(path) and C(config).

    Raises DeliveryError when the files of the base cannot be looked at.
    """
    path = base.get("path")
    if not path:
        return {"config": base.get("config")}
    try:
        with open(os.path.join(path, "config.json"), "rb") as stream:
            config = hashlib.sha256(stream.read()).hexdigest()
        stats = [(os.path.basename(weights), os.stat(weights)) for weights in _load_worker.base_weights(path)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DeliveryError.of(f"base {path}", f"is not whole: {exc}.", BRING_BASE) from exc
    return {"config": config, "weights": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}


def digest_of(what: t.Any) -> str:
    """sha256 of anything that JSON can say, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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
    with _private_directory(scratch, user) as directory:
        program, request, outcome = (os.path.join(directory, name) for name in ("load.py", "request.json", "result.json"))
        package = os.path.join(directory, _PACKAGE)
        os.mkdir(package)
        # A module on a node runs from a zip file, so there is no path to these.
        sources = {part.__name__.rpartition(".")[2]: inspect.getsource(part) for part in (_load_worker, _device, _golden_worker)}
        for path, code in [(program, _START), *((os.path.join(package, f"{name}.py"), sources[name]) for name in sources)]:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(code)
        wanted = {"device": device, "memory_limit": memory_limit, "dtype": dtype, "attention": attention}
        with open(request, "w", encoding="utf-8") as stream:
            json.dump({**wanted, "adapters": [dataclasses.asdict(target) for target in targets]}, stream)
        try:
            child = _run(python, ["-I", "-B", program, request, outcome], directory, timeout, user)
        except DeliveryError as exc:
            return LoadTest({}, {}, 0.0, exc.problems)
        result = _read_result(outcome)
    problem = _problem(python, device, child, result["current"], result["error"])
    if problem is None and any(target.name not in result["adapters"] for target in targets):
        problem = Problem(python, f"ended without a result ({child.ending}).{child.last_words}", _INSTALL)
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
    python: str, device: str, child: _Child, current: t.Optional[str], error: t.Optional[dict[str, str]]
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
        return Problem(python, f"has no {error['detail']}.", _INSTALL)
    if error["kind"] == "import":
        return Problem(python, f"has a broken package: {error['detail']}.", _INSTALL)
    return Problem(
        f"device {device}",
        f"cannot be used by {python}: {error['detail']}.",
        "Look at nvidia-smi and at the build of torch there. Where no GPU is meant to be used, ask for device cpu.",
    )


@dataclasses.dataclass(frozen=True)
class _Child:
    """How a child process ended."""

    code: int
    timed_out: bool
    timeout: int
    output: str
    errors: str

    @property
    def ending(self) -> str:
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        return f"exit status {self.code}"

    @property
    def last_words(self) -> str:
        lines = self.errors.strip().splitlines()[-_LAST_LINES:]
        return " Its last words:\n" + "\n".join(line[:500] for line in lines) + "\n" if lines else ""


@contextlib.contextmanager
def _private_directory(scratch: t.Optional[str], user: t.Optional[ServingUser]) -> t.Iterator[str]:
    """An empty directory, which the user of the child can get to."""
    # Another user cannot pass through Ansible's own directory, in which scratch lies.
    with tempfile.TemporaryDirectory(dir=None if user is not None and user.is_other else scratch) as directory:
        yield directory


def _run(python: str, arguments: list[str], directory: str, timeout: int, user: t.Optional[ServingUser] = None) -> _Child:
    """Run an interpreter in C(directory) with nothing of ours but what it needs. Raises DeliveryError."""
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    identity: dict[str, t.Any] = {}
    if user is not None and user.is_other:
        identity = {"user": user.uid, "group": user.gid, "extra_groups": user.groups}
        user.own(directory)
    # Files without a name, in which the child can put nothing else in place of what it says.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            child = subprocess.Popen(
                [python, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=directory,
                # Threads that wait by spinning take the cores from what the node serves.
                env={**kept, "HOME": directory, "OMP_WAIT_POLICY": "PASSIVE"},
                start_new_session=True,
                **identity,
            )
        except FileNotFoundError:
            raise DeliveryError.of(python, "does not exist.", _INSTALL) from None
        except OSError as exc:
            whom = f" by user {user.name}" if user is not None and user.is_other else ""
            raise DeliveryError.of(python, f"cannot be executed{whom}: {exc.strerror}.", _INSTALL) from exc
        timed_out = False
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            # The group has its leader's number only as long as that is not waited for.
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        return _Child(child.returncode, timed_out, timeout, _end_of(stdout), _end_of(stderr))


def _end_of(stream: t.BinaryIO) -> str:
    """The end of what a child wrote."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - (1 << 16)))
    return stream.read().decode(errors="replace")


def _lines(path: str, start: str) -> list[str]:
    """The lines of a file that begin with C(start), with single spaces; none where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return [" ".join(line.split()) for line in stream if line.startswith(start)]
    except OSError:
        return []
