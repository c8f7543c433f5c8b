# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What llama.cpp makes of adapters that its convert_lora_to_gguf.py has converted."""

from __future__ import annotations

from .form import (
    ABSOLUTE_PATH,
    ALPHA,
    APPLIED,
    BOOLEAN,
    CORRECT,
    FOLD,
    INTEGER,
    MERGE,
    ONE_ALPHA,
    UNKNOWN,
    UNTIED,
    WRONG,
    Answer,
    BoundRule,
    Condition,
    EngineRules,
    Places,
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

_REWRITTEN = Condition(
    "`alpha` is the factor of each layer multiplied by its rank",
    lambda adapter, settings: is_stated(settings.get("alpha"), adapter.alpha),
)
_REWRITE = (
    "set lora_alpha to {alpha:.6g} before the conversion, which makes it adapter.lora.alpha of the GGUF file, and state"
    " alpha: {alpha:.6g} in agent_engine"
)
RULES = EngineRules(
    name="llama_cpp",
    title="llama.cpp",
    packages=("llama-cpp-python",),
    # The versions of llama-cpp-python and of llama-server --version.
    versions=(Range("0.3.36", "0.4"), Range("0.5", "0.6")),
    source=Source("llama-cpp-python 0.3.36", "2026-11-28"),
    settings={"alpha": ALPHA, "flash_attention": BOOLEAN, "preset": ABSOLUTE_PATH, "models_max": INTEGER},
    rules=(
        *right("plain", "factor", "rank_pattern", "some_layers", "regex", "fan_in_fan_out", "bf16", "fp16", "rope_parameters"),
        *right("rank_mismatch", does="divides by the rank of the tensors, whatever r is"),
        *right("rslora", "alpha_pattern", when=_REWRITTEN),
        Rule(
            "rslora",
            WRONG,
            "ignores use_rslora and divides alpha by the rank; PEFT divides it by the square root of the rank",
            1.161,
            (_REWRITE, FOLD),
        ),
        Rule(
            "alpha_pattern",
            WRONG,
            ONE_ALPHA,
            0.375,
            (_REWRITE, FOLD),
        ),
        *refused(["dora"], 'does not convert it: "Unexpected name ... Not a lora_A or lora_B tensor"', MERGE),
        *refused(["lora_bias"], "does not convert it: \"Unexpected name '...lora_B.bias'\"", MERGE),
        *refused(["tokens"], "does not convert it: \"Unexpected name '...trainable_tokens_delta'\"", MERGE),
        *refused(["saved_head", "saved_embeddings"], 'does not convert it: "Embeddings is present in the adapter ..."', MERGE),
        *untried(["head", "embeddings"], UNTIED),
        *refused(["head"], 'converts it, but does not load it: "LoRA tensor ... does not exist in base model"', MERGE),
        *refused(["embeddings"], "converts it, but cannot use it", MERGE),
        *refused(["unpaired"], "does not convert it: AssertionError", CORRECT),
        *refused(["replicated"], 'does not convert it: "Can not map tensor ..."', MERGE),
        *wrong(["prefix_missing", "prefix_headless", "prefix_multimodal"], APPLIED, CORRECT),
        Rule(
            "alora",
            UNKNOWN,
            "converts it together with its invocation tokens, which llama-server reads, but nobody has compared its answers;"
            " llama-cpp-python ignores them and was 0.24 away",
            source=Source("llama.cpp at commit 0b03adaa", "2026-11-28", "convert_lora_to_gguf.py"),
        ),
    ),
    places=(
        Places(
            "models_max",
            "ends the process of the release that was used least recently",
            fails=True,
            base=True,
            when=Condition("`preset` is stated", lambda _adapter, settings: "preset" in settings),
        ),
    ),
    switching=Switching(
        # llama-cpp-python was run: it was up to 0.12 away after a switch, 0.05 after unloading.
        switch=Answer(
            WRONG,
            "in llama-server, after a change of the global scales, and without `lora` after a request with it; in"
            " llama-cpp-python, whose Llama keeps the cache of the last prompt when llama_set_adapters_lora changes the adapter",
        ),
        reuse=Answer(WRONG, "in llama-cpp-python, for the same reason"),
        unload=Answer(
            WRONG,
            "in llama-server, after all scales were set to 0; a file cannot be unloaded there; in llama-cpp-python, for the same"
            " reason as after a switch",
        ),
        remedy=(
            "start llama-server with --no-cache-prompt, or send cache_prompt: false; in llama-cpp-python, call reset() of Llama"
            " after each change"
        ),
    ),
    bounds=(
        BoundRule(1e-3, "without flash attention it was within 3e-5", states("flash_attention", False)),
        BoundRule(2e-2, "flash attention, the default, computes in float16 and was up to 1e-2 away with the right adapter"),
    ),
    notes=("llama-server loads adapters at its start only, except in router mode, where each adapter is a process of its own.",),
)
