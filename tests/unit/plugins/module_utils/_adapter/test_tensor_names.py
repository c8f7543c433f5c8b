# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Causes of tensors that PEFT ignores. Those of a whole adapter are in test_fault_matrix.py."""

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.tensor_names import name_cause

TEXT = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
MULTIMODAL = TEXT.replace("model.layers", "model.language_model.layers")


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        (f"_orig_mod.{TEXT}", TEXT, "torch.compile"),
        (TEXT.replace("base_model.model.", "base_model.model._orig_mod."), TEXT, "torch.compile"),
        (f"module.{TEXT}", TEXT, "DistributedDataParallel"),
        (TEXT.replace("base_model.model.", "base_model.model.module."), TEXT, "DistributedDataParallel"),
        (TEXT.replace("lora_A.", "lora_A.default."), TEXT, "the name of the adapter"),
        (TEXT.replace(".self_attn.", "._fsdp_wrapped_module.self_attn."), TEXT, "FSDP"),
        (f"_fsdp_wrapped_module.{TEXT}", TEXT, "FSDP"),
        (TEXT.replace(".self_attn.", "._checkpoint_wrapped_module.self_attn."), TEXT, "activation checkpointing"),
        (TEXT.replace("lora_A", "lora_down"), TEXT, "kohya's scripts"),
        (f"base_model.model.{TEXT}", TEXT, "prefix twice"),
        (TEXT[len("base_model.model.") :], TEXT, "do not begin with base_model.model."),
        (MULTIMODAL, TEXT, "the base here is the text model"),
        (TEXT, MULTIMODAL, "the base here is the multimodal class"),
        (TEXT.replace("model.model.layers", "model.layers"), TEXT, "without its head"),
        (TEXT.replace("model.layers", "model.decoder.layers"), TEXT, "another class of the base"),
    ],
)
def test_name_cause_other_prefix_is_named(found: str, expected: str, words: str) -> None:
    cause = name_cause([found], [expected])
    assert cause is not None
    assert words in cause[0]
    assert "1 tensor that PEFT would ignore" in cause[0]
    assert cause[1]


@pytest.mark.parametrize(
    "found", [TEXT, TEXT.replace("q_proj", "k_proj"), TEXT.replace("layers.0", "layers.7"), "", "x\n", "x" * 999]
)
def test_name_cause_other_difference_has_none(found: str) -> None:
    assert name_cause([f"base_model.model.{found}" if len(found) < 3 else found], [TEXT]) is None
