# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Level ``structure`` of the load test: exactly the tensors that PEFT expects, with sane values."""

from __future__ import annotations

import functools
import re
import typing as t

from .._base.architecture import (
    Module,
    base_modules,
    code_problems,
    is_known,
)
from .._errors import DeliveryError, Problem
from .._formats.tensor_scan import TensorScan
from .._text import count, first, shown
from .files import CONFIG_FILE
from .lora_config import TIED, is_well_formed, may_be_tied, modules_of_base
from .module_selection import Config, is_pattern, matches_any, saves, select
from .patterns import PatternError
from .tensor_names import PREFIX, name_cause

_LORA_TENSOR = re.compile(
    r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\."
    r"(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B|lora_magnitude_vector"
    r"|lora_velora_embed|lora_monteclora_sampler\.[a-z_]+)"
)
_EMBEDDING_TENSOR = re.compile(
    r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+?)(\.base_layer)?\.(?P<part>weight|lora_embedding_A|lora_B\.weight)"
)
# Parts of which training may leave zeros.
_DOWN, _UP = ("lora_A.weight", "lora_embedding_A"), ("lora_B.weight", "lora_embedding_B")
_DTYPES = ("F32", "BF16", "F16", "F64", "F8_E4M3", "F8_E5M2")
# What PEFT does with the unusual ones. Whole numbers are refused: they are quantized values, whose
# scales are not in the file.
_CONVERTED = {"F64": "rounds", "F8_E4M3": "widens", "F8_E5M2": "widens"}
# The ends of the names of embeddings, in bases of all kinds.
_EMBEDDINGS = (*TIED, "wte", "word_embeddings", "embed_out", "embed_in")
# A size that only the base determines.
_ANY = -1

Shape = t.Tuple[int, ...]


def expected_tensors(config: Config, modules: t.Mapping[str, Module]) -> dict[str, Shape]:
    """Return the names and shapes of the tensors that PEFT saves for ``config``.

    ``modules`` are the modules of the base.
    """
    expected: dict[str, Shape] = {}
    selection = select(config, modules)
    tokens = _trained_tokens(config)
    blocks = bool(config.get("use_bdlora") or config.get("use_qalora"))
    for name, module in modules.items():
        prefix = PREFIX + name
        rows = next((count for ending, count in tokens.items() if name.endswith(ending)), None)
        if rows is not None and not module.norm:
            width = module.out_features if module.embedding else module.in_features
            expected[f"{prefix}.token_adapter.trainable_tokens_delta"] = (rows, width)
        if name in selection.saved:
            expected[f"{prefix}.weight"] = module.weight
        elif name in selection.ranks:
            rank = selection.ranks[name]
            # A block-diagonal or grouped matrix is smaller; which of them is depends on patterns.
            ones = (1,) * len(module.kernel)
            down = (rank, _ANY if blocks else module.in_features, *module.kernel)
            up = (module.out_features, rank if not blocks else _ANY, *ones)
            if module.embedding:
                expected.update({f"{prefix}.lora_embedding_A": down, f"{prefix}.lora_embedding_B": up})
            else:
                expected.update({f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up})
                expected.update(_variant_tensors(config, prefix, module, rank))
            if config.get("use_dora"):
                expected[f"{prefix}.lora_magnitude_vector"] = (1, module.out_features, *ones) if ones else (module.out_features,)
    return expected


def _variant_tensors(config: Config, prefix: str, module: Module, rank: int) -> dict[str, Shape]:
    """Return the tensors that variants of LoRA add to a linear layer."""
    found: dict[str, Shape] = {}
    if config.get("lora_bias"):
        found[f"{prefix}.lora_B.bias"] = (module.out_features,)
    if config.get("velora_config") is not None:
        found[f"{prefix}.lora_velora_embed"] = (_ANY,)
    if config.get("monteclora_config") is not None:
        sampler, samples = f"{prefix}.lora_monteclora_sampler", config["monteclora_config"].get("num_samples", 8)
        found[f"{sampler}.expert_weights"] = found[f"{sampler}.expert_weights_prior"] = (samples,)
        found[f"{sampler}.gaussian_var_prior"] = (rank, rank)
        found[f"{sampler}.std_prior"] = (rank,)
    return found


def _trained_tokens(config: Config) -> dict[str, int]:
    """Return the numbers of trained tokens by the end of the module's name.

    Output embeddings with the same tokens as the input's have none of their own if both are tied.
    """
    tokens = config.get("trainable_token_indices") or {}
    if isinstance(tokens, list):
        return {"embed_tokens": len(tokens)}
    return {name: len(ids) for name, ids in tokens.items() if name != "lm_head" or list(tokens.values()).count(ids) == 1}


