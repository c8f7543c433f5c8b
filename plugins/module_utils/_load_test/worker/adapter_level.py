# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Level adapter: PEFT's injection over a base without weights. Part of the load test's worker.

PEFT's resulting parameters are compared with the file, tensor by tensor, and the outputs of its
modules with a computation in float64.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
import os
import re
import time
import types
import typing as t

from ..._adapter.files import CONFIG_FILE
from ..._adapter.patterns import PatternError, matching
from ..._adapter.tensor_names import name_cause
from ..._base.remote_code import code_keys
from ..._text import first
from ..._versions import major_minor
from .device import adapter_need, free_memory, shortage
from .errors import TRY_VERSIONS, BaseCheckFailed, CheckFailed, Shortage, reading_base, summary
from .protocol import Target

# PEFT's name for the adapter under test. The adapter's own name may have dots, which PEFT does not
# accept.
INSIDE = "delivery"
# float32 against float64 differs by about 3e-7; TF32 or a wrong kernel by 1e-3 and more.
_TOLERANCE = 1e-4
_MISFIT = "The adapter does not fit this base or configuration: check both and deliver the right adapter."
# The classes of transformers that compute the likelihoods of tokens.
_LANGUAGE_MODEL = re.compile(r"(ForCausalLM|ForConditionalGeneration|LMHeadModel)$")
# The version of PEFT that swapped the matrices of some target_parameters.
_ORIENTATION_CHANGED = (0, 19)
_SAMPLER = ".lora_monteclora_sampler."
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


def base_class(config: t.Any) -> t.Any:
    """Return the class of transformers that the base's configuration names.

    A multimodal base has other module names in its own class than as a text model.
    """
    import transformers

    for name in getattr(config, "architectures", None) or ():
        found = getattr(transformers, name, None) if _LANGUAGE_MODEL.search(name) else None
        if isinstance(found, type) and isinstance(config, getattr(found, "config_class", None) or ()):
            return found
    return transformers.AutoModelForCausalLM


def inject(target: Target, base: t.Any, **options: t.Any) -> t.Any:
    """Add PEFT's layers to the base, as the adapter's configuration describes them.

    Raises CheckFailed.
    """
    from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, LoraConfig, PeftModel

    # Not PeftConfig: before 0.15 it replaces settings that a newer version has saved by defaults.
    config = LoraConfig.from_pretrained(target.directory)
    _check_patterns(config, [name for name, _module in base.named_modules()])
    _check_tokens(config, base)
    try:
        # As PeftModel.from_pretrained does: classes of other tasks invoke no Activated LoRA.
        model = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)(base, config, INSIDE, **options).eval()
    except ValueError as exc:
        raise CheckFailed(f"PEFT cannot add its layers to this base: {summary(exc)}.", _MISFIT) from exc
    _check_orientation(target, model)
    return model


def _check_tokens(config: t.Any, base: t.Any) -> None:
    """Raises CheckFailed for token ids that the base does not have."""
    rows = base.get_input_embeddings().num_embeddings
    for key in ("trainable_token_indices", "alora_invocation_tokens"):
        value = getattr(config, key, None) or ()
        ids = itertools.chain.from_iterable(value.values()) if isinstance(value, dict) else value
        beyond = sorted(one for one in ids if one >= rows)
        if beyond:
            problem = f"its {key} has id {beyond[0]}, beyond the vocabulary of the base, which has {rows}."
            raise CheckFailed(problem, "Deliver it to nodes whose base has the vocabulary of the training.")


def _check_patterns(config: t.Any, names: list[str]) -> None:
    """Raises CheckFailed for a pattern that PEFT cannot evaluate in a reasonable time."""
    patterns = [*(config.rank_pattern or ()), *(config.alpha_pattern or ()), *(config.modules_to_save or ())]
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = getattr(config, key, None)
        patterns += [value] if isinstance(value, str) and value else []
    try:
        matching(patterns, names)
    except PatternError as exc:
        raise CheckFailed(f"one of the patterns in {CONFIG_FILE} {exc}.", "List the names of the modules instead.") from exc


def _check_orientation(target: Target, model: t.Any) -> None:
    """Raises CheckFailed if PEFT would confuse the two matrices of target_parameters.

    Since 0.19, PEFT saves them the other way round for parameters that a base stores as experts x
    outputs x inputs. Where such a parameter is square, no shape shows it.
    """
    import peft

    wrappers = [module for module in model.modules() if type(module).__name__ == "ParamWrapper"]
    # Only PEFT 0.18 and newer write their version.
    saved_by = str(read_config(target).get("peft_version") or "0.17")
    newer = major_minor(peft.__version__) >= _ORIENTATION_CHANGED
    if newer == (major_minor(saved_by) >= _ORIENTATION_CHANGED):
        return
    # Before 0.19 there is no such attribute.
    if any(getattr(wrapper, "_did_swap_in_out_features", True) for wrapper in wrappers):
        raise CheckFailed(
            f"its target_parameters were saved by PEFT {saved_by}, and PEFT {peft.__version__} would confuse lora_A"
            " with lora_B in this base's experts.",
            "Load it with a PEFT on the same side of 0.19 as the one that saved it, or train it again.",
        )


