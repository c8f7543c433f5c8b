# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdicts of engines on an adapter for a 3B base, compared with parsing its manifest.

A node parses the manifest in any case, so that this is what the verdicts add.
"""

from __future__ import annotations

import functools
import pathlib
import sys
import tempfile
import typing as t

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / ".collections"), str(CHECKOUT)]

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules.table import ALIASES  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.verdicts import Engine, verdicts  # noqa: E402

from tests.benchmarks import true_size  # noqa: E402
from tests.benchmarks.side_by_side import Action, measure  # noqa: E402
from tests.support.manifests import read_manifest  # noqa: E402

ROUNDS, TIMES = 15, 100
_SHA256 = "a" * 64


def main() -> None:
    size = true_size.SIZES["3b"]
    with tempfile.TemporaryDirectory() as scratch:
        true_size.make(pathlib.Path(scratch, "adapter"), size, seed=0)
        header = read_manifest(pathlib.Path(scratch, "adapter"))
    files = tuple(FileEntry(name, 1, _SHA256) for name in ("adapter_config.json", "adapter_model.safetensors"))
    tensors = tuple(tensor.__class__(tensor.name, tensor.dtype, tensor.shape, _SHA256) for tensor in header.tensors)
    manifest = Manifest("adapter", files, tensors, header.config, {})
    one, every = [Engine("vllm")], [Engine(name) for name in ALIASES]
    measure(
        f"Engines: an adapter of {len(tensors)} tensors, {TIMES} times",
        {
            "parsing its manifest": Action(repeated(functools.partial(Manifest.from_text, manifest.to_text()))),
            "verdict of one engine": Action(repeated(functools.partial(verdicts, one, manifest, size.config))),
            f"verdicts of {len(every)} engines": Action(repeated(functools.partial(verdicts, every, manifest, size.config))),
        },
        ROUNDS,
    )


def repeated(action: t.Callable[[], object]) -> t.Callable[[], None]:
    def run() -> None:
        for _time in range(TIMES):
            action()

    return run


if __name__ == "__main__":
    main()