def structure_problems(
    name: str,
    tensors: t.Sequence[TensorScan],
    config: Config,
    base_config: dict[str, t.Any] | None,
    targets: frozenset[str] | None = None,
) -> list[Problem]:
    """Return the problems of the tensors of adapter ``name``. ``targets`` are its declared modules.

    If ``config`` is not well-formed, which ``config_problems`` reports, only the values are
    checked. Without ``base_config``, or if its type is unknown, the modules are derived from the
    names of the tensors; ``structure_notes`` returns what that cannot detect.
    """
    found = {_as_saved(tensor.name): tensor for tensor in tensors}
    subject = f"base of adapter {name}"
    problems: list[Problem] = []
    if is_well_formed(config):
        try:
            if base_config is None or not is_known(base_config):
                problems += code_problems(base_config or {}, subject)
                modules = _modules_of(tensors)
                expected = expected_tensors(_for_unknown_base(config, tensors), modules)
                if not isinstance(config.get("target_modules"), list) and targets:
                    problems += _target_problems(name, _lora_layers(tensors, config), targets)
            else:
                modules = base_modules(base_config, subject)
                expected = expected_tensors(config, modules)
            problems += _name_problems(name, found, config, expected, modules)
        except DeliveryError as exc:
            problems += exc.problems
        except PatternError:
            pass  # config_problems reports it
    return [*problems, *_value_problems(name, found)]


def _as_saved(tensor: str) -> str:
    """Return the name under which PEFT saves a tensor. It also loads magnitudes as .weight."""
    return re.sub(r"(\.lora_magnitude_vector)\.weight$", r"\1", tensor)


def structure_checks(tensors: t.Sequence[TensorScan], config: Config) -> list[str]:
    """Return the facts that hold if ``config_problems`` and ``structure_problems`` find nothing."""
    targets = config.get("target_modules") or config.get("target_parameters") or [*map(_last, _lora_layers(tensors, config))]
    return [
        f"The configuration is LoRA as declared: rank {config['r']}, alpha {config['lora_alpha']}, no key that can load code.",
        f"The weights are strict safetensors: {count(len(tensors), 'tensor')} with the names and shapes of"
        f" {shown(targets) if isinstance(targets, str) else first(sorted({*targets}))}, none missing, none extra.",
        "No value is NaN or infinite, and the tensors are not those of an untrained adapter.",
    ]


def structure_notes(tensors: t.Sequence[TensorScan], config: Config, base_config: dict[str, t.Any] | None) -> list[str]:
    """Return what is unusual about accepted tensors, and what level structure cannot check."""
    notes = unchecked(base_config)
    unknown = [key for key in ("target_parameters", "use_bdlora", "use_qalora") if config.get(key)]
    if config.get("ensure_weight_tying") and may_be_tied(config, base_config):
        unknown.append("ensure_weight_tying")
    if unknown:
        notes.append(f"Level structure cannot check all tensors of {first(unknown)}; level adapter can.")
    modules = modules_of_base(base_config) or _modules_of(tensors)
    ends = "".join(f"{module}\n" for module in modules)
    for key in ("target_modules", "modules_to_save"):
        names = config.get(key) or ()
        absent = [] if isinstance(names, str) else [name for name in names if f"{name}\n" not in ends]
        if absent:
            where = "the base" if modules_of_base(base_config) else "the file"
            notes.append(f"{key} names {first(absent)}, which {where} does not have. PEFT ignores that.")
    embeddings = _embeddings_among(tensors, config, modules)
    if embeddings:
        notes.append(f"The file has embeddings of the base ({first(embeddings)}). Level model compares them with the base's.")
    dtypes = sorted({tensor.dtype for tensor in tensors if "lora_" in tensor.name})
    for dtype, does in _CONVERTED.items():
        if dtype in dtypes:
            notes.append(f"LoRA tensors are {dtype}, which PEFT {does} to F32.")
    if len(dtypes) > 1:
        notes.append(f"The LoRA tensors have different dtypes: {', '.join(dtypes)}. PEFT loads them all as one.")
    empty = [module for module, zeros in _pairs(tensors).items() if zeros.keys() >= {"down", "up"} and all(zeros.values())]
    if empty:
        notes.append(f"In {count(len(empty), 'LoRA layer')} all values are zero, so they change nothing: {first(empty)}.")
    return notes


