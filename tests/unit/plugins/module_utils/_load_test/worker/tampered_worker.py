# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load test's program with single parts of it changed: C(PYTHONPATH=.collections python tampered_worker.py ADAPTERS BASE).

Runs in the interpreter that has PEFT, on the adapters whole, missing, unknown and overwriting. Prints what was said of each
change, and the reports.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import typing as t
import weakref
from unittest import mock

from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.program import PROGRAM
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.adapter_level import check_same, inject
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.errors import Refused
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.levels import examine
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.main import go_offline, run
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.model_level import LoadedBase

ADAPTERS, BASE = sys.argv[1:]
go_offline(os.path.join(ADAPTERS, "hub"))
import torch  # noqa: E402

CPU = torch.device("cpu")
said: dict[str, list[str]] = {}
reports: dict[str, t.Any] = {}


def adapter(name: str) -> dict[str, t.Any]:
    return {
        "name": name,
        "directory": os.path.join(ADAPTERS, name),
        "weights_file": "adapter_model.safetensors",
        "allow_pickle": False,
        "level": "model",
        "base_config": None,
        "base_path": BASE,
    }


def tamper(key: str, name: str = "whole", limit: int | None = None, **changes: t.Any) -> None:
    """Examine an adapter while parts of the program are others, in whatever file of it they are known."""
    with contextlib.ExitStack() as undo:
        for part, value in changes.items():
            files = [file for file in PROGRAM if hasattr(file, part)]
            assert files, part
            for file in files:
                undo.enter_context(mock.patch.object(file, part, value))
        reports[key] = examine(adapter(name), LoadedBase(BASE, CPU, 0, limit), CPU, limit)
    said[key] = [problem["problem"] for problem in reports[key]["problems"]]


def compare(key: str, loaded: t.Any, file: t.Any) -> None:
    try:
        check_same({"lora_A": loaded}, {"lora_A": file}, CPU)
        said[key] = []
    except Refused as exc:
        said[key] = [exc.problem]


def anything(*_: t.Any) -> None:
    """A check that finds nothing."""


def silent(one: dict[str, t.Any], base: t.Any, **options: t.Any) -> t.Any:
    """PEFT's layers are there and none of them is asked."""
    model = inject(one, base, **options)
    model.forward = model.base_model.model.forward
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            layer.forward = layer.base_layer.forward
    return model


def quiet(one: dict[str, t.Any], base: t.Any, **options: t.Any) -> t.Any:
    """PEFT leaves on the meta device what the file lacks, and does not say so."""
    model = inject(one, base, **{**options, "low_cpu_mem_usage": True})
    load = model.load_adapter

    def load_adapter(*args: t.Any, **options: t.Any) -> t.Any:
        outcome = load(*args, **options)
        outcome.missing_keys.clear()
        return outcome

    model.load_adapter = load_adapter
    return model


tamper("whole")
tamper("tolerance", _TOLERANCE=0)
tamper("scaling", _scaling=lambda config, rank: 1.0)
tamper("missing", "missing", check_names=anything)
tamper("unknown", "unknown", check_names=anything)
tamper("overwriting", "overwriting", check_names=anything, check_same=anything)
tamper("silent", inject=silent)
tamper("on meta", "missing", check_names=anything, check_same=anything, inject=quiet)

shared = LoadedBase(BASE, CPU, 0)
used = []
for _ in range(2):
    examine(adapter("whole"), shared, CPU)
    used.append(shared.model)
plain = used[0] is not None and not any("lora" in name for name, _module in used[0].named_modules())
said["shared"] = [] if plain and used[0] is used[1] else ["the base was not kept as it was"]

weights = torch.rand(4, 4)
compare("equal", weights.clone(), weights)
compare("widened", weights.bfloat16().float(), weights.bfloat16())
compare("one bit", torch.nextafter(weights, torch.tensor(2.0)), weights)
compare("rounded", weights.bfloat16().float(), weights)
compare("elsewhere", weights.to("meta"), weights)


class Held:
    """Stands for what a step had taken of the memory."""


held: list[weakref.ref[Held]] = []
left: list[list[str]] = []
drop = LoadedBase.drop


def run_out(error: type[Exception], *words: t.Any) -> t.Callable[..., t.Any]:
    """A step for which memory does not suffice."""

    def step(*_: t.Any, **__: t.Any) -> t.Any:
        something = Held()
        held.append(weakref.ref(something))
        raise error(*words)

    return step


def look_and_drop(base: LoadedBase) -> None:
    left.append(["held" for one in held if one() is not None])
    drop(base)


words = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes."
tamper("no room", limit=1)
with mock.patch.object(LoadedBase, "drop", look_and_drop):
    for key, *error in [("host", RuntimeError, words), ("device", torch.cuda.OutOfMemoryError, "CUDA out of memory.")]:
        tamper(f"{key} at model", model_level=run_out(*error))
        said[f"{key} gives back"] = left[-1]
        tamper(f"{key} at adapter", limit=600 << 20, adapter_parameters=run_out(*error))
    tamper("while it is read", read_tensors=run_out(OSError, 12, "Cannot allocate memory"))

results: list[dict[str, t.Any]] = []
with mock.patch.object(torch, "ones", run_out(RuntimeError, "CUDA error: out of memory")):
    run({"device": "cpu", "packages": ["torch"], "adapters": [adapter("whole")]}, results.append)
said["full"] = results[-1]["error"] or []
reports["full"] = results[-1]["adapters"].get("whole")
print(json.dumps([said, reports]))
