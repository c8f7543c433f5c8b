# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What Text Generation Inference (TGI) makes of adapters, by its source."""

from __future__ import annotations

from .form import (
    AS_BASE,
    AT_ONCE,
    CORRECT,
    FOLD,
    MERGE,
    NOT_RUN,
    ONE_ALPHA,
    RIGHT,
    TEXT,
    Answer,
    EngineRules,
    Range,
    Source,
    Switching,
    right,
    wrong,
)

_LOOKS = "looks for the LoRA matrices of attention and MLP layers alone, and leaves out all other tensors without an error"
_WHOLE = "leaves out a module in all layers if one layer does not have it, without an error"

RULES = EngineRules(
    name="tgi",
    title="Text Generation Inference",
    packages=("text-generation-server",),
    versions=(Range("3.3.7", "3.4"),),
    source=Source(
        "huggingface/text-generation-inference v3.3.7",
        "2026-11-28",
        "server/text_generation_server/adapters/lora.py, utils/adapter.py, models/__init__.py",
    ),
    settings={"dtype": TEXT},
    rules=(
        *right("plain", "factor", "rslora", "regex", "fan_in_fan_out", "bf16", "fp16"),
        *wrong(["alpha_pattern"], ONE_ALPHA, FOLD),
        *wrong(["rank_pattern"], "ignores rank_pattern and computes the factor with r for all layers", FOLD),
        *wrong(["rank_mismatch"], "computes the factor with r of the configuration, {config_rank}", CORRECT),
        *wrong(["some_layers"], _WHOLE, MERGE),
        *wrong(["unpaired"], _WHOLE, CORRECT),
        *wrong(["dora", "lora_bias", "saved_head", "saved_embeddings", "saved_other", "tokens", "embeddings"], _LOOKS, MERGE),
        *wrong(["parameters", "experts"], _LOOKS, MERGE),
        *wrong(["head"], "leaves out the LoRA layer of the head, and logs it", MERGE),
        *wrong(["alora"], AT_ONCE),
        *right(
            "prefix_missing",
            "prefix_headless",
            "prefix_multimodal",
            does=AS_BASE,
        ),
    ),
    switching=Switching(switch=Answer(RIGHT, "its launcher turns the prefix cache off if there are adapters")),
    bounds=NOT_RUN,
    notes=(
        "If it pads the rank of the first modules that it loads, it computes the factor of the others with the padded rank.",
        "Adapters are loaded at its start only, so there is no reuse of a name and no unload.",
        "It has no list of its adapters, and the base answers a request for one that it does not have, without an error.",
    ),
)