def unchecked(base_config: dict[str, t.Any] | None) -> list[str]:
    """Return the checks that level structure cannot make, given what is known about the base."""
    if base_config is not None and is_known(base_config):
        return []
    what = "so level structure cannot detect missing modules or sizes that only the base determines; level adapter can"
    if base_config is None:
        return [f"The config of its base is not known on this host, {what}."]
    return [f"The modules of base type {shown(base_config['model_type'])} are not known, {what}."]


def lora_modules(tensors: t.Iterable[TensorScan]) -> list[str]:
    """Return the modules of the base that the tensors of LoRA layers belong to."""
    found = filter(None, (_LORA_TENSOR.fullmatch(tensor.name) for tensor in tensors))
    return list(dict.fromkeys(lora["module"] for lora in found))


def _for_unknown_base(config: Config, tensors: t.Iterable[TensorScan]) -> Config:
    """Return a configuration that selects all modules of the tensors where the base matters.

    PEFT evaluates patterns and whole names on the names of the base, which a file of an older
    version of transformers does not have, and its defaults depend on the type of the base.
    """
    targets = config.get("target_modules")
    exclude = config.get("exclude_modules")
    whole = any("." in name for name in targets) if isinstance(targets, list) else True
    if whole or is_pattern(exclude) or any("." in name for name in exclude or ()):
        return {**config, "target_modules": _lora_layers(tensors, config), "exclude_modules": None}
    return config


def _lora_layers(tensors: t.Iterable[TensorScan], config: Config) -> list[str]:
    """Return the modules that have LoRA tensors, without those that only PEFT can tell."""
    return [
        module
        for module in lora_modules(tensors)
        if not saves(config, module) and not _is_beyond(f"{PREFIX}{module}.lora_", config)
    ]


def _modules_of(tensors: t.Iterable[TensorScan]) -> dict[str, Module]:
    """Return the modules that the tensors belong to, with the sizes that the tensors imply."""
    modules: dict[str, Module] = {}
    for tensor in tensors:
        lora = _LORA_TENSOR.fullmatch(tensor.name)
        if lora is None:
            if tensor.name.startswith(PREFIX) and tensor.name.endswith(".weight") and len(tensor.shape) in (1, 2):
                module = Module(tensor.shape[0], tensor.shape[-1], norm=len(tensor.shape) == 1)
                modules.setdefault(tensor.name[len(PREFIX) : -len(".weight")], module)
            continue
        module = modules.get(lora["module"], Module(_ANY, _ANY))
        part = lora["part"]
        if part.startswith("lora_embedding"):
            module = module._replace(embedding=True)
        if part in ("lora_A.weight", "lora_embedding_A") and len(tensor.shape) >= 2:
            module = module._replace(in_features=tensor.shape[1], kernel=tensor.shape[2:])
        elif part in ("lora_B.weight", "lora_embedding_B") and len(tensor.shape) >= 2:
            module = module._replace(out_features=tensor.shape[0])
        modules[lora["module"]] = module
    return modules


