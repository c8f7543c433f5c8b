# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Embeddings of the base in an adapter's file: accepted if they are those of the base here."""

from __future__ import annotations

import pathlib
import shutil
import typing as t

import pytest
from safetensors.numpy import load_file, save_file

from tests.support.damage import EMBED, change_tensors
from tests.support.describing import Describe, error_of

BASE_LAYER = EMBED.replace(".weight", ".base_layer.weight")
IN_BASE = "model.embed_tokens.weight"


@pytest.mark.parametrize("name", [EMBED, BASE_LAYER])
def test_describe_embeddings_of_base_are_compared_with_it(
    tiny: pathlib.Path, adapter: pathlib.Path, describe_it: Describe, name: str
) -> None:
    own = load_file(tiny / "base" / "model.safetensors")[IN_BASE]
    change_tensors(adapter, lambda tensors: tensors.update({name: own}))
    note = f"The file has embeddings of the base ({name}). Level model compares them with the base's."
    assert describe_it(base_path=str(tiny / "base")).notes == [note]
    changed = own.copy()
    changed[3, 3] += 1
    change_tensors(adapter, lambda tensors: tensors.update({name: changed}))
    message = error_of(describe_it, base_path=str(tiny / "base"))
    assert f"has embeddings other than those of its base, which PEFT would overwrite with them: {name}." in message
    # Without the base, only level model finds it.
    assert describe_it().notes == [note]


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_describe_embeddings_of_another_dtype_are_left_to_level_model(
    tiny: pathlib.Path, adapter: pathlib.Path, describe_it: Describe, dtype: str
) -> None:
    own: t.Any = load_file(tiny / "base" / "model.safetensors")[IN_BASE]
    change_tensors(adapter, lambda tensors: tensors.update({EMBED: (own + 1).astype(dtype)}))
    assert len(describe_it(base_path=str(tiny / "base")).notes) == 1


def test_describe_embeddings_with_damaged_base_are_left_to_level_model(
    tiny: pathlib.Path, tmp_path: pathlib.Path, adapter: pathlib.Path, describe_it: Describe
) -> None:
    shutil.copytree(tiny / "base", tmp_path / "base")
    own = load_file(tiny / "base" / "model.safetensors")
    change_tensors(adapter, lambda tensors: tensors.update({EMBED: own[IN_BASE] + 1}))
    save_file({name: tensor for name, tensor in own.items() if name != IN_BASE}, tmp_path / "base" / "model.safetensors")
    assert len(describe_it(base_path=str(tmp_path / "base")).notes) == 1
    (tmp_path / "base" / "model.safetensors").write_bytes(b"x")
    assert len(describe_it(base_path=str(tmp_path / "base")).notes) == 1
