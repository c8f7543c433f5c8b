# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What OpenVINO GenAI makes of adapters: it reads the tensors alone, never adapter_config.json."""

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


def _is_handed_over(adapter: Adapter, settings: Settings) -> bool:
    alpha = settings.get("alpha")
    if adapter.factor is None or alpha is None:
        return False
    return alpha == "factor" or (isinstance(alpha, (int, float)) and math.isclose(alpha, adapter.factor, rel_tol=1e-6))


_HANDED_OVER = Condition("`alpha` is the factor of all its layers", _is_handed_over)
_HAND_OVER = "pass AdapterConfig(adapter, {factor:.6g}) to the pipeline and state alpha: {factor:.6g} in agent_engine"

RULES = EngineRules(
    name="openvino_genai",
    title="OpenVINO GenAI",
    aliases=("openvino", "openvino-genai"),
    versions=(Range("2026.4", "2026.5"),),
    source=Source("OpenVINO GenAI 2026.4.1.0", "2026-11-28"),
    packages=("openvino-genai",),
    settings={"alpha": ALPHA},
    rules=(
        *right("plain", "selection", "bf16", "fp16", "head_lora", "fan_in_fan_out", "rank_mismatch", "rope_parameters"),
        *(
            Rule(
                kind,
                WRONG,
                "does not read adapter_config.json and multiplies by 1, or by one alpha that its caller hands over,"
                " where PEFT multiplies by {factors}",
                figure,
                (_HAND_OVER, FOLD),
                unless=_HANDED_OVER,
            )
            for kind, figure in (("factor", 0.142), ("rslora", 1.302), ("alpha_pattern", 0.439), ("rank_pattern", 0.454))
        ),
        Rule("dora", WRONG, "drops the magnitudes and answers as plain LoRA would", 2.55, (MERGE,)),
        Rule("lora_bias", WRONG, "drops the biases", 2.91, (MERGE,)),
        Rule("tokens", WRONG, "drops the trained tokens", 0.69, (MERGE,)),
        Rule("embedding_lora", WRONG, "drops the LoRA layer of the embeddings", 0.069, (MERGE,)),
        Rule("saved_embedding", WRONG, "replaces the head by the embeddings, too, where the base ties them", 2.71, (MERGE,)),
        Rule("saved_head", REFUSED, 'cannot build its pipeline: "IndexError map::at"', remedies=(MERGE,)),
        Rule("unpaired", REFUSED, 'refuses it: "Either A, B or both matrices are missing in LoRA tensors"', remedies=(CORRECT,)),
        Rule("prefix_missing", RIGHT, "answers as the base does, like PEFT"),
        Rule("prefix_short", WRONG, "applies the tensors, which PEFT ignores", remedies=(CORRECT,)),
        Rule("prefix_multimodal", RIGHT, "answers as the base does, like PEFT"),
    ),
)
