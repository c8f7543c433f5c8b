# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Part of the load test's program (C(_load_worker)): level model, PEFT's own loading on a base with its weights."""

from __future__ import annotations

import gc
import os
import time
import typing as t

from ..._base.weights import base_weights
from ..._text import first
from ..._versions import major_minor
from .adapter_level import INSIDE, adapter_parameters, check_names, inject, prove
from .device import free_memory, model_need, out_of_memory, shortage
from .errors import TRY_VERSIONS, BaseRefused, Refused, Shortage, in_words, reading_base

_TOKENS = 16


class LoadedBase:
    """A base with its weights on the device, loaded at the first use and kept for all adapters that share it.

    C(limit) is how many bytes may be taken at most, C(dtype) and C(attention) what it is computed with, where that is not
    what suits the device.
    """

    def __init__(
        self,
        path: str,
        device: t.Any,
        adapter_bytes: int,
        limit: t.Optional[int] = None,
        dtype: t.Optional[str] = None,
        attention: t.Optional[str] = None,
    ) -> None:
        self.path = path
        self.device = device
        self.adapter_bytes = adapter_bytes
        self.limit = limit
        # bfloat16 is what is served; on a CPU it is ten times slower than float32.
        self.dtype = dtype or ("bfloat16" if device.type == "cuda" else "float32")
        self.attention = attention
        self.model: t.Any = None
        self.ids: t.Any = None
        self.logits: t.Any = None
        self.checksums: t.Any = None

    def load(self, config: t.Any) -> None:
        """Load the base unless it is there. Raises BaseRefused, Shortage."""
        import torch
        import transformers

        if self.model is not None:
            return
        # What the last adapter left may hang in a cycle and would be counted as taken.
        self.drop()
        with reading_base():
            files = base_weights(self.path)
            absent = [path for path in files if not _opens(path)]
        if not files:
            raise BaseRefused(f"its base {self.path} has no safetensors weights.", "Put the base there, or correct path.")
        if absent:
            raise BaseRefused(f"its base lacks {first(absent)}.", "Bring the whole base to the node.")
        on_gpu = self.device.type == "cuda"
        need = model_need(sum(map(os.path.getsize, files)), _config_dtype(config), self.dtype, self.adapter_bytes)
        reason = shortage(f"the base {self.path}", need, free_memory(self.device), self.limit, str(self.device))
        if reason:
            raise Shortage(reason)
        options: dict[str, t.Any] = {"attn_implementation": self.attention} if self.attention else {}
        if on_gpu:
            # Whatever goes wrong with the estimate, it goes wrong in this process and not in the one that serves.
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, need / total), self.device)
            options["device_map"] = {"": str(self.device)}
        options["dtype" if major_minor(transformers.__version__) >= (4, 56) else "torch_dtype"] = getattr(torch, self.dtype)
        try:
            model, loading = transformers.AutoModelForCausalLM.from_pretrained(
                self.path,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
        # transformers raises what it likes.
        except Exception as exc:
            if out_of_memory(exc):
                raise
            raise BaseRefused(
                f"its base {self.path} cannot be loaded: {in_words(exc)}.", "Bring the base to the node again, whole."
            ) from exc
        missing = sorted(loading["missing_keys"])
        if missing:
            raise BaseRefused(f"its base {self.path} lacks {first(missing)}.", "Bring the whole base to the node.")
        self.model = model.eval()
        count = model.get_input_embeddings().num_embeddings
        self.ids = torch.tensor([[(11 + 7919 * place) % count for place in range(_TOKENS)]], device=self.device)
        self.logits = self.forward()
        if not torch.isfinite(self.logits).all():
            self.drop()
            raise BaseRefused(f"its base {self.path} answers NaN or infinity.", "Bring the base to the node again.")
        self.checksums = _checksums(self.model)

    def forward(self, model: t.Any = None) -> t.Any:
        """Logits over a fixed sequence of token ids, on the CPU."""
        import torch

        with torch.no_grad():
            return (self.model if model is None else model)(input_ids=self.ids, use_cache=False).logits[0].cpu()

    def take_back(self, model: t.Any) -> bool:
        """Take the adapter's layers out of the base for the next adapter; whether the base is what it was before them."""
        import torch

        if model.peft_config[INSIDE].modules_to_save:
            # Before 0.21 PEFT fails in several ways to take whole modules out, so they are switched off and the base is dropped.
            with model.disable_adapter():
                same = bool(torch.equal(self.forward(model), self.logits))
            self.drop()
            return same
        model.delete_adapter(INSIDE)
        self.model = model.base_model.unload()
        return bool(_checksums(self.model) == self.checksums)

    def drop(self) -> None:
        """Give the base's memory back."""
        self.model = self.ids = self.logits = self.checksums = None
        give_back(self.device)


def give_back(device: t.Any) -> None:
    """Give the device what nothing refers to any more, be it in a cycle or in torch's cache."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def model_level(adapter: dict[str, t.Any], tensors: dict[str, t.Any], base: LoadedBase) -> tuple[t.Any, float, float, list[str]]:
    """Level adapter on the loaded base, through PEFT's load_adapter, and the answers. Raises Refused.

    Returns the model, which C(base) is to take back, seconds, effect and checks.
    """
    import torch

    started = time.monotonic()
    model = inject(adapter, base.model)
    # Before anything is loaded: what has another name could overwrite the base, which others share.
    check_names(adapter_parameters(model), tensors)
    outcome = model.load_adapter(adapter["directory"], INSIDE, torch_device=str(base.device))
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)
    seconds = time.monotonic() - started
    for keys, what in ((outcome.missing_keys, "missing"), (outcome.unexpected_keys, "unexpected")):
        if keys:
            raise Refused(f"PEFT reports {what} keys: {first(sorted(keys))}.", "Deliver the right adapter.")
    nowhere = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if nowhere:
        raise Refused(f"PEFT left without values: {first(nowhere)}.", TRY_VERSIONS)
    checks = prove(model, adapter, tensors, base.device)
    with_adapter = base.forward(model)
    if not torch.isfinite(with_adapter).all():
        raise Refused("the model answers NaN or infinity with this adapter.", "Train or save the adapter again.")
    without = base.logits.float()
    effect = float((with_adapter.float() - without).norm() / without.norm())
    if effect == 0:
        raise Refused("the adapter does not change the model's answer at all.", "It has no effect: check its training.")
    return (
        model,
        seconds,
        effect,
        [
            *checks,
            f"The base was loaded in {base.dtype} on {base.device}, no weight missing.",
            "PEFT's own loading reports no tensor missing and none unexpected.",
            f"The logits are finite and the adapter changes them by {effect:.3g} of their norm.",
        ],
    )


def _checksums(model: t.Any) -> dict[str, int]:
    """For each weight and buffer of a model a sum over its bits, in which every row counts with its number."""
    import torch

    sums = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.numel():
            continue
        rows = tensor.detach().reshape(len(tensor) if tensor.dim() else 1, -1).contiguous().view(torch.uint8)
        # By words where that is possible, which is faster.
        rows = rows.view(torch.int32) if rows.shape[1] % 4 == 0 else rows
        weights = torch.arange(1, len(rows) + 1, device=rows.device)
        sums[name] = int((rows.sum(dim=1, dtype=torch.int64) * weights).sum())
    return sums


def _opens(path: str) -> bool:
    """Whether a file is there. Raises PermissionError where it may not be read."""
    try:
        with open(path, "rb"):
            return True
    except FileNotFoundError:
        return False


def _config_dtype(config: t.Any) -> str:
    dtype = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return str(dtype).replace("torch.", "")
