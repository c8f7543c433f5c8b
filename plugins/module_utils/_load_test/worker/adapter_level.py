# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Part of the load test's program (C(_load_worker)): level adapter, PEFT's injection over a base without weights.

What PEFT has then is held against the file, tensor by tensor, and what its modules compute against float64.
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
from .errors import TRY_VERSIONS, BaseRefused, Refused, Shortage, in_words, reading_base

# PEFT's name for the adapter under test. Ours may hold dots, which PEFT cannot have in a name.
INSIDE = "delivery"
# float32 against float64 differs by about 3e-7; TF32 or a wrong kernel by 1e-3 and more.
_TOLERANCE = 1e-4
_HARDWARE = "The device computes wrongly: look at its driver, its errors (dmesg, ECC), and the build of torch."


def read_base_config(adapter: dict[str, t.Any]) -> t.Any:
    """The base's configuration as transformers understands it. Raises Refused."""
    from transformers import AutoConfig

    raw = adapter["base_config"]
    if adapter["base_path"] is not None:
        with reading_base(), open(os.path.join(adapter["base_path"], "config.json"), encoding="utf-8") as stream:
            raw = json.load(stream)
    hooks = sorted(code_keys(raw))
    if hooks:
        raise Refused(f"the base's config.json has {', '.join(hooks)}, which can bring in code.", "Use a base without it.")
    if not raw.get("model_type"):
        raise Refused("the declared config of its base has no model_type.", "Add it in the inventory, or set path.")
    try:
        if adapter["base_path"] is not None:
            return AutoConfig.from_pretrained(adapter["base_path"], local_files_only=True, trust_remote_code=False)
        return AutoConfig.for_model(**raw)
    except ValueError as exc:
        problem = f"its base is of type {raw['model_type']!r}, with which transformers cannot do anything: {in_words(exc)[:200]}."
        raise BaseRefused(problem, "Correct the base, or install a version of transformers that knows it.") from exc


def inject(adapter: dict[str, t.Any], base: t.Any, **options: t.Any) -> t.Any:
    """Put PEFT's layers into the base, as the adapter's configuration says."""
    from peft import LoraConfig, PeftModelForCausalLM

    # Not PeftConfig: before 0.15 that gives defaults in place of what an adapter says that a newer version has saved.
    return PeftModelForCausalLM(base, LoraConfig.from_pretrained(adapter["directory"]), INSIDE, **options).eval()


def adapter_parameters(model: t.Any) -> dict[str, t.Any]:
    """PEFT's own answer to: which parameters make the adapter, under the names that its file has."""
    from peft import get_peft_model_state_dict

    return t.cast(
        "dict[str, t.Any]",
        get_peft_model_state_dict(
            model, state_dict=model.state_dict(keep_vars=True), adapter_name=INSIDE, save_embedding_layers=False
        ),
    )


def check_names(expected: dict[str, t.Any], tensors: dict[str, t.Any]) -> None:
    """Raises Refused when the file has other tensors than PEFT wants for this configuration and base."""
    remedy = "The adapter does not belong to this base or configuration: check both, deliver the right one."
    missing = sorted(set(expected) - set(tensors))
    if missing:
        raise Refused(f"the weights file lacks {first(missing)}.", remedy)
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise Refused(f"the weights file has {first(extra)}, which PEFT does not make for such an adapter.", remedy)
    for name, wanted in expected.items():
        if tuple(wanted.shape) != tuple(tensors[name].shape):
            raise Refused(f"tensor {name} has shape {list(tensors[name].shape)}, PEFT expects {list(wanted.shape)}.", remedy)


def check_same(loaded: dict[str, t.Any], tensors: dict[str, t.Any], device: t.Any) -> None:
    """Raises Refused when a loaded parameter is elsewhere than on the device or differs from the file."""
    import torch

    for name, tensor in tensors.items():
        parameter = loaded[name].detach()
        if parameter.device != device:
            raise Refused(f"tensor {name} is on {parameter.device} after loading, not on {device}.", TRY_VERSIONS)
        back = parameter.cpu()
        # LoRA tensors may only be widened; whole modules (modules_to_save) take the dtype of the base.
        wanted = tensor if "lora_" in name else tensor.to(back.dtype)
        # Comparing in the wider of the two dtypes loses nothing.
        wider = torch.promote_types(back.dtype, wanted.dtype)
        if not torch.equal(back.to(wider), wanted.to(wider)):
            raise Refused(f"tensor {name} differs from the file after it was loaded on {device}.", TRY_VERSIONS)


