# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unusual adapters that PEFT loads right, on bases of many kinds. Run in the PEFT interpreter.

``unusual_adapters.py DIRECTORY`` makes ``bases/NAME`` and ``adapters/NAME`` there, and
``adapters.json`` with the base of each and the peft_config that an inventory declares.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import typing as t

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
VISION = {"hidden_size": 16, "intermediate_size": 24, "patch_size": 14}
# mRoPE splits the rotary part of a head into sections.
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
QWEN_VL = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 4, "linear_value_head_dim": 4}
BASES: dict[str, tuple[str, dict[str, t.Any]]] = {
    "llama": ("LlamaForCausalLM", {**SIZES, "tie_word_embeddings": False}),
    "llama-tied": ("LlamaForCausalLM", {**SIZES, "tie_word_embeddings": True}),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        {
            "text_config": {**SIZES, "head_dim": 8},
            "vision_config": {**VISION, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28},
            "mm_tokens_per_image": 4,
            "image_token_index": 60,
            "boi_token_index": 61,
            "eoi_token_index": 62,
        },
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": {**SIZES, "rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]}},
            "vision_config": {**VISION, "depth": 1, "num_heads": 2, "out_hidden_size": 16, "fullatt_block_indexes": [0]},
            **QWEN_VL,
        },
    ),
    "qwen3_5": (
        "Qwen3_5ForConditionalGeneration",
        {
            "text_config": {
                **SIZES,
                **LINEAR,
                "head_dim": 8,
                "layer_types": ["linear_attention", "full_attention"],
                "rope_parameters": {**ROPE, "mrope_section": [1, 0, 0], "partial_rotary_factor": 0.25},
            },
            "vision_config": {**VISION, "depth": 1, "num_heads": 2, "out_hidden_size": 16},
            **QWEN_VL,
        },
    ),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        {**SIZES, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "mixtral": ("MixtralForCausalLM", {**SIZES, "num_local_experts": 4}),
    "gpt_oss": ("GptOssForCausalLM", {**SIZES, "head_dim": 8, "num_local_experts": 4, "sliding_window": 8}),
    "llama4": (
        "Llama4ForCausalLM",
        {
            **SIZES,
            "head_dim": 8,
            "intermediate_size_mlp": 24,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 1,
            "no_rope_layers": [1, 1],
            "attention_chunk_size": 8,
        },
    ),
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL_LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
EVERY_EXPERT = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
# The keys that PEFT adds where it converts the names of experts to parameters.
CONVERTED = ("target_parameters", "rank_pattern", "alpha_pattern")
UNSLOTH = {
    "base_model_class": "LlamaForCausalLM",
    "parent_library": "transformers.models.llama.modeling_llama",
    "unsloth_fixed": True,
}
PATTERN = r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|v_proj|down_proj))|(?:\bmodel\.layers\.[\d]{1,}\.mlp\.up_proj)"
RANKS = {r".*\.layers\.1\..*(q_proj|k_proj)": 4}

