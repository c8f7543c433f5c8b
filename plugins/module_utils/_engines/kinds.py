# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Which kinds an adapter is of, derived from its configuration and the header of its weights."""

from __future__ import annotations

import typing as t

from .._adapter.lora_config import TIED, is_well_formed, modules_of_base
from .._adapter.manifest import Manifest, TensorEntry
from .._adapter.module_selection import Config, is_pattern
from .._adapter.patterns import PatternError
from .._adapter.scaling import Scaling, scalings
from .._adapter.tensor_names import PREFIX
from .rules.form import KINDS, Adapter

_EMBEDDINGS, _HEAD = TIED
# The matrices of a LoRA layer, by the ends of their names.
_MATRICES = {"A.weight": "A", "B.weight": "B", "embedding_A": "A", "embedding_B": "B"}
# The other tensors that adapters have, by the ends of their names.
_PARTS = {".lora_magnitude_vector": "dora", ".lora_B.bias": "lora_bias", ".trainable_tokens_delta": "tokens"}
_DTYPES = {"F32": set(), "BF16": {"bf16"}, "F16": {"fp16"}}
# Keys of adapter_config.json that make a kind with any value but an empty one, or but null.
_NOT_EMPTY = {
    "use_dora": "dora",
    "lora_bias": "lora_bias",
    "trainable_token_indices": "tokens",
    "target_parameters": "parameters",
    "layer_replication": "replicated",
    "use_qalora": "qalora",
    "fan_in_fan_out": "fan_in_fan_out",
    "exclude_modules": "some_layers",
}
_NOT_NULL = {
    "alora_invocation_tokens": "alora",
    "use_bdlora": "bdlora",
    "velora_config": "extension",
    "monteclora_config": "extension",
    "kasa_config": "extension",
}
# Kinds with matrices whose ranks are not those of the configuration.
_OTHER_SHAPES = {"parameters", "bdlora", "qalora", "extension"}

_FOREIGN = {"prefix_missing", "prefix_headless", "prefix_multimodal"}
_SCALING = {"rank_mismatch", "alpha_pattern", "rank_pattern", "rslora", "factor"}

# The shapes of the matrices A and B of each LoRA layer.
Layers = t.Dict[str, t.Dict[str, t.Tuple[int, ...]]]


def kinds_of(manifest: Manifest, base_config: dict[str, t.Any] | None) -> Adapter:
    """Return the kinds of an adapter on its base, in the order of ``KINDS``, with their numbers."""
    config = manifest.config
    found = _kinds_of_config(config)
    layers: Layers = {}
    # Without their first component, the names are those of the base without its head.
    headless = {name.partition(".")[2] for name in modules_of_base(base_config)} - {""}
    for tensor in manifest.tensors:
        found |= _kinds_of_tensor(tensor, headless, layers)
    if not manifest.tensors:
        # Nobody reads the tensors of a pickle before the load test.
        found.add("pickle")
    if any(len(sides) < 2 for sides in layers.values()):
        found.add("unpaired")
    adapter = _with_scaling(config, layers, found)
    if found & _FOREIGN:
        # PEFT applies none of these tensors, so that their factors do not matter.
        found -= _SCALING
    tied = (base_config or {}).get("tie_word_embeddings")
    rope = _missing_rope_keys(base_config or {})
    if not found - {"bf16", "fp16", "other_dtype"}:
        found.add("plain")
    if rope:
        found.add("rope_parameters")
    return adapter._replace(
        kinds=tuple(kind for kind in KINDS if kind in found), tied=tied if isinstance(tied, bool) else None, rope=rope
    )


def _kinds_of_config(config: Config) -> set[str]:
    found = {kind for key, kind in _NOT_EMPTY.items() if config.get(key)}
    found |= {kind for key, kind in _NOT_NULL.items() if config.get(key) is not None}
    if config.get("bias") not in (None, "none"):
        found.add("bias")
    if is_pattern(config.get("target_modules")):
        found.add("regex")
    if config.get("layers_to_transform") not in (None, []):
        found.add("some_layers")
    saved = config.get("modules_to_save")
    return found | {_saved(str(name)) for name in (saved if isinstance(saved, list) else ())}