def adapter_level(
    adapter: dict[str, t.Any], tensors: dict[str, t.Any], device: t.Any, limit: t.Optional[int] = None
) -> tuple[float, list[str]]:
    """PEFT's injection over a base without weights, the adapter's tensors really on the device. Raises Refused, Shortage."""
    import torch
    from transformers import AutoModelForCausalLM

    need = adapter_need(sum(tensor.numel() for tensor in tensors.values()))
    reason = shortage("the adapter alone", need, free_memory(device), limit, str(device))
    if reason:
        raise Shortage(reason)
    started = time.monotonic()
    config = read_base_config(adapter)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model = inject(adapter, base, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    expected = adapter_parameters(model)
    check_names(expected, tensors)
    # PEFT would move the tensors to where its base is, which is nowhere here; so they are put in by hand.
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
    return seconds, prove(model, adapter, tensors, device)


def prove(model: t.Any, adapter: dict[str, t.Any], tensors: dict[str, t.Any], device: t.Any) -> list[str]:
    """What level adapter proves of a model whose names are checked and into which the tensors are loaded. Raises Refused."""
    check_same(adapter_parameters(model), tensors, device)
    computed, left_out = _compute(model, adapter, device)
    checks = [
        f"{len(tensors)} tensors have the names and shapes that PEFT expects.",
        f"{len(tensors)} tensors are bit-equal to the file on {device}.",
        f"{computed} modules compute the same as float64, within {_TOLERANCE:g}.",
    ]
    if left_out:
        checks.append(f"{left_out} modules are not plain linear ones: names and bits were checked, no computation.")
    return checks


def _compute(model: t.Any, adapter: dict[str, t.Any], device: t.Any) -> tuple[int, int]:
    """Compare scaling * B(A(x)) of every module on the device with float64 on the CPU; counts of done and left out."""
    import torch
    from peft.tuners.lora import LoraLayer

    with open(os.path.join(adapter["directory"], CONFIG_FILE), encoding="utf-8") as stream:
        config = json.load(stream)
    random = torch.Generator().manual_seed(0)
    computed = left_out = 0
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if INSIDE not in layer.lora_A or not isinstance(layer.lora_A[INSIDE], torch.nn.Linear):
            left_out += 1
            continue
        # What PEFT does too when it loads an adapter of half precision for use.
        down, up = layer.lora_A[INSIDE].float(), layer.lora_B[INSIDE].float()
        scaling = layer.scaling[INSIDE]
        wanted = _scaling(config, down.out_features)
        if wanted is not None and not math.isclose(scaling, wanted, rel_tol=1e-9):
            raise Refused(f"PEFT scales {name} by {scaling}, the configuration means {wanted}.", TRY_VERSIONS)
        x = torch.randn(4, down.in_features, generator=random)
        with torch.no_grad():
            y = (up(down(x.to(device))) * scaling).cpu().double()
            exact = x.double() @ down.weight.cpu().double().T @ up.weight.cpu().double().T
            if up.bias is not None:
                exact = exact + up.bias.cpu().double()
            exact = exact * scaling
        if not torch.isfinite(y).all():
            raise Refused(f"{name} computes NaN or infinity on {device}.", "Train or save the adapter again.")
        if (y - exact).norm() > _TOLERANCE * exact.norm():
            error = float((y - exact).norm() / exact.norm())
            raise Refused(f"{name} computes something else on {device} than in float64 (error {error:.1e}).", _HARDWARE)
        computed += 1
    return computed, left_out


def _scaling(config: dict[str, t.Any], rank: int) -> t.Optional[float]:
    """What lora_alpha and the rank mean; None where a pattern makes it differ between modules."""
    if config.get("alpha_pattern"):
        return None
    alpha = float(config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
