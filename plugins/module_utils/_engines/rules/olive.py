# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What Olive's convert-adapters makes of adapters, which it converts for ONNX Runtime GenAI."""

from __future__ import annotations

import math

from .form import (
    AT_ONCE,
    CORRECT,
    FOLD,
    MERGE,
    ONE_ALPHA,
    UNKNOWN,
    Adapter,
    BoundRule,
    Condition,
    EngineRules,
    Range,
    Rule,
    Settings,
    Source,
    Switching,
    refused,
    right,
    wrong,
)


def _is_config_factor(adapter: Adapter, _settings: Settings) -> bool:
    one, other = adapter.factor, adapter.config_factor
    return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-6)


# Verified for several factors; that one common factor is right follows from the cause.
_CONFIG_FACTOR = Condition("all layers have the factor that r and lora_alpha give", _is_config_factor)

_READ = Source("olive-ai 0.13.0", "2026-11-28", "olive/cli/convert_adapters.py")

RULES = EngineRules(
    name="olive",
    title="Olive",
    packages=("olive-ai",),
    versions=(Range("0.13", "0.14"),),
    source=Source("olive-ai 0.13.0", "2026-11-28"),
    rules=(
        *right("plain", "factor", "rslora"),
        *(rule._replace(source=_READ) for rule in right("some_layers", "regex", "fan_in_fan_out", "bf16", "fp16")),
        *(
            rule._replace(source=_READ)
            for rule in (
                *wrong(["rank_mismatch"], "computes the factor with r of the configuration, {config_rank}", CORRECT),
                *wrong(["alora"], AT_ONCE),
            )
        ),
        *right("alpha_pattern", "rank_pattern", when=_CONFIG_FACTOR),
        *wrong(["alpha_pattern"], ONE_ALPHA, FOLD),
        *wrong(["rank_pattern"], "ignores rank_pattern and divides by r for all layers", FOLD),
        *refused(["dora"], 'refuses it: "DoRA adapters are not supported for export."', MERGE),
        Rule("lora_bias", UNKNOWN, "writes the biases as further tensors, which nobody has served"),
    ),
    switching=Switching(),
    bounds=(BoundRule(1e-3, "float32 in ONNX Runtime GenAI was within 3e-5"),),
    notes=(
        "These are the answers of ONNX Runtime GenAI with adapters that `olive convert-adapters` has made.",
        "The base must be a graph whose LoRA inputs have the same names. ONNX Runtime GenAI's builder names them otherwise. With"
        " transformers 5.24, `olive capture-onnx-graph` fails for models with a KV cache, and without one it names them"
        " otherwise, too (`lora_A.default`).",
    ),
)
