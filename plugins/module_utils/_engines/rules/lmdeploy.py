# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What the PyTorch engine of LMDeploy makes of adapters, by its source."""

from __future__ import annotations

from .form import (
    AT_ONCE,
    CORRECT,
    FOLD,
    MERGE,
    NOT_RUN,
    ONE_ALPHA,
    RIGHT,
    TEXT,
    Answer,
    EngineRules,
    Range,
    Source,
    Switching,
    refused,
    right,
    wrong,
)

_NAME = "fails at its start with an AssertionError: it takes no tensors but lora_A.weight and lora_B.weight"

RULES = EngineRules(
    name="lmdeploy",
    title="LMDeploy",
    packages=("lmdeploy",),
    versions=(Range("0.16", "0.19"),),
    source=Source(
        "lmdeploy 0.16.0 and 0.18.0", "2026-11-28", "lmdeploy/pytorch/adapter/adapter.py, lmdeploy/pytorch/models/patch.py"
    ),
    settings={"dtype": TEXT},
    rules=(
        *right("plain", "factor", "fan_in_fan_out", "bf16", "fp16"),
        *wrong(["rslora"], "ignores use_rslora and divides alpha by r; PEFT divides it by the square root of r", FOLD),
        *wrong(["alpha_pattern"], ONE_ALPHA, FOLD),
        *refused(["rank_pattern"], "fails at its start: it makes all matrices with rank r", FOLD),
        *refused(["rank_mismatch"], "fails at its start: it makes all matrices with rank r", CORRECT),
        *refused(
            ["regex"], "fails at its start: it takes the letters for names", "list the names of the modules in target_modules"
        ),
        *wrong(["some_layers"], "leaves uninitialized memory in the LoRA layers that the file does not have", MERGE),
        *wrong(["unpaired"], "leaves uninitialized memory in the missing matrix", CORRECT),
        *refused(["dora", "lora_bias", "saved_head", "saved_embeddings", "saved_other", "tokens", "embeddings"], _NAME, MERGE),
        *refused(["head"], "fails at its start with a KeyError: its head has no LoRA layer", MERGE),
        *wrong(["alora"], AT_ONCE),
        *refused(
            ["prefix_missing", "prefix_headless", "prefix_multimodal"],
            "fails at its start with a KeyError: it cuts off the length of base_model.model. and looks for the rest",
            CORRECT,
        ),
    ),
    switching=Switching(switch=Answer(RIGHT, "the key of its prefix cache has the name of the adapter")),
    bounds=NOT_RUN,
    notes=("Adapters are loaded at its start only, so there is no reuse of a name and no unload.",),
)
