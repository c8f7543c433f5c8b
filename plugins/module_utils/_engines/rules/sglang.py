# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What SGLang makes of adapters, by its source."""

from __future__ import annotations

from .form import (
    AT_ONCE,
    CORRECT,
    FOLD,
    INTEGER,
    MERGE,
    NOT_RUN,
    ONE_ALPHA,
    OTHERS_WAIT,
    RIGHT,
    TEXT,
    Answer,
    EngineRules,
    Places,
    Range,
    RankLimit,
    Source,
    Switching,
    refused,
    right,
    wrong,
)

RULES = EngineRules(
    name="sglang",
    title="SGLang",
    packages=("sglang",),
    versions=(Range("0.5.23", "0.6"),),
    source=Source(
        "sglang 0.5.23", "2026-11-28", "sglang/srt/lora/lora.py, lora_config.py, lora_manager.py, mem_pool.py, utils.py"
    ),
    settings={"max_lora_rank": INTEGER, "max_loras_per_batch": INTEGER, "max_loaded_loras": INTEGER, "dtype": TEXT},
    rules=(
        *right("plain", "factor", "some_layers", "fan_in_fan_out", "bf16", "fp16", "embeddings", "head"),
        *wrong(["rslora"], "ignores use_rslora and divides alpha by r; PEFT divides it by the square root of r", FOLD),
        *wrong(["alpha_pattern"], ONE_ALPHA, FOLD),
        *refused(["rank_pattern"], 'fails at the first request: "LoRA buffer shape ... does not match weight shape ..."', FOLD),
        *refused(
            ["regex"],
            "refuses it: \"Only 'all' or 'all-linear' can be used as the string for target module\"",
            "list the names of the modules in target_modules",
        ),
        *refused(["dora"], 'refuses it: "LoRA serving currently doesn\'t support DoRA adapters"', MERGE),
        *wrong(["lora_bias"], "lets the matrix of a layer replace its bias, which is lost", MERGE),
        *wrong(["saved_head", "saved_embeddings"], "skips the tensors of modules that target_modules does not name", MERGE),
        *refused(["saved_other"], 'fails at the first request: "Cannot find target module name for ..."', MERGE),
        *wrong(["tokens"], "skips the trained tokens", MERGE),
        *wrong(["alora"], AT_ONCE),
        *refused(
            ["rank_mismatch"], 'fails at the first request: "LoRA buffer shape ... does not match weight shape ..."', CORRECT
        ),
        *wrong(
            ["prefix_missing", "prefix_headless", "prefix_multimodal"],
            "looks for the number of the layer and the name of the module only, and applies the tensors, which PEFT ignores",
            CORRECT,
        ),
    ),
    limit=RankLimit(
        "max_lora_rank",
        None,
        "refuses ranks above its --max-lora-rank, {limit}, and the adapter has {rank}",
        "start it with --max-lora-rank {rank} or more, and state max_lora_rank in agent_engine",
    ),
    places=(
        Places("max_loras_per_batch", OTHERS_WAIT, fails=False),
        Places("max_loaded_loras", "unloads the adapter that was used least recently", fails=True, in_memory=True),
    ),
    switching=Switching(
        switch=Answer(RIGHT, "the key of its prefix cache has an id of the adapter"),
        reuse=Answer(RIGHT, "each load has a new id"),
        unload=Answer(RIGHT, "the key of its prefix cache has an id of the adapter"),
    ),
    bounds=NOT_RUN,
    notes=(
        "Without --max-lora-rank, the adapters of the start set the limit for all later ones.",
        "A request for a name that was unloaded loads it again, from the directory that it had last.",
    ),
)
