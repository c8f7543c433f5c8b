# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The load test's worker: reads a request and writes a result (see ``protocol``).

It runs in the PEFT interpreter, so it uses neither Ansible nor the rest of this collection, and
imports torch, transformers, peft and safetensors only inside functions. ``launch`` starts it and
reads its result; ``levels`` tests one adapter.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import platform
import resource
import sys
import time
import typing as t

# Relative imports, because the worker is a package of its own where it runs.
from ..._base.weights import base_weights
from .device import GIB, available_memory, open_device, opened_device
from .errors import CannotRun
from .levels import run_levels
from .model_level import LoadedBase
from .protocol import Lines, LoadTestResult, Report, Request, RunError, RunResult, Target


def go_offline(home: str) -> None:
    """Switch off access to the Hub.

    Must run before huggingface_hub is imported, which reads these variables.
    """
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
        # Number the GPUs as nvidia-smi does, not by speed.
        CUDA_DEVICE_ORDER="PCI_BUS_ID",
        # With a fixed workspace cuBLAS computes the same bits for the same input.
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


def run(request: Request, save: t.Callable[[RunResult], None]) -> None:
    """Test all adapters of a request. ``save`` gets the complete result after every adapter.

    Without adapters, the packages are imported and the device computes something.
    """
    started = time.monotonic()
    result = RunResult()
    try:
        found = versions(request.packages)
        device = open_device(request.device)
        result.device = opened_device(device)
        for path in sorted({target.base_path or "" for target in request.targets}):
            group = [target for target in request.targets if (target.base_path or "") == path]
            base = None
            if path:
                adapter_bytes = max(map(_size, group))
                base = LoadedBase(path, device, adapter_bytes, request.memory_limit, request.dtype, request.attention)
            for target in group:
                result.current = target.name
                save(result)
                result.reports[target.name] = run_levels(target, base, device, found, request.memory_limit)
            if base is not None:
                base.drop()
    except CannotRun as exc:
        if exc.kind == "memory" and request.targets:
            nothing = Report(LoadTestResult(device=request.device, limited_by=f"{exc.detail}."))
            result.reports = {target.name: nothing for target in request.targets}
        else:
            result.error = RunError(exc.kind, exc.detail)
    result.current = None
    result.seconds = round(time.monotonic() - started, 3)
    save(result)


def limit_memory(targets: t.Sequence[Target]) -> None:
    """Limit the memory of this process, to protect the processes that serve on this host."""
    available = available_memory()
    if available:
        # Not the address space: CUDA reserves far more of it than there is memory. Mapped files of
        # weights count.
        most = available + sum(map(_size, targets)) + 2 * GIB
        for base in {target.base_path for target in targets if target.base_path}:
            # An unreadable base is reported when it is loaded.
            with contextlib.suppress(PermissionError):
                most += sum(os.path.getsize(path) for path in base_weights(base) if os.path.isfile(path))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    faulthandler.enable()
    request_path, descriptor = sys.argv[1:]
    go_offline(os.path.join(os.environ["HOME"], "huggingface"))
    with open(request_path, encoding="utf-8") as stream:
        request = Request.from_json(json.load(stream))
    limit_memory(request.targets)
    with open(int(descriptor), "w", encoding="utf-8") as stream:
        run(request, Lines(stream).write)


def _size(target: Target) -> int:
    path = os.path.join(target.directory, target.weights_file)
    return os.path.getsize(path) if os.path.isfile(path) else 0
