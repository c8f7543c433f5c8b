# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Level adapter: PEFT's injection over a base without weights. Part of the load test's worker.

PEFT's resulting parameters are compared with the file, tensor by tensor, and the outputs of its
modules with a computation in float64.
"""

from __future__ import annotations

import json
import math
import os
import time
import typing as t

from ..._adapter.files import CONFIG_FILE
from ..._base.remote_code import code_keys
from ..._text import first
from .device import adapter_need, free_memory, shortage
from .errors import TRY_VERSIONS, BaseCheckFailed, CheckFailed, Shortage, reading_base, summary
from .protocol import Target

# PEFT's name for the adapter under test. The adapter's own name may have dots, which PEFT does not
# accept.
INSIDE = "delivery"
# float32 against float64 differs by about 3e-7; TF32 or a wrong kernel by 1e-3 and more.
_TOLERANCE = 1e-4
_HARDWARE = "The device computes wrong results: check its driver, its errors (dmesg, ECC) and the build of torch."


def read_base_config(target: Target) -> t.Any:
    """Return the base's configuration as transformers reads it. Raises CheckFailed."""
    from transformers import AutoConfig

    raw = target.base_config or {}
    if target.base_path is not None:
        with reading_base(), open(os.path.join(target.base_path, "config.json"), encoding="utf-8") as stream:
            raw = json.load(stream)
    hooks = sorted(code_keys(raw))
    if hooks:
        raise CheckFailed(
            f"the base's config.json has {', '.join(hooks)}, which can make transformers load code.", "Use a base without it."
        )
    if not raw.get("model_type"):
        raise CheckFailed(
            "the declared config of its base has no model_type.", "Add model_type to its config in bases, or set its path."
        )
    try:
        if target.base_path is not None:
            return AutoConfig.from_pretrained(target.base_path, local_files_only=True, trust_remote_code=False)
        return AutoConfig.for_model(**raw)
    except ValueError as exc:
        problem = f"its base has model_type {raw['model_type']!r}, which transformers cannot load: {summary(exc)[:200]}."
        raise BaseCheckFailed(problem, "Correct the base, or install a version of transformers that supports it.") from exc


def inject(target: Target, base: t.Any, **options: t.Any) -> t.Any:
    """Add PEFT's layers to the base, as the adapter's configuration describes them."""
    from peft import LoraConfig, PeftModelForCausalLM

    # Not PeftConfig: before 0.15 it replaces settings that a newer version has saved by defaults.
    return PeftModelForCausalLM(base, LoraConfig.from_pretrained(target.directory), INSIDE, **options).eval()


def adapter_parameters(model: t.Any) -> dict[str, t.Any]:
    """Return PEFT's parameters of the adapter, by the names that they have in its file."""
    from peft import get_peft_model_state_dict

    return t.cast(
        "dict[str, t.Any]",
        get_peft_model_state_dict(
            model, state_dict=model.state_dict(keep_vars=True), adapter_name=INSIDE, save_embedding_layers=False
        ),
    )


def check_names(expected: dict[str, t.Any], tensors: dict[str, t.Any]) -> None:
    """Raises CheckFailed if the file does not have exactly the tensors that PEFT expects."""
    remedy = "The adapter does not fit this base or configuration: check both and deliver the right adapter."
    missing = sorted(set(expected) - set(tensors))
    if missing:
        raise CheckFailed(f"the weights file lacks {first(missing)}.", remedy)
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise CheckFailed(f"the weights file has {first(extra)}, which PEFT does not make for such an adapter.", remedy)
    for name, wanted in expected.items():
        if tuple(wanted.shape) != tuple(tensors[name].shape):
            raise CheckFailed(f"tensor {name} has shape {list(tensors[name].shape)}, PEFT expects {list(wanted.shape)}.", remedy)


def check_same(loaded: dict[str, t.Any], tensors: dict[str, t.Any], device: t.Any) -> None:
    """Raises CheckFailed if a loaded parameter is not on the device or differs from the file."""
    import torch

    for name, tensor in tensors.items():
        parameter = loaded[name].detach()
        if parameter.device != device:
            raise CheckFailed(f"tensor {name} is on {parameter.device} after loading, not on {device}.", TRY_VERSIONS)
        back = parameter.cpu()
        # LoRA tensors may only be widened; whole modules (modules_to_save) take the dtype of the
        # base.
        wanted = tensor if "lora_" in name else tensor.to(back.dtype)
        # Comparing in the wider of the two dtypes loses nothing.
        wider = torch.promote_types(back.dtype, wanted.dtype)
        if not torch.equal(back.to(wider), wanted.to(wider)):
            raise CheckFailed(f"tensor {name} differs from the file after it was loaded on {device}.", TRY_VERSIONS)