Tensors = t.Dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of adapter: its base, options of LoraConfig, and what is changed after it was saved.

    ``declared`` are the keys that an inventory has to declare.
    """

    base: str = "llama"
    options: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    config: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    tensors: t.Callable[[Tensors], Tensors] | None = None
    declared: tuple[str, ...] = ()
    # Whether PEFT saves the embeddings of the base, too.
    embeddings: bool = False


def renamed(old: str, new: str) -> t.Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def experts(layer: str, names: dict[str, tuple[int, int]]) -> t.Callable[[Tensors], Tensors]:
    """Add the LoRA tensors of every expert, as with transformers 4. ``names`` has the sizes."""

    def add(tensors: Tensors) -> Tensors:
        random = torch.Generator().manual_seed(2)
        for number in range(2):
            for expert in range(4):
                for name, (inputs, outputs) in names.items():
                    prefix = f"base_model.model.model.layers.{number}.{layer}.{expert}.{name}"
                    tensors[f"{prefix}.lora_A.weight"] = torch.randn(2, inputs, generator=random)
                    tensors[f"{prefix}.lora_B.weight"] = torch.randn(outputs, 2, generator=random)
        return tensors

    return add


def as_dtype(dtype: torch.dtype) -> t.Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()}


def halved(tensors: Tensors) -> Tensors:
    return {name: tensor.bfloat16() if "lora_A" in name else tensor for name, tensor in tensors.items()}


def without_layer(tensors: Tensors) -> Tensors:
    return {name: torch.zeros_like(tensor) if ".layers.0." in name else tensor for name, tensor in tensors.items()}


KINDS: dict[str, Kind] = {
    "no task type": Kind(options={"task_type": None}),
    "Unsloth's auto_mapping": Kind(config={"auto_mapping": UNSLOTH}),
    "newer PEFT": Kind(config={"peft_version": "0.99.0"}),
    "base null": Kind(config={"base_model_name_or_path": None}),
    "all-linear": Kind(config={"target_modules": "all-linear"}),
    "pattern": Kind(options={"target_modules": PATTERN}),
    "excluding pattern": Kind(options={"exclude_modules": r".*layers\.0.*v_proj"}, declared=("exclude_modules",)),
    "default targets": Kind(options={"target_modules": ["q_proj", "v_proj"]}, config={"target_modules": None}),
    "unknown target": Kind(options={"target_modules": [*ALL_LINEAR, "c_attn"]}),
    "layers by pattern": Kind(
        options={"layers_to_transform": [1], "layers_pattern": "layers"}, declared=("layers_to_transform", "layers_pattern")
    ),
    "ranks by pattern": Kind(options={"rank_pattern": RANKS, "alpha_pattern": RANKS}, declared=("rank_pattern", "alpha_pattern")),
    "EVA": Kind(config={"init_lora_weights": "eva", "eva_config": {"rho": 2.0, "tau": 0.99}}),
    "MiCA": Kind(config={"init_lora_weights": "mica"}),
    "norms saved": Kind(options={"modules_to_save": ["norm"]}, declared=("modules_to_save",)),
    "trained tokens": Kind(options={"trainable_token_indices": [5, 6]}, declared=("trainable_token_indices",)),
    "trained tokens, tied": Kind(
        "llama-tied", {"trainable_token_indices": {"embed_tokens": [5, 6]}}, declared=("trainable_token_indices",)
    ),
    "trained tokens of tied input and output": Kind(
        "llama-tied",
        {"trainable_token_indices": {"embed_tokens": [5], "lm_head": [5]}},
        declared=("trainable_token_indices",),
    ),
    "DoRA, magnitudes as weights": Kind(
        options={"use_dora": True},
        tensors=renamed("lora_magnitude_vector", "lora_magnitude_vector.weight"),
        declared=("use_dora",),
    ),
    "task of sequences": Kind(config={"task_type": "SEQ_2_SEQ_LM"}),
    "activated": Kind(options={"alora_invocation_tokens": [11, 12, 13]}, declared=("alora_invocation_tokens",)),
    "block-diagonal": Kind(
        options={"use_bdlora": {"target_modules_bd_a": ["q_proj"], "nblocks": 2, "match_strict": False}}, declared=("use_bdlora",)
    ),
    "VeLoRA": Kind(options={"velora_config": {"num_groups": 4}}, declared=("velora_config",)),
    "MonteCLoRA": Kind(options={"monteclora_config": {"num_samples": 3}}, declared=("monteclora_config",)),
    "biases": Kind(options={"lora_bias": True}, declared=("lora_bias",)),
    "unused bias": Kind(config={"bias": "all"}),
    "tying without tied modules": Kind("llama-tied", config={"ensure_weight_tying": True}),
    "tied embeddings saved": Kind(
        "llama-tied",
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        declared=("modules_to_save", "ensure_weight_tying"),
    ),
    "mixed dtypes": Kind(tensors=halved),
    "double precision": Kind(tensors=as_dtype(torch.float64)),
    "eight bits": Kind(tensors=as_dtype(torch.float8_e4m3fn)),
    "embeddings of the base": Kind(options={"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, embeddings=True),
    "tied embeddings of the base": Kind("llama-tied", {"target_modules": ["q_proj", "embed_tokens"]}, embeddings=True),
    # As after an enlargement of the vocabulary, on the enlarged base.
    "untrained embeddings of the base": Kind("llama-tied", embeddings=True),
    "trained tokens, embeddings of the base": Kind(
        options={"trainable_token_indices": [5, 6]}, declared=("trainable_token_indices",), embeddings=True
    ),
    "a layer of zeros": Kind(tensors=without_layer),
    "no parameter of this name": Kind(config={"target_parameters": EVERY_EXPERT}, declared=("target_parameters",)),
    "Gemma 3": Kind("gemma3"),
    "Gemma 3, a convolution": Kind("gemma3", {"target_modules": ["q_proj", "patch_embedding"]}),
    "Gemma 3, names of transformers 4": Kind(
        "gemma3", tensors=renamed("model.model.language_model.layers", "model.language_model.model.layers")
    ),
    "Qwen 2.5 VL": Kind("qwen2_5_vl"),
    "Qwen 3.5": Kind("qwen3_5"),
    "Qwen 3 MoE": Kind("qwen3_moe", {"target_modules": ATTENTION}),
    "Qwen 3 MoE, all linear layers": Kind("qwen3_moe", {"target_modules": "all-linear"}, declared=CONVERTED),
    "Mixtral, all linear layers": Kind("mixtral", {"target_modules": "all-linear"}, declared=CONVERTED),
    "Qwen 3 MoE, experts of transformers 4": Kind(
        "qwen3_moe",
        {"target_modules": ATTENTION},
        {"target_modules": ALL_LINEAR},
        experts("mlp.experts", {"gate_proj": (16, 16), "up_proj": (16, 16), "down_proj": (16, 16)}),
    ),
    "Qwen 3 MoE, parameters": Kind(
        "qwen3_moe", {"target_modules": ATTENTION, "target_parameters": EVERY_EXPERT}, declared=("target_parameters",)
    ),
    "Mixtral, experts of transformers 4": Kind(
        "mixtral",
        {"target_modules": ATTENTION},
        {"target_modules": [*ATTENTION, "w1", "w2", "w3"]},
        experts("block_sparse_moe.experts", {"w1": (16, 24), "w3": (16, 24), "w2": (24, 16)}),
    ),
    "gpt-oss, parameters of PEFT 0.18": Kind(
        "gpt_oss",
        {"target_modules": ATTENTION, "target_parameters": EVERY_EXPERT},
        {"peft_version": "0.18.1"},
        declared=("target_parameters",),
    ),
    "Llama 4": Kind("llama4", {"target_modules": ATTENTION}),
}


def make_base(name: str, directory: pathlib.Path) -> None:
    class_name, options = BASES[name]
    torch.manual_seed(0)
    found = getattr(transformers, class_name)
    model = found(found.config_class(**options)).to(torch.float32)
    model.save_pretrained(directory)


def make(kind: Kind, bases: pathlib.Path, directory: pathlib.Path) -> dict[str, t.Any]:
    """Save an adapter and return the values that an inventory declares."""
    torch.manual_seed(1)
    model = getattr(transformers, BASES[kind.base][0]).from_pretrained(bases / kind.base, dtype=torch.float32)
    model.name_or_path = model.config._name_or_path = f"tiny/{kind.base}"
    options = {"r": 2, "lora_alpha": 8, "target_modules": ALL_LINEAR, "task_type": "CAUSAL_LM", **kind.options}
    trained = peft.get_peft_model(model, peft.LoraConfig(**options))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_" in name or "modules_to_save" in name or "trainable_tokens" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    trained.save_pretrained(directory, save_embedding_layers=kind.embeddings)
    change(directory, kind)
    saved = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    return {key: saved[key] for key in kind.declared}


def change(directory: pathlib.Path, kind: Kind) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **kind.config}), encoding="utf-8")
    if kind.tensors is not None:
        weights = directory / "adapter_model.safetensors"
        tensors = {name: tensor.contiguous() for name, tensor in kind.tensors(load_file(weights)).items()}
        save_file(tensors, weights, metadata={"format": "pt"})


def make_converted(bases: pathlib.Path, directory: pathlib.Path) -> dict[str, t.Any]:
    """Save a LoKr adapter as LoRA with ranks that vary."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(bases / "llama", dtype=torch.float32)
    model.name_or_path = model.config._name_or_path = "tiny/llama"
    options = {"r": 4, "alpha": 8, "target_modules": ATTENTION, "task_type": "CAUSAL_LM", "init_weights": False}
    peft.save_as_lora(directory, peft.get_peft_model(model, peft.LoKrConfig(**options)), rank=0.9)
    saved = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    return {"rank_pattern": saved["rank_pattern"], "alpha_pattern": saved["alpha_pattern"]}


if __name__ == "__main__":
    where = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    index: dict[str, dict[str, t.Any]] = {}
    for base in BASES:
        make_base(base, where / "bases" / base)
    for label, kind in KINDS.items():
        index[label] = {"base": kind.base, "peft_config": make(kind, where / "bases", where / "adapters" / label)}
    converted = make_converted(where / "bases", where / "adapters" / "converted from LoKr")
    index["converted from LoKr"] = {"base": "llama", "peft_config": converted}
    (where / "adapters.json").write_text(json.dumps(index), encoding="utf-8")
