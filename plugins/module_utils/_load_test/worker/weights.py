# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Read the tensors of a weights file as data, never as code. Part of the load test's worker."""

from __future__ import annotations

import os
import typing as t

from ..._versions import dotted, major_minor
from .device import out_of_memory
from .errors import CheckFailed, summary
from .protocol import Target

# Before 2.10 even torch.load(weights_only=True) corrupts memory (CVE-2026-24747) or runs code
# (CVE-2025-32434).
_SAFE_PICKLE_TORCH = (2, 10)
_FLOAT8 = ("torch.float8_e4m3fn", "torch.float8_e5m2")


def read_tensors(target: Target) -> dict[str, t.Any]:
    """Return all tensors of the weights file on the CPU, by name. Raises CheckFailed."""
    import torch
    from safetensors import SafetensorError, safe_open

    path = os.path.join(target.directory, target.weights_file)
    if path.endswith(".safetensors"):
        try:
            with safe_open(path, framework="pt", device="cpu") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a dict
        except (SafetensorError, OSError) as exc:
            if out_of_memory(exc):
                raise
            raise CheckFailed(f"{path} cannot be read: {exc}.", "Deliver it again.") from exc
    else:
        tensors = _unpickle(path, target.allow_pickle)
    if not tensors:
        raise CheckFailed(f"{path} holds no tensors.", "Save the adapter again on the training server.")
    # As PEFT widens them; torch computes little with one byte.
    tensors = {name: tensor.float() if str(tensor.dtype) in _FLOAT8 else tensor for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        # NaN and infinity propagate to the minimum or maximum; this takes a fifth of the time of
        # isfinite.
        if tensor.numel() and not all(torch.isfinite(extreme) for extreme in torch.aminmax(tensor)):
            raise CheckFailed(f"tensor {name} holds NaN or infinity.", "Train or save the adapter again.")
    up_matrices = [tensor for name, tensor in tensors.items() if "lora_B" in name or "lora_embedding_B" in name]
    # Modules that are saved whole and trained tokens have an effect, too.
    alone = all("lora_" in name for name in tensors)
    if alone and up_matrices and not any(tensor.any() for tensor in up_matrices):
        raise CheckFailed("all lora_B tensors are zero: the adapter has no effect.", "It was never trained; save it again.")
    return tensors


def _unpickle(path: str, allowed: bool) -> dict[str, t.Any]:
    import torch

    remedy = "Save the adapter as safetensors on the training server."
    if not allowed:
        raise CheckFailed(f"{path} is a pickle, which may carry code.", f"{remedy} Or set allow_pickle for this adapter.")
    if major_minor(torch.__version__) < _SAFE_PICKLE_TORCH:
        raise CheckFailed(
            f"{path} is a pickle and torch {torch.__version__} cannot read one safely.",
            f"{remedy} Or install torch {dotted(_SAFE_PICKLE_TORCH)} or newer on the node.",
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged or hostile pickle can raise any exception.
    except Exception as exc:
        if out_of_memory(exc):
            raise
        raise CheckFailed(f"{path} cannot be read: {summary(exc)}.", remedy) from exc
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in loaded.items()
    ):
        raise CheckFailed(f"{path} holds something other than named tensors.", remedy)
    return {name: tensor.detach() for name, tensor in loaded.items()}
