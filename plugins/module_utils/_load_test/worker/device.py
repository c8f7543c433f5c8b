# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Part of the load test's program (C(_load_worker)): the device, what it is, and whether a test fits its memory.

Whatever needs no torch here is a plain function of numbers and texts.
"""

from __future__ import annotations

import platform
import re
import subprocess
import typing as t

GIB = 1 << 30
# What a forward pass over a few tokens and CUDA's libraries take beside the weights.
ADAPTER_MARGIN = GIB // 2
MODEL_MARGIN = GIB
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class CannotRun(Exception):
    """Nothing can be tested here: C(kind) is package, import, cuda or memory."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


def adapter_need(weights: int) -> int:
    """Bytes that level adapter takes for so many weights: they are computed with in float32."""
    return weights * _BYTES["float32"] + ADAPTER_MARGIN


def model_need(file_bytes: int, stored: str, loaded: str, adapter_bytes: int) -> int:
    """Bytes that a base takes whose files are so big, C(stored) in one dtype and C(loaded) in another, with an adapter on it.

    A base that is stored wider than it is loaded is taken as it is stored: each weight is that wide while it is read.
    """
    growth = max(1, _BYTES[loaded] // _BYTES.get(stored, _BYTES[loaded]))
    # PEFT holds an adapter in float32, be it saved in half precision.
    return growth * file_bytes + 2 * adapter_bytes + MODEL_MARGIN


def shortage(what: str, need: int, free: t.Optional[int], limit: t.Optional[int], where: str) -> t.Optional[str]:
    """Why C(need) bytes are too many where C(free) are free and C(limit) are permitted (None: unknown, no limit), or None."""
    if limit is not None and need > limit:
        return f"{what} does not fit: it needs {need / GIB:.1f} GiB of memory on {where}, {limit / GIB:.1f} GiB are permitted."
    if free is not None and need > free:
        return f"{what} does not fit: it needs {need / GIB:.1f} GiB of memory on {where}, {free / GIB:.1f} GiB are free."
    return None


def free_by_uuid(listing: str) -> dict[str, int]:
    """Free bytes of each GPU out of C(nvidia-smi --query-gpu=uuid,memory.free --format=csv,noheader,nounits)."""
    found = re.findall(r"^\s*GPU-([0-9a-f-]+)\s*,\s*(\d+)\s*$", listing, re.MULTILINE)
    return {uuid: int(mebibytes) << 20 for uuid, mebibytes in found}


def freest(visible: t.Sequence[str], free: dict[str, int]) -> int:
    """Which of the GPUs that torch sees (their UUIDs, in its order) has most memory free; the first of equal ones."""
    return max(range(len(visible)), key=lambda index: (free.get(visible[index], -1), -index))


def open_device(name: str) -> t.Any:
    """The torch.device, proved by one computation, with exact float32 arithmetic. Raises CannotRun."""
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
            raise CannotRun("cuda", f"{name} adds eight ones up to something else")
    except RuntimeError as exc:
        raise CannotRun("memory" if out_of_memory(exc) else "cuda", f"{name} cannot be used: {exc}") from exc
    return device


def _choose_gpu(wanted: t.Any) -> t.Any:
    """The GPU that was named, or the freest. Nothing is put on any GPU to find out. Raises CannotRun."""
    import torch

    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise CannotRun("cuda", f"torch {torch.__version__} ({built}) finds no usable GPU")
    count = torch.cuda.device_count()
    if wanted.index is not None and wanted.index >= count:
        raise CannotRun("cuda", f"there is no {wanted}: torch sees {count} GPU(s)")
    # torch itself would have to take some hundred megabytes of every GPU that it is asked about.
    visible = [str(getattr(torch.cuda.get_device_properties(index), "uuid", "")) for index in range(count)]
    free = free_by_uuid(_ask_driver())
    index = freest(visible, free) if wanted.index is None else wanted.index
    left = free.get(visible[index])
    if left is not None and left < ADAPTER_MARGIN:
        raise CannotRun("memory", f"cuda:{index} has only {left / GIB:.1f} GiB of memory free")
    return torch.device("cuda", index)


def _ask_driver() -> str:
    """What nvidia-smi says of the memory of all GPUs; nothing where it cannot be asked."""
    command = ["nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def describe_device(device: t.Any) -> dict[str, t.Any]:
    """What the report says of the device."""
    import torch

    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return {
            "device": str(device),
            "device_name": torch.cuda.get_device_name(device),
            "capability": f"{major}.{minor}",
            "driver": driver_version("/proc/driver/nvidia/version"),
        }
    model = first_match("/proc/cpuinfo", r"model name\s*:\s*(.+)")
    return {"device": str(device), "device_name": model or platform.machine()}


def driver_version(path: str) -> t.Optional[str]:
    """The version of the NVIDIA driver, or None where there is none."""
    # The name of the open kernel modules ends in that of the processor.
    return first_match(path, r"Kernel Module\D.*?\s(\d+\.[\d.]+)\s")


def out_of_memory(exc: BaseException) -> bool:
    """Whether memory of the host or of the device ran out, which CUDA's libraries and the host's allocator say in words only."""
    import torch

    if isinstance(exc, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    words = r"allocate memory|out of memory|STATUS_ALLOC_FAILED"
    return isinstance(exc, (OSError, RuntimeError)) and re.search(words, str(exc)) is not None


def free_memory(device: t.Any) -> t.Optional[int]:
    """Bytes that this process may take on the device without hurting others there; None when that cannot be told."""
    import torch

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + int(unused)
    available = first_match("/proc/meminfo", r"MemAvailable:\s*(\d+) kB")
    return int(available) * 1024 if available else None


def first_match(path: str, pattern: str) -> t.Optional[str]:
    """The first group of the first place in a file where a pattern fits; None where it fits nowhere or there is no file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            found = re.search(pattern, stream.read())
    except OSError:
        return None
    return found.group(1).strip() if found else None
