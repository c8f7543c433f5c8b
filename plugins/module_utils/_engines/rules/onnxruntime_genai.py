# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What ONNX Runtime GenAI's model builder makes of an adapter, which it merges into the graph."""

from __future__ import annotations

from .form import (
    AS_BASE,
    AT_ONCE,
    CORRECT,
    MERGE,
    NO_MAGNITUDES,
    WRONG,
    BoundRule,
    EngineRules,
    Range,
    Rule,
    Source,
    Switching,
    refused,
    right,
    wrong,
)

RULES = EngineRules(
    name="onnxruntime_genai",
    title="ONNX Runtime GenAI",
    packages=("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-directml"),
    versions=(Range("0.18", "0.19"),),
    source=Source("onnxruntime-genai 0.18.0", "2026-11-28"),
    rules=(
        *right("plain", "factor", "rslora", "alpha_pattern", "rank_pattern", "rope_parameters"),
        *right("some_layers", "regex", "fan_in_fan_out", "bf16", "fp16", "bias"),
        # PEFT loads the adapter, and the builder takes over the matrices of its LoRA layers.
        *right(
            "prefix_missing",
            "prefix_headless",
            "prefix_multimodal",
            does=AS_BASE,
        ),
        *right("unpaired", does="leaves the missing matrix at 0, like PEFT"),
        *refused(["rank_mismatch"], 'fails like PEFT: "size mismatch ..."', CORRECT),
        *wrong(["alora"], AT_ONCE),
        *wrong(["replicated"], "builds the layers of the base alone", MERGE),
        Rule("dora", WRONG, NO_MAGNITUDES, 2.488, (MERGE,)),
        Rule("lora_bias", WRONG, "drops the biases", 2.906, (MERGE,)),
        Rule("embeddings", WRONG, "drops the LoRA layer of the embeddings", 0.069, (MERGE,)),
        Rule("saved_embeddings", WRONG, "does not take over the embeddings", 1.087, (MERGE,)),
        Rule("saved_head", WRONG, "builds a model that answers otherwise", 1.95, (MERGE,)),
        *refused(["head"], 'builds a model that does not load: "Node input ... is not a graph input"', MERGE),
        *refused(["tokens"], "fails: \"'TrainableTokensWrapper' object has no attribute 'bias'\"", MERGE),
    ),
    switching=Switching(),
    bounds=(BoundRule(1e-3, "float32 was within 3e-5"),),
    notes=(
        "These are the answers of models that its builder makes with `adapter_path`. For adapters beside the model, see Olive.",
        "Each adapter is a model of its own, so there is nothing to switch.",
    ),
)
