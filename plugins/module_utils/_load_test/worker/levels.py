# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Run the levels of the load test on one adapter and report the level it reached.

Part of the load test's worker.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t
import warnings

from .adapter_level import adapter_level, read_base_config
from .device import describe_device, out_of_memory
from .errors import TRY_VERSIONS, BaseCheckFailed, CheckFailed, Shortage, summary
from .golden_level import answer, record
from .model_level import LoadedBase, give_back, model_level
from .original import compare
from .protocol import Failure, Report, Target
from .tokenizer import TokenizerReport, check_tokenizer
from .weights import read_tensors


def run_levels(
    target: Target, base: LoadedBase | None, device: t.Any, versions: dict[str, str], limit: int | None = None
) -> Report:
    """Return the report of one adapter. Never raises for a fault of the adapter."""
    import torch

    on_gpu = device.type == "cuda"
    report = Report(describe_device(device, versions))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _run_up_to_level(target, base, device, report, limit)
            report.passed = report.result.level == target.level
        except CheckFailed as exc:
            report.failures.append(Failure(exc.problem, exc.remedy))
        # PEFT and transformers can raise any exception. The next adapter must still be tested.
        except Exception as exc:
            report.failures.append(Failure(f"cannot be loaded: {summary(exc)}.", TRY_VERSIONS))
            if base is not None:
                base.drop()
    from_peft = [one for one in caught if f"{os.sep}peft{os.sep}" in one.filename]
    report.warnings = sorted({str(one.message) for one in from_peft if issubclass(one.category, UserWarning)})
    if on_gpu:
        report.result.peak_memory_bytes = int(torch.cuda.max_memory_allocated(device))
        torch.cuda.empty_cache()
    return report


def _run_up_to_level(target: Target, base: LoadedBase | None, device: t.Any, report: Report, limit: int | None) -> None:
    """Run the levels up to the target's, as far as memory permits. Raises CheckFailed."""

    def fits(step: t.Callable[[], object]) -> bool:
        return _within_memory(step, base, device, report)

    tensors: dict[str, t.Any] = {}
    if not fits(lambda: tensors.update(read_tensors(target))):
        return
    tokenizer = _check_tokenizer(target, tensors)
    _run_levels(target, tensors, base, device, report, limit)
    if report.result.level is not None and tokenizer is not None:
        report.result.checks += tokenizer.checks
        report.result.notes += tokenizer.notes


def _check_tokenizer(target: Target, tensors: t.Mapping[str, t.Any]) -> TokenizerReport | None:
    """Return None if the base cannot tell how many tokens there are, which the levels report."""
    try:
        config = read_base_config(target)
    except CheckFailed:
        return None
    rows = [tensor.shape[0] for name, tensor in tensors.items() if name.endswith(("embed_tokens.weight", "lm_head.weight"))]
    size = getattr(config.get_text_config(), "vocab_size", None)
    return None if size is None else check_tokenizer(target, config, max([size, *rows]))


def _run_levels(
    target: Target, tensors: dict[str, t.Any], base: LoadedBase | None, device: t.Any, report: Report, limit: int | None
) -> None:
    def fits(step: t.Callable[[], object]) -> bool:
        return _within_memory(step, base, device, report)

    broken = None
    if target.level != "adapter":
        try:
            if fits(lambda: _run_model_level(target, tensors, base, report)):
                return
        except BaseCheckFailed as exc:
            # A copy, because the raised exception keeps the objects of its traceback alive.
            broken = BaseCheckFailed(exc.problem, exc.remedy)
    # On the meta device: either this is the level wanted, or it is what can be tested without the
    # base.
    fits(lambda: _run_adapter_level(target, tensors, device, report, limit))
    if broken is not None:
        raise broken


def _within_memory(step: t.Callable[[], object], base: LoadedBase | None, device: t.Any, report: Report) -> bool:
    """Run a step and return whether memory sufficed.

    If not, free what the step took and report the reason.
    """
    try:
        step()
        return True
    except Shortage as exc:
        report.result.limited_by = str(exc)
    except Exception as exc:
        if not out_of_memory(exc):
            raise
        report.result.limited_by = f"memory ran out on {device}: {summary(exc)}."
    # After the except block, because the exception keeps the objects of its traceback alive.
    if base is not None:
        base.drop()
    else:
        give_back(device)
    return False


def _run_adapter_level(target: Target, tensors: dict[str, t.Any], device: t.Any, report: Report, limit: int | None) -> None:
    """Run level adapter and report it. Raises CheckFailed, Shortage."""
    seconds, checks = adapter_level(target, tensors, device, limit)
    report.result = dataclasses.replace(report.result, level="adapter", load_seconds=seconds, checks=checks)


def _run_model_level(target: Target, tensors: dict[str, t.Any], base: LoadedBase | None, report: Report) -> None:
    """Run level model with the questions of level golden and the comparison, and report them.

    Raises CheckFailed, Shortage.
    """
    if base is None:
        raise CheckFailed(f"level {target.level} needs the base's weights.", "Set the path of its base, or use level adapter.")
    try:
        base.load(read_base_config(target))
        model, seconds, effect, checks = model_level(target, tensors, base)
        answered = answer(model, target.questions or []) if target.level == "golden" else None
        recorded = record(model, target) if target.recording else None
        logits = base.forward(model) if target.original else None
        if not base.remove_adapter(model):
            raise CheckFailed("the base has changed after the adapter was removed from it.", "The adapter changes its base.")
        compared = compare(target, target.original, logits, base) if target.original else None
    except CheckFailed:
        # The base may still carry the adapter's layers or be changed by it: the next adapter gets a
        # fresh one.
        base.drop()
        raise
    checks.append("The base is bit-equal to before after the adapter was removed from it.")
    report.answer, report.recorded, report.compared = answered, recorded, compared
    report.result = dataclasses.replace(
        report.result,
        level="model" if answered is None else "golden",
        dtype=base.dtype,
        load_seconds=seconds,
        effect=effect,
        checks=checks,
    )
