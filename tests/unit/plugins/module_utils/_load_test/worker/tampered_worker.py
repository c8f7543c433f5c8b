# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The worker with single parts of it changed.

Run as ``PYTHONPATH=.collections python tampered_worker.py ADAPTERS BASE`` in the PEFT interpreter,
on the adapters intact, missing, unknown and overwriting. Prints the failures of each change, and
the reports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import typing as t
import weakref
from unittest import mock

from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.program import PROGRAM
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.adapter_level import check_same, inject
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.errors import CheckFailed
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.levels import run_levels
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.main import go_offline, run
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.model_level import LoadedBase
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import (
    Report,
    Request,
    RunResult,
    Target,
)

ADAPTERS, BASE = sys.argv[1:]
go_offline(os.path.join(ADAPTERS, "hub"))
import torch  # noqa: E402

CPU = torch.device("cpu")
failures: dict[str, list[str]] = {}
reports: dict[str, Report] = {}


def target(name: str) -> Target:
    return Target(name, os.path.join(ADAPTERS, name), "adapter_model.safetensors", "model", None, BASE, False)


def tamper(key: str, name: str = "intact", limit: int | None = None, **changes: t.Any) -> None:
    """Test an adapter with parts of the worker replaced, in every file that has them."""
    with contextlib.ExitStack() as undo:
        for part, value in changes.items():
            files = [file for file in PROGRAM if hasattr(file, part)]
            assert files, part
            for file in files:
                undo.enter_context(mock.patch.object(file, part, value))
        reports[key] = run_levels(target(name), LoadedBase(BASE, CPU, 0, limit), CPU, {}, limit)
    failures[key] = [failure.problem for failure in reports[key].failures]


def compare(key: str, loaded: t.Any, file: t.Any) -> None:
    try:
        check_same({"lora_A": loaded}, {"lora_A": file}, CPU)
        failures[key] = []
    except CheckFailed as exc:
        failures[key] = [exc.problem]


def anything(*_: t.Any) -> None:
    """A check that always passes."""


def silent(one: Target, base: t.Any, **options: t.Any) -> t.Any:
    """PEFT's layers exist, but none of them is called."""
    model = inject(one, base, **options)
    model.forward = model.base_model.model.forward
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            layer.forward = layer.base_layer.forward
    return model


def quiet(one: Target, base: t.Any, **options: t.Any) -> t.Any:
    """PEFT leaves missing tensors on the meta device, without an error."""
    model = inject(one, base, **{**options, "low_cpu_mem_usage": True})
    load = model.load_adapter

    def load_adapter(*args: t.Any, **options: t.Any) -> t.Any:
        outcome = load(*args, **options)
        outcome.missing_keys.clear()
        return outcome

    model.load_adapter = load_adapter
    return model


tamper("intact")
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
    run_levels(target("intact"), shared, CPU, {})
    used.append(shared.model)
plain = used[0] is not None and not any("lora" in name for name, _module in used[0].named_modules())
failures["shared"] = [] if plain and used[0] is used[1] else ["the base was changed"]

weights = torch.rand(4, 4)
compare("equal", weights.clone(), weights)
compare("widened", weights.bfloat16().float(), weights.bfloat16())
compare("one bit", torch.nextafter(weights, torch.tensor(2.0)), weights)
compare("rounded", weights.bfloat16().float(), weights)
compare("elsewhere", weights.to("meta"), weights)


class Held:
    """Stands for memory that a step has allocated."""


held: list[weakref.ref[Held]] = []
left: list[list[str]] = []
drop = LoadedBase.drop


def run_out(error: type[Exception], *words: t.Any) -> t.Callable[..., t.Any]:
    """Return a step that runs out of memory."""

    def step(*_: t.Any, **__: t.Any) -> t.Any:
        something = Held()
        held.append(weakref.ref(something))
        raise error(*words)

    return step


def record_and_drop(base: LoadedBase) -> None:
    left.append(["held" for one in held if one() is not None])
    drop(base)


words = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes."
tamper("no room", limit=1)
with mock.patch.object(LoadedBase, "drop", record_and_drop):
    for key, *error in [("host", RuntimeError, words), ("device", torch.cuda.OutOfMemoryError, "CUDA out of memory.")]:
        tamper(f"{key} at model", model_level=run_out(*error))
        failures[f"{key} gives back"] = left[-1]
        tamper(f"{key} at adapter", limit=600 << 20, adapter_parameters=run_out(*error))
    tamper("while it is read", read_tensors=run_out(OSError, 12, "Cannot allocate memory"))

results: list[RunResult] = []
with mock.patch.object(torch, "ones", run_out(RuntimeError, "CUDA error: out of memory")):
    run(Request("cpu", ("torch",), (target("intact"),)), results.append)
failures["full"] = [results[-1].error.detail] if results[-1].error else []
reports["full"] = results[-1].reports["intact"]
print(json.dumps([failures, {key: dataclasses.asdict(report) for key, report in reports.items()}]))