def invocation_tokens(model: t.Any) -> list[int]:
    """Return the token ids that invoke Activated LoRA; none for other adapters."""
    return list(getattr(model.peft_config[INSIDE], "alora_invocation_tokens", None) or ())


def read_config(target: Target) -> dict[str, t.Any]:
    """Return the adapter's parsed adapter_config.json."""
    with open(os.path.join(target.directory, CONFIG_FILE), encoding="utf-8") as stream:
        return t.cast("dict[str, t.Any]", json.load(stream))


def adapter_parameters(model: t.Any) -> dict[str, t.Any]:
    """Return PEFT's parameters of the adapter, by the names that they have in its file."""
    from peft import get_peft_model_state_dict

    return t.cast(
        "dict[str, t.Any]",
        get_peft_model_state_dict(
            model, state_dict=model.state_dict(keep_vars=True), adapter_name=INSIDE, save_embedding_layers=False
        ),
    )


def key_mapping(base: t.Any) -> dict[str, t.Any]:
    """Return the options with which PeftModel.from_pretrained has PEFT rename tensors.

    Transformers 4 has the names of older versions as patterns; with transformers 5, PEFT renames
    them itself.
    """
    from peft.utils import load_peft_weights

    mapping = getattr(base, "_checkpoint_conversion_mapping", None)
    supported = "key_mapping" in inspect.signature(load_peft_weights).parameters
    return {"key_mapping": mapping} if mapping and supported else {}


