# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Part of the load test's program (C(_load_worker)): how far one adapter comes, level by level, and the report of that."""

from __future__ import annotations

import os
import typing as t
import warnings

from .adapter_level import adapter_level, read_base_config
from .device import describe_device, out_of_memory
from .errors import TRY_VERSIONS, BaseRefused, Refused, Shortage, in_words
from .golden_level import answer, record
from .model_level import LoadedBase, give_back, model_level
from .weights import read_tensors


def empty_report(**known: t.Any) -> dict[str, t.Any]:
    """A report in which nothing was tested yet."""
    return {
        "dtype": None,
        "passed": False,
        "level": None,
        "load_seconds": None,
        "peak_memory_bytes": None,
        "effect": None,
        "answer": None,
        "recorded": None,
        "checks": [],
        "limited_by": None,
        "warnings": [],
        "problems": [],
        **known,
    }


def examine(
    adapter: dict[str, t.Any], base: t.Optional[LoadedBase], device: t.Any, limit: t.Optional[int] = None
) -> dict[str, t.Any]:
    """The report of one adapter; never raises for anything that is wrong with the adapter."""
    import torch

    on_gpu = device.type == "cuda"
    report = empty_report(**describe_device(device))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _climb(adapter, base, device, report, limit)
            report["passed"] = report["level"] == adapter["level"]
        except Refused as exc:
            report["problems"].append(_problem(adapter, exc.problem, exc.remedy))
        # PEFT and transformers raise what they like; the adapter after this one is to be tested all the same.
        except Exception as exc:
            report["problems"].append(_problem(adapter, f"cannot be loaded: {in_words(exc)}.", TRY_VERSIONS))
            if base is not None:
                base.drop()
    from_peft = [one for one in caught if f"{os.sep}peft{os.sep}" in one.filename]
    report["warnings"] = sorted({str(one.message) for one in from_peft if issubclass(one.category, UserWarning)})
    if on_gpu:
        report["peak_memory_bytes"] = int(torch.cuda.max_memory_allocated(device))
        torch.cuda.empty_cache()
    return report


def _climb(
    adapter: dict[str, t.Any], base: t.Optional[LoadedBase], device: t.Any, report: dict[str, t.Any], limit: t.Optional[int]
) -> None:
    """Take the adapter as high as its level asks and memory permits, noting in the report what was reached. Raises Refused."""

    def fits(step: t.Callable[[], object]) -> bool:
        return _within_memory(step, base, device, report)

    tensors: dict[str, t.Any] = {}
    if not fits(lambda: tensors.update(read_tensors(adapter))):
        return
    broken = None
    if adapter["level"] != "adapter":
        try:
            if fits(lambda: _reach_model(adapter, tensors, base, report)):
                return
        except BaseRefused as exc:
            # Not the one that was raised: it keeps alive what the functions held that it came through.
            broken = BaseRefused(exc.problem, exc.remedy)
    # On the meta device: this level was asked for, or is what can be said without the base.
    fits(lambda: _reach_adapter(adapter, tensors, device, report, limit))
    if broken is not None:
        raise broken


def _within_memory(step: t.Callable[[], object], base: t.Optional[LoadedBase], device: t.Any, report: dict[str, t.Any]) -> bool:
    """Whether memory sufficed for a step. Where it did not, all that was taken is given back and the report says so."""
    try:
        step()
        return True
    except Shortage as exc:
        report["limited_by"] = str(exc)
    except Exception as exc:
        if not out_of_memory(exc):
            raise
        report["limited_by"] = f"memory ran out on {device}: {in_words(exc)}."
    # Not before the exception is gone, which keeps alive what the functions held that it came through.
    if base is not None:
        base.drop()
    else:
        give_back(device)
    return False


def _reach_adapter(
    adapter: dict[str, t.Any], tensors: dict[str, t.Any], device: t.Any, report: dict[str, t.Any], limit: t.Optional[int]
) -> None:
    """Level adapter, and what the report says of it. Raises Refused, Shortage."""
    seconds, checks = adapter_level(adapter, tensors, device, limit)
    report.update(level="adapter", load_seconds=seconds, checks=checks)


def _reach_model(
    adapter: dict[str, t.Any], tensors: dict[str, t.Any], base: t.Optional[LoadedBase], report: dict[str, t.Any]
) -> None:
    """Level model with the questions of level golden, and what the report says of them. Raises Refused, Shortage."""
    if base is None:
        raise Refused(f"level {adapter['level']} needs the base's weights.", "Set its base's path, or ask for level adapter.")
    try:
        base.load(read_base_config(adapter))
        model, seconds, effect, checks = model_level(adapter, tensors, base)
        answered = answer(model, adapter["questions"]) if adapter["level"] == "golden" else None
        recorded = record(model, adapter) if adapter.get("recording") else None
        if not base.take_back(model):
            raise Refused("the base is another one once the adapter is taken out of it.", "The adapter changes its base.")
    except Refused:
        # The base may carry the adapter's layers now, or be changed by it: the next adapter gets a fresh one.
        base.drop()
        raise
    checks.append("The base is bit-equal to before once the adapter is taken out of it.")
    report.update(level="model" if answered is None else "golden", dtype=base.dtype, load_seconds=seconds, effect=effect)
    report.update(answer=answered, recorded=recorded, checks=checks)


def _problem(adapter: dict[str, t.Any], problem: str, remedy: str) -> dict[str, str]:
    return {"subject": adapter["name"], "problem": problem, "remedy": remedy}
