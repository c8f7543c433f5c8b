# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""All engines that have rules, by their names and by the other names that people write."""

from __future__ import annotations

from ..._errors import DeliveryError
from ..._nearest import near
from . import (
    ctranslate2,
    llama_cpp,
    lmdeploy,
    mistralrs,
    mlx_lm,
    olive,
    onnxruntime_genai,
    openvino_genai,
    sglang,
    tensorrt_llm,
    tgi,
    transformers,
    vllm,
)
from .form import EngineRules

ENGINES: dict[str, EngineRules] = {
    module.RULES.name: module.RULES
    for module in (
        vllm,
        mistralrs,
        transformers,
        openvino_genai,
        llama_cpp,
        onnxruntime_genai,
        olive,
        mlx_lm,
        ctranslate2,
        sglang,
        lmdeploy,
        tensorrt_llm,
        tgi,
    )
}


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


_BY_NAME = {_plain(name): rules for rules in ENGINES.values() for name in (rules.name, *rules.aliases)}


def rules_of(name: str) -> EngineRules:
    """Return the rules of an engine by its name or an alias.

    Raises DeliveryError for an unknown name.
    """
    rules = _BY_NAME.get(_plain(name))
    if rules is None:
        meant = dict.fromkeys([_BY_NAME[alias].name for alias in near(_plain(name), _BY_NAME, 3)] or ENGINES)
        raise DeliveryError.of(f"engine {name}", "has no rules.", f"Use the name of a known engine: {', '.join(meant)}.")
    return rules
