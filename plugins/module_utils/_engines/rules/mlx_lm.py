# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What mlx-lm makes of adapters, which have to be converted to its own format."""

from __future__ import annotations

from .form import (
    ADD_LINES,
    ALPHA,
    FOLD,
    KINDS,
    MERGE,
    WRONG,
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
    untried,
)

_CONVERTED = Condition(
    "`scale` of the converted adapter is the one factor of all layers",
    lambda adapter, settings: len(adapter.ranks) == 1 and is_stated(settings.get("scale"), adapter.factor),
)
_DOES = "does not read PEFT's format: \"'types.SimpleNamespace' object has no attribute 'num_layers'\""
_CONVERT = (
    "convert it (strip base_model.model. from the names, transpose the matrices, set scale to {factor:.6g}) and state"
    " scale: {factor:.6g} in agent_engine"
)
_FOLD = f"{FOLD}, convert it with scale 1, and state scale: 1 in agent_engine"
# What was converted and run. Of the others in one file format, nothing but the conversion is known.
_CONVERTED_KINDS = ("plain", "factor", "rslora", "alpha_pattern", "rank_pattern")
_UNTRIED = ("some_layers", "regex", "fan_in_fan_out", "bf16", "fp16", "other_dtype")

# Kinds of the engine and of the base.
_OTHERS = ("rank", "rope_parameters")
_DEFAULT_BASE = Condition("the rotary base is 10000", lambda adapter, _settings: adapter.rope == {"rope_theta": 10000})

RULES = EngineRules(
    name="mlx_lm",
    title="mlx-lm",
    packages=("mlx-lm",),
    versions=(Range("0.32", "0.33"),),
    source=Source("mlx-lm 0.32.2 and mlx 0.32.4", "2026-11-28"),
    settings={"scale": ALPHA},
    rules=(
        *right(*_CONVERTED_KINDS, when=_CONVERTED),
        *untried(_UNTRIED, _CONVERTED),
        *refused([*_CONVERTED_KINDS, *_UNTRIED], _DOES, _CONVERT, _FOLD),
        *refused([kind for kind in KINDS if kind not in (*_CONVERTED_KINDS, *_UNTRIED, *_OTHERS, "alora")], _DOES, MERGE),
        *refused(["alora"], _DOES),
        *right("rope_parameters", when=_DEFAULT_BASE),
        Rule(
            "rope_parameters",
            WRONG,
            "reads rope_theta at the top level alone and otherwise takes 10000",
            1.758,
            (ADD_LINES,),
        ),
    ),
    switching=Switching(),
    bounds=(BoundRule(1e-3, "float32 was within 3e-4"),),
)
