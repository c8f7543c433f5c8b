# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests with the configuration and the tensors' header alone, on which kinds depend."""

from __future__ import annotations

import json
import pathlib
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest, TensorEntry
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats.safetensors import open_header

# The sizes of a module's weight do not matter to kinds.
_OUT, _IN = 32, 64
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
LAYERS = tuple(
    f"layers.{n}.{part}" for n in (0, 1) for part in (*(f"self_attn.{q}" for q in ATTENTION), *(f"mlp.{q}" for q in MLP))
)
PLAIN: dict[str, t.Any] = {
    "peft_type": "LORA",
    "r": 16,
    "lora_alpha": 16,
    "target_modules": [*ATTENTION, *MLP],
    "lora_dropout": 0.0,
    "bias": "none",
}

Shapes = t.Mapping[str, t.Tuple[int, ...]]


def read_manifest(directory: pathlib.Path) -> Manifest:
    """Return this part of the manifest of any adapter, also of one that PEFT cannot load."""
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    with open_header(str(directory / "adapter_model.safetensors")) as (_prefix, header, _stream):
        tensors = tuple(TensorEntry(info.name, info.dtype, tuple(info.shape), "") for info in header.tensors)
    return Manifest(directory.name, (), tensors, config, {})


def manifest(config: dict[str, t.Any], shapes: Shapes, dtype: str = "F32") -> Manifest:
    return Manifest("adapter", (), tuple(TensorEntry(name, dtype, shape, "") for name, shape in shapes.items()), config, {})


def pairs(
    modules: t.Iterable[str] = LAYERS, rank: int = 16, prefix: str = "base_model.model.model."
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the matrices of LoRA layers on these modules."""
    return {
        f"{prefix}{module}.lora_{side}.weight": (rank, _IN) if side == "A" else (_OUT, rank)
        for module in modules
        for side in "AB"
    }


def adapter(shapes: Shapes | None = None, dtype: str = "F32", **config: t.Any) -> Manifest:
    """Return a plain adapter with changes of its configuration or other tensors."""
    return manifest({**PLAIN, **config}, pairs() if shapes is None else shapes, dtype)
