# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What OpenVINO GenAI makes of adapters. It reads the tensors alone, not adapter_config.json."""

from __future__ import annotations

from .form import (
    ALPHA,
    APPLIED,
    AS_BASE,
    AT_ONCE,
    CORRECT,
    FOLD,
    MERGE,
    NO_MAGNITUDES,
    TEXT,
    UNTIED,
    WRONG,
    Answer,
    BoundRule,
    Condition,
    EngineRules,
    Range,
    Rule,
    Source,
    Switching,
    is_stated,
    refused,
    right,
    states,
    untried,
    wrong,
)

_HANDED_OVER = Condition(
    "`alpha` is the one factor of all layers",
    lambda adapter, settings: is_stated(settings.get("alpha"), adapter.factor),
)
_HAND_OVER = "pass the factor as AdapterConfig(adapter, {factor:.6g}) and state alpha: {factor:.6g} in agent_engine"
_ONE = (
    "does not read adapter_config.json: it multiplies by 1, or by one alpha that its caller passes; PEFT multiplies by {factors}"
)

RULES = EngineRules(
    name="openvino_genai",
    title="OpenVINO GenAI",
    packages=("openvino-genai",),
    versions=(Range("2026.4", "2026.5"),),
    source=Source("openvino-genai 2026.4.1.0", "2026-11-28"),
    settings={"alpha": ALPHA, "kv_cache_precision": TEXT},
    rules=(
        *right("bias", does="ignores the key, like PEFT, where the base has no biases"),
        *right("plain", "some_layers", "regex", "fan_in_fan_out", "bf16", "fp16", "head", "rope_parameters"),
        *right("factor", "rslora", "alpha_pattern", "rank_pattern", when=_HANDED_OVER),
        *untried(["saved_head", "saved_embeddings"], UNTIED),
        Rule("factor", WRONG, _ONE, 0.142, (_HAND_OVER, FOLD)),
        Rule("rslora", WRONG, _ONE, 1.302, (_HAND_OVER, FOLD)),
        Rule("alpha_pattern", WRONG, _ONE, 0.439, (_HAND_OVER, FOLD)),
        Rule("rank_pattern", WRONG, _ONE, 0.454, (_HAND_OVER, FOLD)),
        Rule("rank_mismatch", WRONG, _ONE, None, (CORRECT,)),
        Rule("dora", WRONG, NO_MAGNITUDES, 2.55, (MERGE,)),
        Rule("lora_bias", WRONG, "drops the biases", 2.91, (MERGE,)),
        Rule("tokens", WRONG, "drops the trained tokens", 0.69, (MERGE,)),
        Rule("embeddings", WRONG, "drops the LoRA layer of the embeddings", 0.069, (MERGE,)),
        Rule("saved_embeddings", WRONG, "replaces the head as well, where PEFT replaces the embeddings", 2.71, (MERGE,)),
        *refused(["saved_head"], 'does not start: "map::at"', MERGE),
        *wrong(["alora"], AT_ONCE),
        *wrong(["replicated"], "drops the tensors of the layers that the base does not have", MERGE),
        *refused(["unpaired"], 'refuses it: "Either A, B or both matrices are missing in LoRA tensors ..."', CORRECT),
        *right("prefix_missing", "prefix_multimodal", does=AS_BASE),
        *wrong(["prefix_headless"], APPLIED, CORRECT),
    ),
    switching=Switching(
        switch=Answer(WRONG, "the prefix cache of LLMPipeline does not distinguish adapters, whatever the length of the prompt"),
        reuse=Answer(WRONG, "for the same reason"),
        unload=Answer(WRONG, "for the same reason"),
        remedy='set enable_prefix_caching=False in its scheduler_config, or ATTENTION_BACKEND="SDPA"',
    ),
    bounds=(
        BoundRule(
            1e-3,
            "with INFERENCE_PRECISION_HINT and KV_CACHE_PRECISION f32 it was within 3e-4",
            states("kv_cache_precision", "f32"),
        ),
        BoundRule(0.03, "its KV cache has 8 bits by default, which was up to 0.03 away with the right adapter"),
    ),
    notes=(
        "`Adapter` takes the weights file; a directory is refused.",
        "`ContinuousBatchingPipeline.add_request` ignores adapters: those of the last `generate` apply.",
        "A pipeline that was built without adapters ignores those of `generate` without an error.",
    ),
)