def adapter_level(target: Target, tensors: dict[str, t.Any], device: t.Any, limit: int | None = None) -> tuple[float, list[str]]:
    """Inject the adapter over a base without weights, with its tensors on the device, and check it.

    Returns the seconds and the checks. Raises CheckFailed, Shortage.
    """
    import torch
    from transformers import AutoModelForCausalLM

    need = adapter_need(sum(tensor.numel() for tensor in tensors.values()))
    reason = shortage("the adapter alone", need, free_memory(device), limit, str(device))
    if reason:
        raise Shortage(reason)
    started = time.monotonic()
    config = read_base_config(target)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model = inject(target, base, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    expected = adapter_parameters(model)
    check_names(expected, tensors)
    # PEFT would move the tensors to the device of the base, which is meta; so they are assigned
    # here.
    file_names = {id(parameter): name for name, parameter in expected.items()}
    placed = {
        name: tensors[file_names[id(parameter)]].to(device)
        for name, parameter in model.state_dict(keep_vars=True).items()
        if id(parameter) in file_names
    }
    model.load_state_dict(placed, strict=False, assign=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.monotonic() - started
    return seconds, run_checks(model, target, tensors, device)


def run_checks(model: t.Any, target: Target, tensors: dict[str, t.Any], device: t.Any) -> list[str]:
    """Run the checks of level adapter on a model with checked names and loaded tensors.

    Raises CheckFailed.
    """
    check_same(adapter_parameters(model), tensors, device)
    computed, skipped = _compute(model, target, device)
    checks = [
        f"{len(tensors)} tensors have the names and shapes that PEFT expects.",
        f"{len(tensors)} tensors are bit-equal to the file on {device}.",
        f"{computed} modules compute the same as float64, within {_TOLERANCE:g}.",
    ]
    if skipped:
        checks.append(f"{skipped} modules are not plain linear layers: only names and bits were checked.")
    return checks


def _compute(model: t.Any, target: Target, device: t.Any) -> tuple[int, int]:
    """Compare scaling * B(A(x)) of every module on the device with float64 on the CPU.

    Returns the numbers of compared and skipped modules.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    with open(os.path.join(target.directory, CONFIG_FILE), encoding="utf-8") as stream:
        config = json.load(stream)
    random = torch.Generator().manual_seed(0)
    computed = skipped = 0
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if INSIDE not in layer.lora_A or not isinstance(layer.lora_A[INSIDE], torch.nn.Linear):
            skipped += 1
            continue
        # As PEFT does when it loads an adapter of half precision.
        down, up = layer.lora_A[INSIDE].float(), layer.lora_B[INSIDE].float()
        scaling = layer.scaling[INSIDE]
        wanted = _scaling(config, down.out_features)
        if wanted is not None and not math.isclose(scaling, wanted, rel_tol=1e-9):
            raise CheckFailed(f"PEFT scales {name} by {scaling}, the configuration specifies {wanted}.", TRY_VERSIONS)
        x = torch.randn(4, down.in_features, generator=random)
        with torch.no_grad():
            y = (up(down(x.to(device))) * scaling).cpu().double()
            exact = x.double() @ down.weight.cpu().double().T @ up.weight.cpu().double().T
            if up.bias is not None:
                exact = exact + up.bias.cpu().double()
            exact = exact * scaling
        if not torch.isfinite(y).all():
            raise CheckFailed(f"{name} computes NaN or infinity on {device}.", "Train or save the adapter again.")
        if (y - exact).norm() > _TOLERANCE * exact.norm():
            error = float((y - exact).norm() / exact.norm())
            raise CheckFailed(f"{name} computes another result on {device} than in float64 (error {error:.1e}).", _HARDWARE)
        computed += 1
    return computed, skipped


def _scaling(config: dict[str, t.Any], rank: int) -> float | None:
    """Return the scaling by lora_alpha and the rank, or None if alpha_pattern makes it vary."""
    if config.get("alpha_pattern"):
        return None
    alpha = float(config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
