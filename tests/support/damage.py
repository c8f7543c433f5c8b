# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ways to damage the tensors of an adapter saved by PEFT (see tiny_adapters.py)."""

from __future__ import annotations

import json
import pathlib
import shutil
import struct
import typing as t

import numpy as np
from safetensors.numpy import load_file, save_file

Tensors = dict[str, t.Any]
# dtype, shape and bytes by name.
RawTensors = dict[str, tuple[str, list[int], bytes]]
Damage = t.Callable[[Tensors], t.Any]

LAYER = "base_model.model.model.layers.{}."
Q0_A = LAYER.format(0) + "self_attn.q_proj.lora_A.weight"
Q0_B = LAYER.format(0) + "self_attn.q_proj.lora_B.weight"
DOWN1_A = LAYER.format(1) + "mlp.down_proj.lora_A.weight"
DOWN1_B = LAYER.format(1) + "mlp.down_proj.lora_B.weight"
EMBED = "base_model.model.model.embed_tokens.weight"
NORM = "base_model.model.model.norm.weight"


def change_tensors(adapter: pathlib.Path, damage: Damage) -> None:
    """Apply ``damage`` to the weights of an adapter directory."""
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    damage(tensors)
    save_file(tensors, weights, metadata={"format": "pt"})


def damaged(adapter: pathlib.Path, where: pathlib.Path, damage: Damage) -> pathlib.Path:
    """Return a damaged copy of an adapter directory."""
    shutil.copytree(adapter, where)
    change_tensors(where, damage)
    return where


def drop(*parts: str) -> Damage:
    def change(tensors: Tensors) -> None:
        victims = [name for name in tensors if any(part in name for part in parts)]
        assert victims
        for name in victims:
            del tensors[name]

    return change


def add(name: str, shape: tuple[int, ...] = (4, 4), value: float = 1) -> Damage:
    return lambda tensors: tensors.update({name: np.full(shape, value, np.float32)})


def put(name: str, value: float) -> Damage:
    def change(tensors: Tensors) -> None:
        tensors[name][3, 3] = value

    return change


def zero(part: str) -> Damage:
    def change(tensors: Tensors) -> None:
        victims = [name for name in tensors if part in name]
        assert victims
        for name in victims:
            tensors[name][:] = 0

    return change


def cast(dtype: str, part: str = "") -> Damage:
    return lambda tensors: tensors.update({name: tensors[name].astype(dtype) for name in tensors if part in name})


def rename(old: str, new: str) -> Damage:
    return lambda tensors: tensors.update({name.replace(old, new): tensors.pop(name) for name in list(tensors)})


def reshape(name: str, shape: tuple[int, ...]) -> Damage:
    return lambda tensors: tensors.update({name: np.ones(shape, np.float32)})


def scale(part: str, factor: float) -> Damage:
    return lambda tensors: tensors.update({name: tensors[name] * np.float32(factor) for name in tensors if part in name})


def rewrite(path: pathlib.Path, change: t.Callable[[RawTensors], None]) -> None:
    """Change the tensors of a safetensors file byte by byte."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors: RawTensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = (entry["dtype"], entry["shape"], data[start:end])
    change(tensors)
    out: dict[str, t.Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape, raw) in tensors.items():
        out[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(raw)]}
        position += len(raw)
    text = json.dumps(out).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(raw for _dtype, _shape, raw in tensors.values()))
