# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""All engines that have rules, by their names and other names that people write."""

from __future__ import annotations

import difflib

from ..._errors import DeliveryError
from . import llama_cpp, openvino_genai, vllm
from .form import EngineRules

ENGINES: dict[str, EngineRules] = {rules.name: rules for rules in (vllm.RULES, openvino_genai.RULES, llama_cpp.RULES)}

_NAMES = {_plain: rules for rules in ENGINES.values() for _plain in (rules.name, *rules.aliases)}


def rules_of(name: str) -> EngineRules:
    """Return the rules of an engine by its name or an alias.

    Raises DeliveryError for an unknown name.
    """
    written = name.lower().replace("_", "-")
    found = {alias.replace("_", "-"): rules for alias, rules in _NAMES.items()}
    if written in found:
        return found[written]
    near = difflib.get_close_matches(written, sorted(found), n=3)
    known = ", ".join(sorted({found[alias].name for alias in near} or ENGINES))
    raise DeliveryError.of(f"engine {name!r}", "has no rules.", f"Use one of the known engines: {known}.")
