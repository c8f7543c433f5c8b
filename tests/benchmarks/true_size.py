# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Adapters with the tensor names and shapes that PEFT saves for real bases, and random values."""

from __future__ import annotations

import json
import pathlib
import typing as t

import numpy as np
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.structure import expected_tensors
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.architecture import base_modules
from safetensors.numpy import save_file

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_LLAMA = {
    "model_type": "llama",
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
}


def _rope(factor: float) -> dict[str, t.Any]:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


class Size(t.NamedTuple):
    """A base, and the rank of its adapters."""

    name: str
    rank: int
    config: dict[str, t.Any]


SIZES = {
    "3b": Size(
        "meta-llama/Llama-3.2-3B-Instruct",
        16,
        {
            **_LLAMA,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "tie_word_embeddings": True,
            "rope_scaling": _rope(32.0),
        },
    ),
    "8b": Size(
        "meta-llama/Llama-3.1-8B-Instruct",
        32,
        {
            **_LLAMA,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "tie_word_embeddings": False,
            "rope_scaling": _rope(8.0),
        },
    ),
}


def make(directory: pathlib.Path, size: Size, seed: int) -> None:
    """Write an adapter for a base of this size: 97 MB for the 3B base, 336 MB for the 8B base."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": size.rank,
        "lora_alpha": 32,
        "target_modules": TARGETS,
        "base_model_name_or_path": size.name,
        "inference_mode": True,
    }
    random = np.random.default_rng(seed)
    shapes = expected_tensors(config, base_modules(size.config, size.name))
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {name: random.standard_normal(shape, np.float32) * np.float32(0.01) for name, shape in shapes.items()},
        directory / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