def placed_tensors(model: t.Any, target: Target, tensors: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what PEFT would load into the model: tensors by the names of the model's parameters.

    PEFT renames and converts tensors of older versions of transformers, and ignores those without a
    parameter. Nothing is loaded. Raises CheckFailed.
    """
    from peft import set_peft_model_state_dict
    from peft.utils import load_peft_weights

    options = key_mapping(model.get_base_model())
    if options:
        tensors = load_peft_weights(target.directory, device="cpu", **options)
    placed: dict[str, t.Any] = {}

    def record(state_dict: dict[str, t.Any], **_options: t.Any) -> t.Any:
        placed.update(state_dict)
        return types.SimpleNamespace(missing_keys=[], unexpected_keys=[])

    model.load_state_dict = record
    try:
        set_peft_model_state_dict(model, dict(tensors), INSIDE)
    except KeyError as exc:
        # A module that is saved whole, or trained tokens.
        raise CheckFailed(f"the weights file lacks {exc.args[0]}.", _MISFIT) from exc
    except (ValueError, RuntimeError) as exc:
        raise CheckFailed(f"PEFT cannot convert its tensors for this base: {summary(exc)}.", TRY_VERSIONS) from exc
    finally:
        del model.load_state_dict
    return placed


def check_names(model: t.Any, placed: dict[str, t.Any]) -> list[str]:
    """Return the names of embeddings of the base, which PEFT would load beside the adapter.

    Raises CheckFailed if PEFT would not load exactly the adapter's parameters, all of them, and if
    the embeddings are not those of the base. A base without weights does not show that.
    """
    saved_names = {id(parameter): name for name, parameter in adapter_parameters(model).items()}
    state = model.state_dict(keep_vars=True)
    expected = {name: parameter for name, parameter in state.items() if id(parameter) in saved_names}

    def in_file(name: str) -> str:
        return saved_names[id(state[name])] if name in expected else re.sub(rf"\.{INSIDE}(?=\.|$)", "", name)

    # Modules with tied weights share a parameter, which the file has once.
    found = {id(state[name]) for name in placed if name in expected}
    missing = sorted({in_file(name) for name, parameter in expected.items() if id(parameter) not in found})
    beyond = placed.keys() - expected.keys()
    copied = {name for name in beyond if _is_embedding(model, state.get(name)) and placed[name].shape == state[name].shape}
    extra = sorted(map(in_file, beyond - copied))
    cause = name_cause(extra, [in_file(name) for name in expected]) if missing and extra else None
    if cause is not None:
        raise CheckFailed(*cause)
    if missing:
        raise CheckFailed(f"the weights file lacks {first(missing)}.", _MISFIT)
    if extra:
        raise CheckFailed(f"the weights file has {first(extra)}, which PEFT does not make for such an adapter.", _MISFIT)
    for name, parameter in expected.items():
        shape, wanted = list(placed.get(name, parameter).shape), list(parameter.shape)
        if shape != wanted:
            raise CheckFailed(f"tensor {in_file(name)} has shape {shape}, PEFT expects {wanted}.", _MISFIT)
    changing = sorted(in_file(name) for name in copied if not _is_copy(placed[name], state[name]))
    if changing:
        raise CheckFailed(
            f"the weights file has embeddings other than this base's, which PEFT would overwrite with them: {first(changing)}.",
            "Save it with save_embedding_layers=False, or train the embeddings with modules_to_save. If the training enlarged the"
            " vocabulary, copy its base to the nodes.",
        )
    return sorted(copied)


def _is_embedding(model: t.Any, parameter: t.Any) -> bool:
    """Return whether a parameter belongs to the input or output embeddings of the base."""
    base = model.get_base_model()
    layers = filter(None, (base.get_input_embeddings(), base.get_output_embeddings()))
    return parameter is not None and any(parameter is one for layer in layers for one in layer.parameters())


def _is_copy(tensor: t.Any, parameter: t.Any) -> bool:
    """Return whether loading a tensor into a parameter would not change it."""
    import torch

    return bool(parameter.is_meta or torch.equal(tensor.to(parameter.device, parameter.dtype), parameter.detach()))


def check_same(loaded: dict[str, t.Any], tensors: dict[str, t.Any], device: t.Any) -> None:
    """Raises CheckFailed if a loaded parameter is not on the device or differs from the file."""
    import torch

    for name, tensor in tensors.items():
        parameter = loaded[name].detach()
        if parameter.device != device:
            raise CheckFailed(f"tensor {name} is on {parameter.device} after loading, not on {device}.", TRY_VERSIONS)
        back = parameter.cpu()
        # LoRA tensors may only be widened, unless they are in double precision; whole modules
        # (modules_to_save) take the dtype of the base.
        wanted = tensor if "lora_" in name and tensor.dtype is not torch.float64 else tensor.to(back.dtype)
        # Comparing in the wider of the two dtypes loses nothing.
        wider = torch.promote_types(back.dtype, wanted.dtype)
        if not torch.equal(back.to(wider), wanted.to(wider)):
            raise CheckFailed(f"tensor {name} differs from the file after it was loaded on {device}.", TRY_VERSIONS)


def adapter_level(target: Target, tensors: dict[str, t.Any], device: t.Any, limit: int | None = None) -> tuple[float, list[str]]:
    """Inject the adapter over a base without weights, with its tensors on the device, and check it.

    Returns the seconds and the checks. Raises CheckFailed, Shortage.
    """
    import torch

    need = adapter_need(sum(tensor.numel() for tensor in tensors.values()))
    reason = shortage("the adapter alone", need, free_memory(device), limit, str(device))
    if reason:
        raise Shortage(reason)
    started = time.monotonic()
    config = read_base_config(target)
    with torch.device("meta"):
        base = new_base(config)
    model = inject(target, base, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    # On the meta device, PEFT does not make MonteCLoRA's samplers before the model is used.
    placed = {name: one for name, one in placed_tensors(model, target, tensors).items() if _SAMPLER not in name}
    for name in check_names(model, placed):
        del placed[name]
    # PEFT would move the tensors to the device of the base, which is meta; so they are assigned
    # here.
    placed = {name: tensor.to(device) for name, tensor in placed.items()}
    model.load_state_dict(placed, strict=False, assign=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.monotonic() - started
    return seconds, run_checks(model, target, tensors, placed, device)


def new_base(config: t.Any) -> t.Any:
    """Return a base with the weights that a new model has."""
    found = base_class(config)
    return found.from_config(config, trust_remote_code=False) if hasattr(found, "from_config") else found(config)


def run_checks(model: t.Any, target: Target, tensors: dict[str, t.Any], placed: dict[str, t.Any], device: t.Any) -> list[str]:
    """Run the checks of level adapter on a model with checked names and loaded tensors.

    ``tensors`` are those of the file, ``placed`` what PEFT makes of them. Raises CheckFailed.
    """
    check_same(model.state_dict(keep_vars=True), placed, device)
    converted = not adapter_parameters(model).keys() <= tensors.keys()
    computed, skipped = _compute(model, target, device)
    checks = [
        f"{len(tensors)} tensors have the names and shapes that PEFT expects.",
        f"{len(placed)} tensors are bit-equal to the file{', as PEFT converts it,' if converted else ''} on {device}.",
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

    config = read_config(target)
    random = torch.Generator().manual_seed(0)
    computed = skipped = 0
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        plain = INSIDE in layer.lora_A and type(layer.lora_A[INSIDE]) is type(layer.lora_B[INSIDE]) is torch.nn.Linear
        # The matrices of a parameter's wrapper hold those of all experts.
        if not plain or hasattr(layer, "parameter_name"):
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
