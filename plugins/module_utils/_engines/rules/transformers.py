# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What transformers makes of adapters that a model's own load_adapter loads, without PeftModel."""

from __future__ import annotations

from .form import (
    ADD_LINES,
    APPLIED,
    AS_BASE,
    AT_ONCE,
    CORRECT,
    FLOAT32,
    REFUSED,
    TEXT,
    WRONG,
    Answer,
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

_PEFT_MODEL = "load it with PeftModel.from_pretrained"
# Of set_adapter, disable_adapters and delete_adapter. On 2026-11-29, PEFT 0.21.2 was the newest.
_NO_SWITCH = Answer(
    REFUSED, '"The version of PEFT you are using is not compatible, please use a version >= 0.22.0", which PyPI does not have yet'
)
_NEITHER = Answer(REFUSED, "for the same reason")

RULES = EngineRules(
    name="transformers",
    title="transformers",
    packages=("transformers",),
    versions=(Range("5.24", "5.25"),),
    source=Source("transformers 5.24.0 and peft 0.21.2", "2026-11-28"),
    settings={"dtype": TEXT},
    rules=(
        *right("plain", "factor", "rslora", "alpha_pattern", "rank_pattern", "some_layers", "regex", "bf16", "fp16"),
        *right(
            "fan_in_fan_out",
            "bias",
            "replicated",
            "lora_bias",
            "saved_head",
            "saved_embeddings",
            "tokens",
            "embeddings",
            "head",
            "rope_parameters",
        ),
        Rule(
            "dora",
            WRONG,
            "takes the norms of the base's weights for the magnitudes, and logs that keys are missing",
            2.5,
            (_PEFT_MODEL,),
        ),
        *wrong(["alora"], AT_ONCE, _PEFT_MODEL),
        *refused(["rank_mismatch"], 'refuses it: "You set `ignore_mismatched_sizes` to `False`, thus raising an error"', CORRECT),
        *right("unpaired", does="leaves the missing matrix at 0, like PEFT, and logs it"),
        *wrong(["prefix_missing", "prefix_headless"], APPLIED, _PEFT_MODEL, CORRECT),
        *right("prefix_multimodal", does=AS_BASE),
        Rule(
            "rope_parameters",
            WRONG,
            "does not know rope_parameters and takes a rope_theta of 10000",
            None,
            (ADD_LINES,),
            versions=(Range("4", "5"),),
            source=Source("transformers 4.57.6", "2026-11-28"),
        ),
    ),
    switching=Switching(switch=_NO_SWITCH, reuse=_NEITHER, unload=_NEITHER),
    notes=("These are the answers of `model.load_adapter`. `PeftModel.from_pretrained` is PEFT itself.",),
    bounds=(
        BoundRule(1e-3, "float32 was equal", FLOAT32),
        BoundRule(0.3, "bfloat16, the usual dtype of a base, was not run here; in vLLM it was up to 0.24 away"),
    ),
)
