# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What llama.cpp makes of adapters that its convert_lora_to_gguf.py has converted."""

from __future__ import annotations

import math

from .form import (
    ALPHA,
    CORRECT,
    FOLD,
    MERGE,
    REFUSED,
    RIGHT,
    WRONG,
    Adapter,
    Condition,
    EngineRules,
    Range,
    Rule,
    Settings,
    Source,
    right,
)


def _is_rewritten(adapter: Adapter, settings: Settings) -> bool:
    alpha = settings.get("alpha")
    if adapter.alpha is None or alpha is None:
        return False
    return alpha == "factor" or (isinstance(alpha, (int, float)) and math.isclose(alpha, adapter.alpha, rel_tol=1e-6))


_REWRITTEN = Condition("`alpha` is the rank times the factor of each layer", _is_rewritten)
_REWRITE = (
    "set lora_alpha to {alpha:.6g} before the conversion (the GGUF key adapter.lora.alpha) and state alpha: {alpha:.6g}"
    " in agent_engine"
)

RULES = EngineRules(
    name="llama_cpp",
    title="llama.cpp",
    aliases=("llama.cpp", "llama-cpp", "llama-cpp-python", "llama-server"),
    versions=(Range("0.3.36", "0.4"), Range("0.5", "0.6")),
    source=Source("llama-cpp-python 0.3.36", "2026-11-28"),
    packages=("llama-cpp-python",),
    settings={"alpha": ALPHA},
    rules=(
        *right("plain", "factor", "rank_pattern", "selection", "fan_in_fan_out", "bf16", "fp16", "rope_parameters"),
        Rule("rank_mismatch", RIGHT, "divides by the rank of the tensors"),
        Rule(
            "rslora",
            WRONG,
            "ignores use_rslora and divides alpha by the rank, where PEFT divides by its square root",
            1.161,
            (_REWRITE, FOLD),
            unless=_REWRITTEN,
        ),
        Rule(
            "alpha_pattern",
            WRONG,
            "ignores alpha_pattern and takes lora_alpha for all layers",
            0.375,
            (_REWRITE, FOLD),
            unless=_REWRITTEN,
        ),
        Rule("dora", REFUSED, 'cannot convert it: "lora_magnitude_vector: Not a lora_A or lora_B tensor"', remedies=(MERGE,)),
        Rule("lora_bias", REFUSED, "cannot convert it: \"Unexpected name '...lora_B.bias'\"", remedies=(MERGE,)),
        Rule("tokens", REFUSED, "cannot convert it: \"Unexpected name '...trainable_tokens_delta'\"", remedies=(MERGE,)),
        *(
            Rule(kind, REFUSED, 'cannot convert it: "Embeddings is present in the adapter."', remedies=(MERGE,))
            for kind in ("saved_head", "saved_embedding")
        ),
        Rule("head_lora", REFUSED, "converts it, but cannot load it on a base with a tied head", remedies=(MERGE,)),
        Rule("embedding_lora", REFUSED, "converts it, but cannot use it on a base with a tied head", remedies=(MERGE,)),
        Rule("unpaired", REFUSED, "cannot convert it: AssertionError", remedies=(CORRECT,)),
        *(
            Rule(kind, WRONG, "applies the tensors, which PEFT ignores", remedies=(CORRECT,))
            for kind in ("prefix_missing", "prefix_short", "prefix_multimodal")
        ),
    ),
)
