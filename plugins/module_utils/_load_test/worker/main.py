# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The load test's program: a process of its own that takes a request.json and writes a result.json.

It runs in the interpreter that serves the adapters, so it knows nothing of Ansible or of this collection and imports
torch, transformers, peft and safetensors only inside functions. C(_load_test) starts it and reads its result; what it does
with one adapter stands in C(_examine).

Request: C(device), C(memory_limit) (bytes, or null), C(dtype) and C(attention) (null: what suits the device), and
C(adapters), each with C(name), C(directory), C(weights_file), C(allow_pickle), C(level) (adapter, model or golden),
C(base_config) and C(base_path) (either may be null, not both), C(questions) (for level golden, see C(_golden_level)) and
C(recording) (null, or C(prompts), C(length) and C(top): record a golden once level model is reached).
Result: C(adapters) (name to report), C(current) (the adapter in work, for a crash), C(versions), C(seconds) and
C(error) (what stopped the whole run: C(kind), C(detail)). It is written after every adapter.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import platform
import resource
import signal
import sys
import time
import typing as t

# Relative, because the program is a package of its own where it runs: these files and nothing else of the collection.
from ..._base.weights import base_weights
from .device import GIB, CannotRun, first_match, open_device
from .levels import empty_report, examine
from .model_level import LoadedBase


def go_offline(home: str) -> None:
    """Must run before the first import: huggingface_hub reads these while it is imported."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")):
            del os.environ[name]
    os.environ.update(
        HF_HOME=home,
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        DO_NOT_TRACK="1",
        TOKENIZERS_PARALLELISM="false",
        # cuda:1 is the one that nvidia-smi calls 1, not the second fastest.
        CUDA_DEVICE_ORDER="PCI_BUS_ID",
        # With a fixed workspace cuBLAS gives the same bits for the same input.
        CUBLAS_WORKSPACE_CONFIG=":4096:8",
    )


def versions(packages: t.Iterable[str]) -> dict[str, str]:
    """Import the packages and return their versions. Raises CannotRun."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = str(__import__(package).__version__)
        except ModuleNotFoundError as exc:
            raise CannotRun("package", (exc.name or package).partition(".")[0]) from exc
        except (ImportError, OSError, RuntimeError) as exc:
            raise CannotRun("import", f"{package} cannot be imported: {exc}") from exc
    import torch

    if torch.version.cuda:
        found["cuda"] = str(torch.version.cuda)
    return found


def run(request: dict[str, t.Any], save: t.Callable[[dict[str, t.Any]], None]) -> None:
    """Test all adapters of a request; C(save) gets the whole result whenever there is more of it."""
    started = time.monotonic()
    result: dict[str, t.Any] = {"adapters": {}, "current": None, "versions": {}, "error": None, "seconds": 0.0}
    try:
        result["versions"] = versions(request["packages"])
        device, limit = open_device(request["device"]), request.get("memory_limit")
        bases = sorted({adapter["base_path"] or "" for adapter in request["adapters"]})
        for path in bases:
            group = [adapter for adapter in request["adapters"] if (adapter["base_path"] or "") == path]
            options = (request.get("dtype"), request.get("attention"))
            base = LoadedBase(path, device, max(map(_size, group)), limit, *options) if path else None
            for adapter in group:
                result["current"] = adapter["name"]
                save(result)
                result["adapters"][adapter["name"]] = examine(adapter, base, device, limit)
            if base is not None:
                base.drop()
    except CannotRun as exc:
        if exc.kind == "memory":
            nothing = empty_report(device=request["device"], limited_by=f"{exc.detail}.")
            result["adapters"] = {adapter["name"]: nothing for adapter in request["adapters"]}
        else:
            result["error"] = {"kind": exc.kind, "detail": exc.detail}
    result["current"] = None
    result["seconds"] = round(time.monotonic() - started, 3)
    save(result)


def die_with_parent() -> None:
    """Whoever started this may be killed, and a process left alone would hold the GPU's memory."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def confine(adapters: list[dict[str, t.Any]]) -> None:
    """Give up what this process does not need, and let nothing that serves on this host pay for its mistakes."""
    set_no_new_privileges = 38
    ctypes.CDLL(None).prctl(set_no_new_privileges, 1, 0, 0, 0)
    # A core dump of this would be as large as the base.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
        # Whoever makes memory run out, the kernel ends this process first.
        stream.write("1000")
    available = first_match("/proc/meminfo", r"MemAvailable:\s*(\d+) kB")
    if available:
        # Not the whole address space: CUDA reserves far more of it than there is memory. Files of weights are mapped, and count.
        most = int(available) * 1024 + sum(map(_size, adapters)) + 2 * GIB
        for base in {adapter["base_path"] for adapter in adapters if adapter["base_path"]}:
            # What may not be read is said when it is to be loaded.
            with contextlib.suppress(PermissionError):
                most += sum(os.path.getsize(path) for path in base_weights(base) if os.path.isfile(path))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    die_with_parent()
    faulthandler.enable()
    request_path, result_path = map(os.path.abspath, sys.argv[1:])
    go_offline(os.path.join(os.path.dirname(result_path), "huggingface"))
    with open(request_path, encoding="utf-8") as stream:
        request = json.load(stream)
    confine(request["adapters"])

    def save(result: dict[str, t.Any]) -> None:
        temporary = f"{result_path}.new"
        with open(temporary, "w", encoding="utf-8") as opened:
            json.dump(result, opened)
        os.replace(temporary, result_path)

    run(request, save)


def _size(adapter: dict[str, t.Any]) -> int:
    path = os.path.join(adapter["directory"], adapter["weights_file"])
    return os.path.getsize(path) if os.path.isfile(path) else 0
