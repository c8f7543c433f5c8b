# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Read what the NVIDIA driver reports about itself and its GPUs, without torch.

Part of the load test's worker; the node reads the driver and the GPUs with it, too.
"""

from __future__ import annotations

import glob
import re
import subprocess
import typing as t

PROC = "/proc/driver/nvidia"


def driver_lines() -> list[str]:
    """Return the lines that identify the driver and its build; none without a driver."""
    return _lines(f"{PROC}/version", "NVRM version")


def driver_version() -> str | None:
    """Return the version of the driver, or None if there is none."""
    # The name of the open kernel modules ends with the processor's architecture.
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)(\s|$)", "\n".join(driver_lines()))
    return found.group(1) if found else None


def gpu_models() -> list[str]:
    """Return the model lines of all GPUs, in the order of their PCI addresses."""
    return [line for path in sorted(glob.glob(f"{PROC}/gpus/*/information")) for line in _lines(path, "Model")]


def free_memory_by_uuid() -> dict[str, int]:
    """Return the free bytes of each GPU by nvidia-smi; nothing if it cannot be run."""
    command = ["nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_free_memory(done.stdout)


def parse_free_memory(listing: str) -> dict[str, int]:
    """Return the free bytes by UUID from nvidia-smi's list of ``uuid,memory.free`` in MiB."""
    found = re.findall(r"^\s*GPU-([0-9a-f-]+)\s*,\s*(\d+)\s*$", listing, re.MULTILINE)
    return {uuid: int(mebibytes) << 20 for uuid, mebibytes in found}


def freest(visible: t.Sequence[str], free: dict[str, int]) -> int:
    """Return the index of the GPU with the most free memory; the first of equal ones.

    ``visible`` are the UUIDs of the GPUs that torch sees, in its order.
    """
    return max(range(len(visible)), key=lambda index: (free.get(visible[index], -1), -index))


def _lines(path: str, start: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return [" ".join(line.split()) for line in stream if line.startswith(start)]
    except OSError:
        return []
