# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Level model: PEFT's own loading on a base with its weights. Part of the load test's worker."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import re
import time
import typing as t

from ..._base.weights import base_weights
from ..._text import count, first
from ..._versions import major_minor
from .adapter_level import INSIDE, base_class, check_names, inject, invocation_tokens, key_mapping, placed_tensors, run_checks
from .device import free_memory, loaded_dtype, model_need, out_of_memory, shortage
from .errors import TRY_VERSIONS, BaseCheckFailed, CheckFailed, Shortage, reading_base, summary
from .protocol import Target

_TOKENS = 16


class LoadedBase:
    """A base with its weights on the device, loaded once for all adapters that share it.

    ``limit`` is the number of bytes that may be used. ``dtype`` and ``attention`` default to what
    suits the device.
    """

    def __init__(
        self,
        path: str,
        device: t.Any,
        adapter_bytes: int,
        limit: int | None = None,
        dtype: str | None = None,
        attention: str | None = None,
    ) -> None:
        self.path = path
        self.device = device
        self.adapter_bytes = adapter_bytes
        self.limit = limit
        self.dtype = dtype or loaded_dtype(device.type)
        self.attention = attention
        self.model: t.Any = None
        self.ids: t.Any = None
        self.logits: t.Any = None
        self.weights: t.Any = None
        self.checksums: t.Any = None

    def load(self, config: t.Any) -> None:
        """Load the base unless it is loaded. Raises BaseCheckFailed, Shortage."""
        import torch
        import transformers

        if self.model is not None:
            return
        # Objects of the last adapter in reference cycles would count as used memory.
        self.drop()
        with reading_base():
            files = base_weights(self.path)
            absent = [path for path in files if not _opens(path)]
        if not files:
            raise BaseCheckFailed(f"its base {self.path} has no safetensors weights.", "Put the base there, or correct its path.")
        if absent:
            raise BaseCheckFailed(f"its base lacks {first(absent)}.", "Copy the complete base to the node.")
        pointers = [path for path in files if _is_lfs_pointer(path)]
        if pointers:
            problem = f"its base has Git LFS pointers instead of files: {first(pointers)}."
            raise BaseCheckFailed(problem, "Run 'git lfs pull' in the directory it was cloned to.")
        on_gpu = self.device.type == "cuda"
        need = model_need(sum(map(os.path.getsize, files)), _config_dtype(config), self.dtype, self.adapter_bytes)
        reason = shortage(f"the base {self.path}", need, free_memory(self.device), self.limit, str(self.device))
        if reason:
            raise Shortage(reason)
        options: dict[str, t.Any] = {"attn_implementation": self.attention} if self.attention else {}
        if on_gpu:
            # If the estimate is too low, this process runs out of memory, not the one that serves.
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, need / total), self.device)
            options["device_map"] = {"": str(self.device)}
        options["dtype" if major_minor(transformers.__version__) >= (4, 56) else "torch_dtype"] = getattr(torch, self.dtype)
        try:
            model, loading = base_class(config).from_pretrained(
                self.path,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
        # transformers raises any exception.
        except Exception as exc:
            if out_of_memory(exc):
                raise
            # For a quantized base, it is often another exception than ImportError.
            if isinstance(exc, ImportError) or "pip install" in str(exc):
                problem = f"its base {self.path} needs a package that this host lacks: {summary(exc)}."
                raise BaseCheckFailed(problem, "Install it in the environment of python.") from exc
            raise BaseCheckFailed(
                f"its base {self.path} cannot be loaded: {summary(exc)}.", "Copy the complete base to the node again."
            ) from exc
        missing = sorted(loading["missing_keys"])
        if missing:
            raise BaseCheckFailed(f"its base {self.path} lacks {first(missing)}.", "Copy the complete base to the node.")
        self.model = model.eval()
        self.ids = torch.tensor([_token_ids(model)], device=self.device)
        try:
            self.logits = self.forward()
        except Exception as exc:
            if out_of_memory(exc):
                raise
            problem = f"its base {self.path} cannot be run on tokens: {summary(exc)}."
            raise BaseCheckFailed(problem, "Install another version of transformers in the environment of python.") from exc
        if not torch.isfinite(self.logits).all():
            self.drop()
            raise BaseCheckFailed(f"its base {self.path} returns NaN or infinity.", "Copy the base to the node again.")
        # PEFT renames them when it wraps modules, and keeps the tensors themselves.
        self.weights = _weights(model)
        self.checksums = _checksums(self.weights)

    def forward(self, model: t.Any = None, before: t.Sequence[int] = ()) -> t.Any:
        """Return the logits over a fixed sequence of token ids, on the CPU.

        ``before`` are token ids to put before it.
        """
        import torch

        ids = torch.cat([torch.tensor([[*before]], dtype=self.ids.dtype, device=self.device), self.ids], dim=1)
        with torch.no_grad():
            return (self.model if model is None else model)(input_ids=ids, use_cache=False).logits[0].cpu()

    def remove_adapter(self, model: t.Any) -> bool:
        """Remove the adapter's layers; returns whether the base is the same as before them."""
        import torch

        config = model.peft_config[INSIDE]
        if any(getattr(config, key, None) for key in ("modules_to_save", "trainable_token_indices", "target_parameters")):
            # Before 0.21 PEFT cannot reliably remove whole modules, so they are disabled and the
            # base is dropped.
            with model.disable_adapter():
                same = bool(torch.equal(self.forward(model), self.logits) and _checksums(self.weights) == self.checksums)
            self.drop()
            return same
        model.delete_adapter(INSIDE)
        self.model = model.base_model.unload()
        return bool(_checksums(_weights(self.model)) == self.checksums)

    def drop(self) -> None:
        """Free the memory of the base."""
        self.model = self.ids = self.logits = self.weights = self.checksums = None
        give_back(self.device)


def give_back(device: t.Any) -> None:
    """Free unreferenced memory of the device, in reference cycles or in torch's cache."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def model_level(target: Target, tensors: dict[str, t.Any], base: LoadedBase) -> tuple[t.Any, float, float, list[str]]:
    """Run level adapter on the loaded base, through PEFT's load_adapter, and compare the answers.

    Returns the model (to pass to ``base.remove_adapter``), seconds, effect and checks. Raises
    CheckFailed.
    """
    import torch

    started = time.monotonic()
    model = inject(target, base.model)
    # Before anything is loaded: a tensor of another name could overwrite the shared base.
    placed = placed_tensors(model, target, tensors)
    copied = check_names(model, placed)
    options = key_mapping(model.get_base_model())
    outcome = model.load_adapter(target.directory, INSIDE, torch_device=str(base.device), **options)
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)
    seconds = time.monotonic() - started
    for keys, what in ((outcome.missing_keys, "missing"), (outcome.unexpected_keys, "unexpected")):
        if keys:
            raise CheckFailed(f"PEFT reports {what} keys: {first(sorted(keys))}.", "Deliver the right adapter.")
    unloaded = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if unloaded:
        raise CheckFailed(f"PEFT loaded no values for {first(unloaded)}.", TRY_VERSIONS)
    checks = run_checks(model, target, tensors, placed, base.device)
    # Activated LoRA changes nothing before its invocation.
    invocation = invocation_tokens(model)
    with_adapter = base.forward(model, invocation)
    if not torch.isfinite(with_adapter).all():
        raise CheckFailed("the model returns NaN or infinity with this adapter.", "Train or save the adapter again.")
    with model.disable_adapter() if invocation else contextlib.nullcontext():
        without = (base.forward(model, invocation) if invocation else base.logits).float()
    effect = float((with_adapter.float() - without).norm() / without.norm())
    if effect == 0:
        raise CheckFailed("the adapter does not change the model's answer at all.", "It has no effect: check its training.")
    checks += [
        f"The base was loaded in {base.dtype} on {base.device}, no weight missing.",
        "PEFT's own loading reports no tensor missing and none unexpected.",
        f"The logits are finite and the adapter changes them by {effect:.3g} of their norm.",
    ]
    if copied:
        checks.append(f"The embeddings of the base in the file ({count(len(copied), 'tensor')}) are those of this base.")
    return model, seconds, effect, checks


def _token_ids(model: t.Any) -> list[int]:
    """Return different token ids, without those that stand for an image or another input."""
    config = model.config.to_dict()
    reserved = {value for key, value in config.items() if re.search(r"_token_(id|index)$", key) and isinstance(value, int)}
    count = model.get_input_embeddings().num_embeddings
    ids = ((11 + 7919 * place) % count for place in range(count))
    return list(itertools.islice((one for one in ids if one not in reserved), _TOKENS))


def _weights(model: t.Any) -> list[tuple[str, t.Any]]:
    """Return the weights and buffers of a model, shared ones under each of their names.

    Replicated layers share the weights of others.
    """
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _checksums(weights: t.Sequence[tuple[str, t.Any]]) -> dict[str, int]:
    """Return a sum over the bits of each weight and buffer, with rows weighted by their numbers."""
    import torch

    sums = {}
    for name, tensor in weights:
        if not tensor.numel():
            continue
        rows = tensor.detach().reshape(len(tensor) if tensor.dim() else 1, -1).contiguous().view(torch.uint8)
        # 32-bit words are faster, if the rows divide into them.
        rows = rows.view(torch.int32) if rows.shape[1] % 4 == 0 else rows
        weights = torch.arange(1, len(rows) + 1, device=rows.device)
        sums[name] = int((rows.sum(dim=1, dtype=torch.int64) * weights).sum())
    return sums


def _opens(path: str) -> bool:
    """Return whether a file exists. Raises PermissionError if it cannot be read."""
    try:
        with open(path, "rb"):
            return True
    except FileNotFoundError:
        return False


def _is_lfs_pointer(path: str) -> bool:
    with open(path, "rb") as stream:
        return stream.read(23) == b"version https://git-lfs"


def _config_dtype(config: t.Any) -> str:
    dtype = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return str(dtype).replace("torch.", "")
