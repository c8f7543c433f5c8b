# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Which kinds an adapter is of, derived from its configuration and the header of its weights."""

from __future__ import annotations

import re
import typing as t

from .._adapter.lora_config import TIED, is_well_formed, modules_of_base
from .._adapter.manifest import Manifest, TensorEntry
from .._adapter.module_selection import Config, is_pattern
from .._adapter.patterns import PatternError
from .._adapter.scaling import Scaling, scalings
from .._adapter.tensor_names import PREFIX
from .rules.form import KINDS, Adapter

_EMBEDDING, _HEAD = TIED
_MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.weight)?")
# The tensors of a LoRA layer that have kinds of their own.
_OTHER_PARTS = {"lora_magnitude_vector": "dora", "lora_B.bias": "lora_bias", "trainable_tokens_delta": "tokens"}
_EXPERTS = re.compile(r"(^|\.)experts(\.|$)")
_KEYS = {
    "use_dora": "dora",
    "lora_bias": "lora_bias",
    "trainable_token_indices": "tokens",
    "target_parameters": "parameters",
    "layer_replication": "replicated",
    "use_qalora": "variant",
    "fan_in_fan_out": "fan_in_fan_out",
    "layers_to_transform": "selection",
    "exclude_modules": "selection",
}
# Of these keys, an empty value is a setting, too.
_KEYS_OR_EMPTY = {
    "alora_invocation_tokens": "alora",
    "use_bdlora": "bdlora",
    "velora_config": "variant",
    "monteclora_config": "variant",
    "kasa_config": "variant",
}
_DTYPES = {"BF16": "bf16", "F16": "fp16"}


def kinds_of(manifest: Manifest, base_config: dict[str, t.Any] | None) -> Adapter:
    """Return the kinds of an adapter on its base, in the order of ``KINDS``, with their numbers."""
    config, found = manifest.config, set()
    found |= {kind for key, kind in _KEYS.items() if config.get(key)}
    found |= {kind for key, kind in _KEYS_OR_EMPTY.items() if config.get(key) is not None}
    found |= {kind for key, kind in (("bias", "bias"),) if config.get(key) not in (None, "none")}
    if is_pattern(config.get("target_modules")):
        found.add("selection")
    names = config.get("modules_to_save")
    found |= {_saved(name) for name in (names if isinstance(names, list) else ()) if isinstance(name, str)}
    layers: dict[str, dict[str, TensorEntry]] = {}
    base = modules_of_base(base_config)
    for tensor in manifest.tensors:
        found |= _kinds_of_tensor(tensor, base, layers)
    if any(len(sides) < 2 for sides in layers.values()):
        found.add("unpaired")

    ranks = {name: sides["A"].shape[0] for name, sides in layers.items() if "A" in sides and sides["A"].shape}
    adapter = Adapter((), rank=max(ranks.values(), default=0))
    scaling = _scalings(config, list(layers))
    if scaling:
        first = config["r"], config["lora_alpha"]
        found |= {kind for kind, differs in _scaling_kinds(config, scaling).items() if differs}
        inexact = {"parameters", "bdlora", "variant"} & found
        if not inexact and any(name in scaling and scaling[name].rank != rank for name, rank in ranks.items()):
            found.add("rank_mismatch")
        factors = sorted({one.factor for one in scaling.values()})
        alphas = {round(one.factor * ranks.get(name, one.rank), 9) for name, one in scaling.items()}
        adapter = adapter._replace(
            factors=factors,
            factor=factors[0] if len(factors) == 1 else None,
            alpha=alphas.pop() if len(alphas) == 1 else None,
            config_rank=first[0],
        )
    if not found:
        found.add("plain")
    rope = _missing_rope_keys(base_config or {})
    if rope:
        found.add("rope_parameters")
    return adapter._replace(kinds=[kind for kind in KINDS if kind in found], rope=rope)


def _saved(module: str) -> str:
    last = module.rpartition(".")[2]
    return {_HEAD: "saved_head", _EMBEDDING: "saved_embedding"}.get(last, "saved_other")


def _kinds_of_tensor(tensor: TensorEntry, base: t.Container[str], layers: dict[str, dict[str, TensorEntry]]) -> set[str]:
    """Return the kinds that one tensor shows, and add a matrix of a LoRA layer to ``layers``."""
    found = {_DTYPES[tensor.dtype]} if tensor.dtype in _DTYPES else set()
    name = tensor.name[len(PREFIX) :] if tensor.name.startswith(PREFIX) else tensor.name
    if name == tensor.name:
        found.add("prefix_missing")
    matrix = _MATRIX.fullmatch(name)
    if matrix is None:
        part = next((kind for end, kind in _OTHER_PARTS.items() if name.endswith(end)), None)
        if part:
            return found | {part}
        if ".lora_" in name:
            return found | {"variant"}
        if name.endswith(".bias"):
            return found | {"bias"}
        return found if ".base_layer." in name else found | {_saved(name.rpartition(".")[0])}
    module = matrix["module"]
    layers.setdefault(module, {})[matrix["side"]] = tensor
    if base and module not in base and "prefix_missing" not in found:
        found.add("prefix_multimodal" if "language_model." in module else "prefix_short")
    if matrix["embedding"]:
        found.add("embedding_lora")
    elif module.rpartition(".")[2] == _HEAD:
        found.add("head_lora")
    if _EXPERTS.search(module):
        found.add("experts")
    return found


def _scalings(config: Config, modules: list[str]) -> dict[str, Scaling]:
    """Return the scaling of each layer; none if the configuration is not that of a LoRA adapter."""
    if not is_well_formed(config):
        return {}
    try:
        return scalings(config, modules)
    except PatternError:
        return {}


def _scaling_kinds(config: Config, scaling: dict[str, Scaling]) -> dict[str, bool]:
    return {
        "alpha_pattern": any(one.alpha != config["lora_alpha"] for one in scaling.values()),
        "rank_pattern": any(one.rank != config["r"] for one in scaling.values()),
        "rslora": bool(config.get("use_rslora")) and any(one.rank != 1 for one in scaling.values()),
        "factor": any(one.factor != 1 for one in scaling.values()),
    }


def _missing_rope_keys(base_config: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the keys of transformers 4 for what transformers 5 writes in rope_parameters."""
    rope = base_config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" in base_config or "rope_theta" not in rope:
        return {}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    keys = {"rope_theta": rope["rope_theta"]}
    return keys if scaling.get("rope_type", "default") == "default" else {**keys, "rope_scaling": scaling}
