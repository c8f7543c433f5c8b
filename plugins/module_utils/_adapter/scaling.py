# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Rank, alpha and factor of each LoRA layer, by PEFT's rules."""

from __future__ import annotations

import math
import typing as t

from .patterns import matching

Value = t.TypeVar("Value")


class Scaling(t.NamedTuple):
    """The ``rank`` and ``alpha`` of a LoRA layer, and the ``factor`` that multiplies B·A·x."""

    rank: int
    alpha: float
    factor: float


def by_pattern(patterns: t.Mapping[str, Value] | None, names: t.Sequence[str], default: Value) -> dict[str, Value]:
    """Return the value of each module: that of the first matching pattern, or ``default``.

    Raises PatternError.
    """
    values = dict.fromkeys(names, default)
    patterns = patterns or {}
    found = matching(list(patterns), names, r"(.*\.)?({})$")
    for value, matches in reversed(list(zip(patterns.values(), found))):
        values.update(dict.fromkeys(matches, value))
    return values


def scalings(config: dict[str, t.Any], modules: t.Sequence[str]) -> dict[str, Scaling]:
    """Return the scaling of each module that has a LoRA layer. ``config`` must be well-formed.

    Raises PatternError.
    """
    ranks = by_pattern(config.get("rank_pattern"), modules, config["r"])
    alphas = by_pattern(config.get("alpha_pattern"), modules, config["lora_alpha"])
    divisor: t.Callable[[int], float] = math.sqrt if config.get("use_rslora") else float
    return {name: Scaling(ranks[name], alphas[name], alphas[name] / divisor(ranks[name])) for name in modules}
