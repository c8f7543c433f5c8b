# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What TensorRT-LLM's PyTorch backend makes of adapters, by its source."""

from __future__ import annotations

from .form import (
    AT_ONCE,
    CORRECT,
    FOLD,
    INTEGER,
    MERGE,
    NOT_RUN,
    ONE_ALPHA,
    TEXT,
    EngineRules,
    Range,
    RankLimit,
    Source,
    Switching,
    refused,
    right,
    wrong,
)

_SKIPS = "skips tensors with embed_tokens or lm_head in their names"

RULES = EngineRules(
    name="tensorrt_llm",
    title="TensorRT-LLM",
    packages=("tensorrt-llm",),
    versions=(Range("1.2", "1.4"),),
    source=Source("NVIDIA/TensorRT-LLM at commit 30e6fb55", "2026-11-28", "tensorrt_llm/lora_manager.py"),
    settings={"max_lora_rank": INTEGER, "dtype": TEXT},
    rules=(
        *right("plain", "factor", "rslora", "rank_pattern", "some_layers", "regex", "fan_in_fan_out", "bf16", "fp16"),
        *right("rank_mismatch", does="divides by the rank of the tensors, whatever r is"),
        *wrong(["alpha_pattern"], ONE_ALPHA, FOLD),
        *wrong(
            ["dora"],
            "takes the magnitudes for normalized ones, which PEFT's are not",
            "normalize them with TensorRT-LLM's examples/dora/normalize_weights.py",
            MERGE,
        ),
        *refused(["lora_bias", "saved_other"], 'refuses it: "unsupported key ... from HF LoRA weights"', MERGE),
        *wrong(["saved_head", "saved_embeddings", "tokens", "embeddings", "head"], _SKIPS, MERGE),
        *wrong(["alora"], AT_ONCE),
        *refused(["unpaired"], 'refuses it: "... is missing required ... matrix"', CORRECT),
        *wrong(
            ["prefix_missing", "prefix_headless", "prefix_multimodal"],
            "looks for the number of the layer and the name of the module only, and applies the tensors, which PEFT ignores",
            CORRECT,
        ),
    ),
    limit=RankLimit(
        "max_lora_rank",
        64,
        "reserves room for ranks up to the max_lora_rank of its LoraConfig, {limit}, and the adapter has {rank}",
        "set max_lora_rank to {rank} or more in its LoraConfig, and state it in agent_engine",
    ),
    switching=Switching(),
    bounds=NOT_RUN,
    notes=(
        "It skips modules that lora_target_modules of its LoraConfig does not name, with a warning in the log.",
        "The version of the commit is not stated there; the releases 1.2 and 1.3 have the file under this name.",
    ),
)
