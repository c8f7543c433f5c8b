# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Rank, alpha and factor of each LoRA layer, by PEFT's rules."""

from __future__ import annotations

import math
import typing as t

from .._text import first
from .files import CONFIG_FILE
from .patterns import Matches, PatternError, matching

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
    for value, matches in reversed(list(zip(patterns.values(), _matches(patterns, names)))):
        values.update(dict.fromkeys(matches, value))
    return values


def _matches(patterns: t.Mapping[str, Value], names: t.Sequence[str]) -> list[Matches]:
    return matching(list(patterns), names, r"(.*\.)?({})$")


def scalings(config: dict[str, t.Any], modules: t.Sequence[str]) -> dict[str, Scaling]:
    """Return the scaling of each module that has a LoRA layer. ``config`` must be well-formed.

    Raises PatternError.
    """
    ranks = by_pattern(config.get("rank_pattern"), modules, config["r"])
    alphas = by_pattern(config.get("alpha_pattern"), modules, config["lora_alpha"])
    divisor: t.Callable[[int], float] = math.sqrt if config.get("use_rslora") else float
    return {name: Scaling(ranks[name], alphas[name], alphas[name] / divisor(ranks[name])) for name in modules}


def overlap_notes(config: dict[str, t.Any], modules: t.Sequence[str]) -> list[str]:
    """Return a note for each pattern of a configuration in which the order of the keys matters.

    In training, the keys have the order in which they were given. PEFT sorts them when it saves.
    """
    notes = []
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key)
        if not isinstance(patterns, dict) or len(patterns) < 2:
            continue
        try:
            found = _matches(patterns, modules)
        except PatternError:
            continue  # config_problems reports it
        keys = {module: [name for name, matches in zip(patterns, found) if module in matches] for module in modules}
        module = next((one for one, names in keys.items() if len({patterns[name] for name in names}) > 1), None)
        if module is not None:
            notes.append(
                f"{key} in {CONFIG_FILE} has different values for {module}: {first(keys[module])} match it, and the first one"
                " counts. PEFT sorts them when it saves, so another one may have counted in training. Test the saved adapter."
            )
    return notes
