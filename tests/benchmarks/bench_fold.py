# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Folding a 3B-sized adapter, compared with a hashed copy of as many bytes as it writes.

Both run in turns in this process, with one tensor after the other and the page cache warm.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / ".collections"), str(CHECKOUT)]

import numpy as np  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.lora_config import read_lora_config  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import (  # noqa: E402
    FileEntry,
    Manifest,
    TensorEntry,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats.safetensors import open_header  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.fold import fold  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._source.fold_plan import plan_fold  # noqa: E402

from tests.benchmarks import true_size  # noqa: E402
from tests.benchmarks.side_by_side import Action, measure, show  # noqa: E402
from tests.support.safetensors_files import build  # noqa: E402

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ROUNDS = 9
_PEAK = 1 << 20


def main() -> None:
    if sys.argv[1:]:
        print(peak_memory(*map(pathlib.Path, sys.argv[1:])))
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        true_size.make(work / "f32", true_size.SIZES["3b"], seed=0)
        to_bfloat16(work / "f32", work / "bf16")
        memory = []
        for dtype in ("bf16", "f32"):
            for alpha, factor in ((32, "a power of two"), (24, "another factor")):
                adapter = work / f"{dtype}-{alpha}"
                adapter.mkdir()
                os.link(work / dtype / WEIGHTS, adapter / WEIGHTS)
                config = json.loads((work / dtype / CONFIG).read_text(encoding="utf-8"))
                (adapter / CONFIG).write_text(json.dumps({**config, "lora_alpha": alpha}), encoding="utf-8")
                target, copy, manifest = work / "folded", work / "copied", manifest_of(adapter)
                fold_adapter(adapter, target, manifest)
                written = f"{(adapter / WEIGHTS).stat().st_size / 1e6:.1f} MB read, {target.stat().st_size / 1e6:.1f} MB written"
                measure(
                    f"Folding: rank 16 for a 3B base, {dtype}, {factor}, {written}",
                    {
                        "copy of as many bytes as are written: read, sha256, write, fsync": Action(
                            functools.partial(copy_hashed, target, copy), functools.partial(copy.unlink, missing_ok=True)
                        ),
                        "fold: read, sha256, multiply, write, fsync": Action(
                            functools.partial(fold_adapter, adapter, work / "again", manifest),
                            functools.partial((work / "again").unlink, missing_ok=True),
                        ),
                    },
                    ROUNDS,
                )
                command = [sys.executable, __file__, str(adapter), str(work / "peak")]
                (work / "peak").unlink(missing_ok=True)
                peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                memory.append({"what": f"{dtype}, {factor}", "MiB beyond the process": peak / _PEAK})
        largest = max(8 * np.prod(tensor.shape) for tensor in manifest_of(work / "bf16").tensors)
        memory.append({"what": "permitted: 1.2 of the largest tensor in float64, and 16 MB", "MiB beyond the process": 0.0})
        memory[-1]["MiB beyond the process"] = float(1.2 * largest + 16e6) / _PEAK
        show("Folding: the most memory that it needs", memory)


def to_bfloat16(source: pathlib.Path, target: pathlib.Path) -> None:
    """Write an adapter in float32 as one in bfloat16, cut to its upper half."""
    target.mkdir()
    (target / CONFIG).write_bytes((source / CONFIG).read_bytes())
    with open_header(str(source / WEIGHTS)) as (_prefix, header, stream):
        values = np.frombuffer(stream.read(), "<u4")
        entries = {
            info.name: {"dtype": "BF16", "shape": list(info.shape), "data_offsets": [info.start // 2, info.end // 2]}
            for info in header.tensors
        }
    (target / WEIGHTS).write_bytes(build(entries, (values >> 16).astype("<u2").tobytes()))


def manifest_of(adapter: pathlib.Path) -> Manifest:
    """The part of the manifest that the plan needs, without reading the weights."""
    with open_header(str(adapter / WEIGHTS)) as (_prefix, header, _stream):
        tensors = tuple(TensorEntry(info.name, info.dtype, info.shape, "0" * 64) for info in header.tensors)
    files = (FileEntry(CONFIG, 1, "0" * 64), FileEntry(WEIGHTS, 1, "0" * 64))
    return Manifest("a", files, tensors, read_lora_config(str(adapter / CONFIG)), {})


def fold_adapter(adapter: pathlib.Path, target: pathlib.Path, manifest: Manifest) -> None:
    """Plan and fold as ``_source/fold.py`` does for a described adapter."""
    target.unlink(missing_ok=True)
    source = str(adapter / WEIGHTS)
    with open_header(source) as (_prefix, header, _stream):
        request = plan_fold(manifest, "folded").request(source, str(target), header)
    result = fold(request)
    assert (result.inexact, result.too_large) == (None, None)


def copy_hashed(source: pathlib.Path, target: pathlib.Path) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with source.open("rb", buffering=0) as opened, target.open("xb", buffering=0) as copy:
        while count := opened.readinto(buffer):
            digest.update(buffer[:count])
            copy.write(buffer[:count])
        os.fsync(copy.fileno())
    return digest.hexdigest()


def peak_memory(adapter: pathlib.Path, target: pathlib.Path) -> int:
    """Return how many bytes of memory folding takes beyond what this process has already."""

    def status(key: str) -> int:
        lines = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))

    manifest = manifest_of(adapter)
    # So that the peak begins anew.
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = status("VmRSS")
    fold_adapter(adapter, target, manifest)
    return status("VmHWM") - before


if __name__ == "__main__":
    main()
