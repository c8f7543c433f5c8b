# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What CTranslate2 makes of adapters: it takes whole models, and no adapters."""

from __future__ import annotations

from .form import (
    BOOLEAN,
    CORRECT,
    KINDS,
    MERGE,
    NOT_MERGED,
    WRONG,
    BoundRule,
    EngineRules,
    Range,
    Rule,
    Source,
    Switching,
    refused,
    right,
    states,
)

# Kinds of the engine and of the base.
_OTHERS = ("rank", "rope_parameters")
# PEFT cannot merge an Activated LoRA, which depends on the input, nor load one with other ranks.
_NOT_MERGEABLE = ("alora", "rank_mismatch", *NOT_MERGED)
_MERGEABLE = [kind for kind in KINDS if kind not in (*_NOT_MERGEABLE, *_OTHERS)]
_DOES = 'takes no adapters: "Unrecognized model in ... Should have a model_type key in its config.json."'

_MERGED = states("merged", True)

RULES = EngineRules(
    name="ctranslate2",
    title="CTranslate2",
    packages=("ctranslate2",),
    versions=(Range("4.8", "4.9"),),
    source=Source("ctranslate2 4.8.5", "2026-11-28"),
    settings={"merged": BOOLEAN},
    rules=(
        *right(*_MERGEABLE, when=_MERGED),
        *refused(_MERGEABLE, _DOES, f"{MERGE}, and state merged: true in agent_engine"),
        *refused(["alora"], _DOES),
        *refused(["rank_mismatch"], _DOES, CORRECT),
        *(
            Rule(kind, WRONG, "has a merged model in which head and embeddings, which are one tensor, both changed", when=_MERGED)
            for kind in ("embeddings", "head")
        ),
        *refused(NOT_MERGED, _DOES, MERGE),
        *right("rope_parameters"),
    ),
    switching=Switching(),
    bounds=(BoundRule(1e-3, "float32 was within 4e-5"),),
    notes=("Each merged adapter is a model of its own, so there is nothing to switch.",),
)
