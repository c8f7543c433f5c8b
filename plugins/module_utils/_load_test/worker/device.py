# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The device of the load test: open it, describe it, estimate whether a test fits its memory.

Part of the load test's worker. Functions that do not need torch work on plain numbers and strings.
"""

from __future__ import annotations

import platform
import re
import typing as t

from .errors import CannotRun
from .nvidia import driver_version, free_memory_by_uuid, freest
from .protocol import LoadTestResult, OpenedDevice

GIB = 1 << 30
# What a forward pass over a few tokens and CUDA's libraries need beside the weights.
ADAPTER_MARGIN = GIB // 2
MODEL_MARGIN = GIB
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def adapter_need(weights: int) -> int:
    """Return the bytes that level adapter needs for a number of weights. It computes in float32."""
    return weights * _BYTES["float32"] + ADAPTER_MARGIN


def loaded_dtype(device_type: str) -> str:
    """Return the dtype that a base is loaded in by default on a device, by the type of the device.

    Engines serve in bfloat16; on a CPU it is ten times slower than float32.
    """
    return "bfloat16" if device_type == "cuda" else "float32"


def model_need(file_bytes: int, stored: str, loaded: str, adapter_bytes: int) -> int:
    """Return the bytes that a base and an adapter need.

    ``stored`` is the dtype of the base's files, ``loaded`` the one that it is loaded in. A base
    that is stored in a wider dtype needs the size of its files, because every weight is read in
    that dtype.
    """
    growth = max(1, _BYTES[loaded] // _BYTES.get(stored, _BYTES[loaded]))
    # PEFT holds an adapter in float32, even one that is saved in half precision.
    return growth * file_bytes + 2 * adapter_bytes + MODEL_MARGIN


def shortage(what: str, need: int, free: int | None, limit: int | None, where: str) -> str | None:
    """Return why ``need`` bytes are too many, or None if they fit.

    ``free`` is None if the free memory is unknown, ``limit`` is None if there is no limit.
    """
    if limit is not None and need > limit:
        return f"{what} does not fit: it needs {need / GIB:.1f} GiB of memory on {where}, {limit / GIB:.1f} GiB are permitted."
    if free is not None and need > free:
        return f"{what} does not fit: it needs {need / GIB:.1f} GiB of memory on {where}, {free / GIB:.1f} GiB are free."
    return None


def open_device(name: str) -> t.Any:
    """Return the torch.device after one computation on it, with exact float32 arithmetic.

    Raises CannotRun.
    """
    import torch

    device = torch.device(name)
    if device.type == "cuda":
        device = _choose_gpu(device)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if torch.ones(8, device=device).sum().item() != 8:
            raise CannotRun("cuda", f"{name} computes a wrong sum of eight ones")
    except RuntimeError as exc:
        raise CannotRun("memory" if out_of_memory(exc) else "cuda", f"{name} cannot be used: {exc}") from exc
    return device


def _choose_gpu(wanted: t.Any) -> t.Any:
    """Return the named GPU, or the one with the most free memory.

    Allocates nothing on any GPU. Raises CannotRun.
    """
    import torch

    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise CannotRun("cuda", f"torch {torch.__version__} ({built}) finds no usable GPU")
    count = torch.cuda.device_count()
    if wanted.index is not None and wanted.index >= count:
        raise CannotRun("cuda", f"there is no {wanted}: torch sees {count} GPU(s)")
    # torch would allocate some hundred megabytes on every GPU whose free memory it reports.
    visible = [str(getattr(torch.cuda.get_device_properties(index), "uuid", "")) for index in range(count)]
    free = free_memory_by_uuid()
    index = freest(visible, free) if wanted.index is None else wanted.index
    left = free.get(visible[index])
    if left is not None and left < ADAPTER_MARGIN:
        raise CannotRun("memory", f"cuda:{index} has only {left / GIB:.1f} GiB of memory free")
    return torch.device("cuda", index)


def describe_device(device: t.Any, versions: dict[str, str]) -> LoadTestResult:
    """Return a result with the device and the versions, including the driver's."""
    import torch

    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        driver = driver_version()
        return LoadTestResult(
            device=str(device),
            device_name=torch.cuda.get_device_name(device),
            capability=f"{major}.{minor}",
            versions={**versions, **({"driver": driver} if driver else {})},
        )
    model = first_match("/proc/cpuinfo", r"model name\s*:\s*(.+)")
    return LoadTestResult(device=str(device), device_name=model or platform.machine(), versions=dict(versions))


def opened_device(device: t.Any) -> OpenedDevice:
    """Return what is known about a device before anything is loaded onto it."""
    return OpenedDevice(str(device), describe_device(device, {}).device_name, free_memory(device))


def out_of_memory(exc: BaseException) -> bool:
    """Return whether memory of the host or the device ran out.

    CUDA's libraries and the host's allocator report it as text only.
    """
    import torch

    if isinstance(exc, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    words = r"allocate memory|out of memory|STATUS_ALLOC_FAILED"
    return isinstance(exc, (OSError, RuntimeError)) and re.search(words, str(exc)) is not None


def free_memory(device: t.Any) -> int | None:
    """Return how many bytes this process can still use on the device, None if unknown."""
    import torch

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + int(unused)
    return available_memory()


def available_memory() -> int | None:
    """Return how many bytes of memory this host can still give to processes, None if unknown."""
    available = first_match("/proc/meminfo", r"MemAvailable:\s*(\d+) kB")
    return int(available) * 1024 if available else None


def first_match(path: str, pattern: str) -> str | None:
    """Return the first group of the first match in a file, or None without a match or a file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            found = re.search(pattern, stream.read())
    except OSError:
        return None
    return found.group(1).strip() if found else None