def _saved(module: str) -> str:
    last = module.rpartition(".")[2]
    return {_HEAD: "saved_head", _EMBEDDINGS: "saved_embeddings"}.get(last, "saved_other")


def _kinds_of_tensor(tensor: TensorEntry, headless: t.Collection[str], layers: Layers) -> set[str]:
    """Return the kinds that a tensor shows, and add a matrix of a LoRA layer to ``layers``.

    ``headless`` are the modules of the base as they are named without its head, none if they are
    not known.
    """
    found = set(_DTYPES.get(tensor.dtype, {"other_dtype"}))
    name = tensor.name
    if name.startswith(PREFIX):
        name = name[len(PREFIX) :]
    else:
        found.add("prefix_missing")
    module, _lora, part = name.rpartition(".lora_")
    side = _MATRICES.get(part)
    if side is None:
        return found | _kinds_of_other_tensor(name)
    path = module.split(".")
    layers.setdefault(module, {})[side] = tensor.shape
    if name != tensor.name and module in headless:
        found.add("prefix_headless")
    elif name != tensor.name and headless and "language_model." in module:
        found.add("prefix_multimodal")
    if part.startswith("embedding"):
        found.add("embeddings")
    elif path[-1] == _HEAD:
        found.add("head")
    if "experts" in path:
        found.add("experts")
    elif len(tensor.shape) > 2:
        found.add("convolutions")
    return found


def _kinds_of_other_tensor(name: str) -> set[str]:
    for end, kind in _PARTS.items():
        # Some tools save a magnitude as a module's weight, which PEFT reads, too.
        if name.endswith((end, f"{end}.weight")):
            return {kind}
    if ".lora_" in name:
        return {"extension"}
    if name.endswith(".bias"):
        return {"bias"}
    # PEFT saves the weights of adapted embeddings, too, unless it is told not to.
    return set() if ".base_layer." in name else {_saved(name.rpartition(".")[0])}


def _with_scaling(config: Config, layers: Layers, found: set[str]) -> Adapter:
    """Return the numbers of an adapter, and add the kinds that they make to ``found``."""
    ranks = {name: sides["A"][0] for name, sides in layers.items() if sides.get("A")}
    adapter = Adapter((), ranks=tuple(sorted(set(ranks.values()))))
    scaling = _scaling_of(config, list(layers))
    if not scaling:
        return adapter
    scalings_found = scaling.values()
    if any(one.alpha != config["lora_alpha"] for one in scalings_found):
        found.add("alpha_pattern")
    if any(one.rank != config["r"] for one in scalings_found):
        found.add("rank_pattern")
    if config.get("use_rslora") and any(one.rank != 1 for one in scalings_found):
        found.add("rslora")
    if any(one.factor != 1 for one in scalings_found):
        found.add("factor")
    if found & _OTHER_SHAPES:
        adapter = adapter._replace(ranks=tuple(sorted({one.rank for one in scalings_found})))
    elif any(scaling[name].rank != rank for name, rank in ranks.items()):
        found.add("rank_mismatch")
    factors = sorted({one.factor for one in scalings_found})
    # Rounded, since alpha / r * r is not exact.
    alphas = {float(f"{one.factor * one.rank:.12g}") for one in scalings_found}
    return adapter._replace(
        factors=tuple(factors),
        factor=factors[0] if len(factors) == 1 else None,
        alpha=alphas.pop() if len(alphas) == 1 else None,
        config_factor=scalings({**config, "rank_pattern": {}, "alpha_pattern": {}}, [""])[""].factor,
        config_rank=config["r"],
    )


def _scaling_of(config: Config, modules: list[str]) -> dict[str, Scaling]:
    """Return the scaling of each layer; none if the configuration is malformed."""
    try:
        return scalings(config, modules) if is_well_formed(config) else {}
    except PatternError:
        return {}


def _missing_rope_keys(base_config: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what transformers 4 writes for the values that transformers 5 has in rope_parameters.

    Nothing for bases with rotary settings for each type of layer.
    """
    rope = base_config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" in base_config or "rope_theta" not in rope:
        return {}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    keys = {"rope_theta": rope["rope_theta"]}
    return keys if scaling.get("rope_type", "default") == "default" else {**keys, "rope_scaling": scaling}