def _name_problems(
    name: str, found: dict[str, TensorScan], config: Config, expected: dict[str, Shape], modules: dict[str, Module]
) -> t.Iterator[Problem]:
    missing = [tensor for tensor in expected if tensor not in found]
    extra = [tensor for tensor in found if tensor not in expected and not _is_beyond(tensor, config)]
    cause = name_cause(extra, expected)
    if cause is not None:
        yield Problem("", *cause, name)
        missing, extra = [], [tensor for tensor in extra if "lora_" not in tensor]
    if missing:
        problem = f"lacks {len(missing)} of {count(len(expected), 'tensor')}: {first(missing)}."
        yield Problem("", problem, "PEFT would use untrained tensors instead. Save the complete adapter again.", name)

    # PEFT loads every tensor whose name matches a weight of the model, even one of the base.
    copied = _embeddings_among(found.values(), config, modules)
    extra = [tensor for tensor in extra if tensor not in copied]
    overwriting = [tensor for tensor in extra if tensor.startswith(PREFIX) and "lora_" not in tensor]
    if overwriting:
        listed = first(map(shown, overwriting))
        problem = f"has {count(len(overwriting), 'tensor')} that would overwrite weights of the base: {listed}."
        enlarged = _enlarged(overwriting, found, modules)
        yield Problem("", problem + enlarged, _overwriting_remedy(overwriting), name)
    ignored = [tensor for tensor in extra if tensor not in overwriting]
    magnitudes = [] if config.get("use_dora") else [tensor for tensor in ignored if tensor.endswith(".lora_magnitude_vector")]
    if magnitudes:
        ignored = [tensor for tensor in ignored if tensor not in magnitudes]
        problem = f"has {count(len(magnitudes), 'tensor')} of DoRA that PEFT would ignore: {first(magnitudes)}."
        remedy = (
            f'Set "use_dora": true in {CONFIG_FILE}, where torchtune leaves it out, and in the adapter\'s peft_config in the'
            " inventory."
        )
        yield Problem("", problem, remedy, name)
    if ignored:
        problem = f"has {count(len(ignored), 'tensor')} that PEFT would silently ignore: {first(map(shown, ignored))}."
        remedy = "Either the base has no such module, or target_modules does not name it. Correct the one that is wrong."
        yield Problem("", problem, remedy, name)

    parts = [key for key, tensor in found.items() if _is_part(tensor)]
    if parts:
        listed = first(f"{shown(key)} is {_shape_text(found[key].shape)}" for key in parts)
        problem = f"has {count(len(parts), 'tensor')} without a complete matrix: {listed}."
        remedy = (
            "DeepSpeed ZeRO-3 and FSDP leave that behind when one process saves its part. Gather the weights before the"
            " adapter is saved (stage3_gather_16bit_weights_on_model_save, or FULL_STATE_DICT)."
        )
        yield Problem("", problem, remedy, name)
    whole = {key: shape for key, shape in expected.items() if key in found and key not in parts}
    misshapen = [key for key, shape in whole.items() if not _fits(found[key].shape, shape)]
    if misshapen:
        shapes = (f"{key} is {_shape_text(found[key].shape)}, expected {_shape_text(expected[key])}" for key in misshapen)
        problem = f"has {count(len(misshapen), 'tensor')} with a wrong shape: {first(shapes)}."
        remedy = "Its rank or its base differs from its configuration."
        enlarged = _enlarged(misshapen, found, modules)
        if enlarged:
            problem, remedy = problem + enlarged, "Deliver it to nodes whose base has that vocabulary."
        elif all(_fits(found[key].shape[::-1], shape) for key, shape in whole.items()):
            remedy = "All are transposed, as MLX and PaddlePaddle store them: transpose each tensor on the training server."
        yield Problem("", problem, remedy, name)


def base_embeddings(tensors: t.Sequence[TensorScan], config: Config, base_config: dict[str, t.Any] | None) -> list[str]:
    """Return the tensors that are embeddings of the base, by their names and shapes.

    PEFT saves them where LoRA layers are on the embeddings or the vocabulary grew. Loading them
    changes nothing if they are those of the base, which level model finds out.
    """
    return _embeddings_among(tensors, config, modules_of_base(base_config) or _modules_of(tensors))


def base_name(tensor: str) -> str:
    """Return the name that an embedding of the base has in the base."""
    return tensor[len(PREFIX) :].replace(".base_layer.", ".")


def _embeddings_among(tensors: t.Iterable[TensorScan], config: Config, modules: t.Mapping[str, Module]) -> list[str]:
    found = []
    for tensor in tensors:
        module, part = _embedding(tensor.name)
        if part != "weight" or module not in modules or tensor.shape != modules[module].weight:
            continue
        if tensor.name.endswith(".base_layer.weight") or not _is_beyond(tensor.name, config):
            found.append(tensor.name)
    return found


def _enlarged(names: t.Iterable[str], found: t.Mapping[str, TensorScan], modules: t.Mapping[str, Module]) -> str:
    """Return a sentence if one of these tensors has more tokens than the base, nothing if not."""
    for name in names:
        module, part = _embedding(name)
        tokens = found[name].shape[1:2] if part == "lora_embedding_A" else found[name].shape[:1]
        if part in ("weight", "lora_embedding_A", "lora_B.weight") and module in modules and tokens > modules[module].weight[:1]:
            return f" The training enlarged the vocabulary from {modules[module].weight[0]} to {tokens[0]} tokens."
    return ""


def _embedding(tensor: str) -> tuple[str, str]:
    """Return module and part of a tensor of embeddings, nothing for other tensors."""
    named = _EMBEDDING_TENSOR.fullmatch(tensor)
    return (named["module"], named["part"]) if named and matches_any(_EMBEDDINGS, named["module"]) else ("", "")


def _is_part(tensor: TensorScan) -> bool:
    """Return whether a tensor that PEFT saves as a matrix has no values, or is flat."""
    lora = _LORA_TENSOR.fullmatch(tensor.name)
    matrix = lora is not None and lora["part"] in _DOWN + _UP
    return matrix and (0 in tensor.shape or len(tensor.shape) < 2)


