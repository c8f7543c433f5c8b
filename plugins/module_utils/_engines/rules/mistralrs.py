# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What mistral.rs makes of adapters that are loaded at run time."""

from __future__ import annotations

from .form import (
    ADD_LINES,
    APPLIED,
    CORRECT,
    INTEGER,
    MERGE,
    RIGHT,
    TEXT,
    Answer,
    BoundRule,
    EngineRules,
    Places,
    Range,
    RankLimit,
    Source,
    Switching,
    refused,
    right,
    states,
    wrong,
)

_NOT_CONSUMED = 'refuses it: "adapter contains tensors not consumed by registered LoRA sites"'
_READ = Source("mistral.rs 0.9.2", "2026-11-28", "mistralrs-quant/src/lora/mod.rs")

RULES = EngineRules(
    name="mistralrs",
    title="mistral.rs",
    packages=("mistralrs", "mistralrs-cuda"),
    versions=(Range("0.9.5", "0.10"),),
    source=Source("mistralrs 0.9.5", "2026-11-28"),
    settings={"max_lora_rank": INTEGER, "max_adapters": INTEGER, "dtype": TEXT, "kv_cache": TEXT},
    rules=(
        *right("plain", "factor", "rslora", "alpha_pattern", "rank_pattern", "some_layers", "regex", "fan_in_fan_out"),
        *right("bf16", "fp16"),
        *refused(["dora"], 'refuses it: "dynamic LoRA does not support DoRA adapters"', MERGE),
        *refused(["lora_bias", "bias"], 'refuses it: "... adapter-specific bias parameters"', MERGE),
        *refused(["saved_head", "saved_embeddings", "saved_other"], 'refuses it: "... does not support modules_to_save"', MERGE),
        *refused(["tokens"], 'refuses it: "... trainable_token_indices"', MERGE),
        *refused(["alora"], 'refuses it: "dynamic LoRA does not support aLoRA alora_invocation_tokens"', source=_READ),
        *refused(["bdlora"], 'refuses it: "dynamic LoRA does not support use_bdlora"', MERGE, source=_READ),
        *refused(["replicated"], 'refuses it: "dynamic LoRA does not support layer_replication"', MERGE, source=_READ),
        *refused(["qalora"], 'refuses it: "dynamic LoRA does not support use_qalora"', MERGE, source=_READ),
        *refused(["head", "embeddings"], _NOT_CONSUMED, MERGE),
        *refused(["rank_mismatch"], 'refuses it: "... has shape [{rank}, ...], expected [{config_rank}, ...]"', CORRECT),
        *refused(["unpaired"], 'refuses it: "... is missing B"', CORRECT),
        *refused(["prefix_headless", "prefix_multimodal"], _NOT_CONSUMED, CORRECT),
        *wrong(["prefix_missing"], APPLIED, CORRECT),
        *refused(["rope_parameters"], "does not load the base: \"missing field 'rope_theta'\"", ADD_LINES),
    ),
    limit=RankLimit(
        "max_lora_rank",
        256,
        "refuses ranks above its limit, {limit}, and the adapter has {rank}",
        "raise the limit of its start to {rank} or more, and state max_lora_rank in agent_engine",
    ),
    places=(Places("max_adapters", "refuses the next release", fails=True),),
    switching=Switching(switch=Answer(RIGHT), reuse=Answer(RIGHT), unload=Answer(RIGHT)),
    bounds=(
        BoundRule(
            1e-3, "float32 with a KV cache in float32 (MISTRALRS_CPU_KV_F32=1) was within 3e-5", states("kv_cache", "float32")
        ),
        BoundRule(1e-2, "its KV cache on a CPU is float16 by default, which was up to 4e-3 away with the right adapter"),
    ),
)