def _target_problems(name: str, modules: list[str], targets: frozenset[str]) -> t.Iterator[Problem]:
    """Compare the LoRA layers of a file with the declaration; a pattern shows no names."""
    found = set(map(_last, modules))
    if found != set(map(_last, targets)):
        problem = f"has LoRA layers on {first(sorted(found))}; the inventory declares target_modules {first(sorted(targets))}."
        yield Problem("", problem, "Deliver the intended adapter, or correct the inventory.", name)


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _is_beyond(tensor: str, config: Config) -> bool:
    """Return whether only PEFT can tell if the adapter has this tensor."""
    module = tensor[len(PREFIX) :].rpartition(".lora_")[0] or tensor[len(PREFIX) :].rpartition(".")[0]
    if not tensor.startswith(PREFIX):
        return False
    if "lora_" not in tensor:
        tied = bool(config.get("ensure_weight_tying")) and matches_any(TIED, module)
        return saves(config, module) or tied or (bool(config.get("trainable_token_indices")) and ".token_adapter." in tensor)
    inner = re.sub(r"(\.base_layer)+$", "", module)
    parents = _parents(tuple(config.get("target_parameters") or ()))
    # PEFT converts all-linear on a MoE to bare names of parameters, which any module can have.
    return "" in parents or matches_any(parents, inner) or (bool(config.get("ensure_weight_tying")) and matches_any(TIED, module))


@functools.lru_cache(maxsize=1)
def _parents(parameters: tuple[str, ...]) -> frozenset[str]:
    """Return the modules that have these parameters."""
    return frozenset(parameter.rpartition(".")[0] for parameter in parameters)


def _overwriting_remedy(overwriting: list[str]) -> str:
    if any(tensor.endswith(".bias") for tensor in overwriting):
        return 'Train it with bias="none"; never load this file into a base that others use.'
    return (
        "Save the adapter again with save_embedding_layers=False, or train with modules_to_save and declare that"
        " in its peft_config; never load this file into a base that others use. If the training enlarged the"
        " vocabulary, every node also needs a base with that vocabulary."
    )


def _value_problems(name: str, found: dict[str, TensorScan]) -> t.Iterator[Problem]:
    wrong = [f"{shown(tensor.name)} is {tensor.dtype}" for tensor in found.values() if tensor.dtype not in _DTYPES]
    if wrong:
        problem = f"has {count(len(wrong), 'tensor')} with an unsupported dtype: {first(wrong)}; expected {', '.join(_DTYPES)}."
        yield Problem("", problem, "Save the adapter in one of them, without quantization.", name)

    broken = [shown(tensor.name) for tensor in found.values() if not tensor.finite]
    if broken:
        problem = f"has NaN or infinite values in {len(broken)} of {count(len(found), 'tensor')}: {first(broken)}."
        yield Problem("", problem, "The training diverged: deliver an earlier checkpoint.", name)

    pairs = _pairs(found.values())
    # Modules that are saved whole, trained tokens and trained biases have an effect, too.
    alone = all(_LORA_TENSOR.fullmatch(tensor) and not tensor.endswith(".bias") for tensor in found)
    dead = [module for module, zeros in pairs.items() if zeros.get("down") and not zeros.get("up")]
    if alone and pairs and all(any(zeros.values()) for zeros in pairs.values()):
        problem = "has no effect: in every LoRA layer lora_A or lora_B is all zeros, as before training."
        yield Problem("", problem, "Deliver the trained adapter.", name)
    elif dead:
        # A zero lora_B is accepted in single layers, which may not have learned anything. lora_A is
        # random from the start; both are zero where an extraction found no change.
        problem = f"has only zeros in lora_A of {count(len(dead), 'LoRA layer')}, but not in lora_B: {first(dead)}."
        yield Problem("", problem, "The file was damaged when it was written: save the adapter again.", name)


def _pairs(tensors: t.Iterable[TensorScan]) -> dict[str, dict[str, bool]]:
    """Return for each LoRA layer whether all values of its ``down`` and ``up`` matrix are zero."""
    pairs: dict[str, dict[str, bool]] = {}
    for tensor in tensors:
        lora = _LORA_TENSOR.fullmatch(tensor.name)
        if lora is not None and 0 not in tensor.shape:
            part = "down" if lora["part"] in _DOWN else "up" if lora["part"] in _UP else ""
            if part:
                pairs.setdefault(lora["module"], {})[part] = tensor.zero
    return pairs


def _fits(found: Shape, expected: Shape) -> bool:
    return len(found) == len(expected) and all(size > 0 and wanted in (size, _ANY) for size, wanted in zip(found, expected))


def _shape_text(shape: Shape) -> str:
    return f"[{', '.join('?' if size == _ANY else str(size) for size in shape)}]"
