# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Which modules of a base an adapter_config.json selects, by PEFT's rules."""

from __future__ import annotations

import typing as t

from .._base.architecture import Module
from .patterns import matching
from .scaling import by_pattern

Config = t.Dict[str, t.Any]
Modules = t.Mapping[str, Module]

ALL_LINEAR = "all-linear"
# With it, PEFT accepts that there are no LoRA layers.
NOTHING = "dummy-target-modules"
# What PEFT selects without target_modules, for all types of bases that ``architecture`` knows.
DEFAULT_TARGETS = ("q_proj", "v_proj")
# The layer's number is the first number in the name, which is not the number of an expert.
_LAYER = r".*?\.[^.]*\.(?P<number>\d+)\."
_LAYER_OF = r"(?:^|.*?\.){}\.(?P<number>\d+)\."


class Selection(t.NamedTuple):
    """The modules that get a LoRA layer, with its rank, and those that are saved whole."""

    ranks: dict[str, int]
    saved: frozenset[str]


def is_pattern(value: t.Any) -> bool:
    """Return whether a value of target_modules or exclude_modules is a regular expression."""
    return isinstance(value, str) and value.lower() != ALL_LINEAR and value != NOTHING


def matches_any(names: t.Collection[str] | None, module: str) -> bool:
    """Return whether ``module`` has one of ``names`` as its name or as its last components."""
    parts = module.split(".")
    return names is not None and any(".".join(parts[start:]) in names for start in range(len(parts)))


def saves(config: Config, module: str) -> bool:
    """Return whether the adapter has a copy of ``module`` or of a module that contains it."""
    # PEFT compares the ends of names as texts: norm also means input_layernorm.
    return any(f"{name}." in f"{module}." for name in config.get("modules_to_save") or ())


def select(config: Config, modules: Modules) -> Selection:
    """Return what PEFT makes of ``modules``. ``config`` must be well-formed.

    Raises PatternError.
    """
    names = [name for name, module in modules.items() if not module.norm]
    excluded = _excluded(config, names)
    targets = [name for name in _targets(config, modules, names) if name not in excluded]
    return Selection(
        by_pattern(config.get("rank_pattern"), targets, config["r"]), frozenset(name for name in modules if saves(config, name))
    )


def _excluded(config: Config, names: list[str]) -> set[str]:
    exclude = config.get("exclude_modules")
    if isinstance(exclude, str):
        found = set(matching([exclude], names, whole=True)[0]) if exclude else set()
    else:
        exclude = frozenset(exclude or ())
        found = {name for name in names if matches_any(exclude, name)}
    # A module that is saved, and all modules inside it, by whole components of the name.
    for matches in matching(config.get("modules_to_save") or (), names, r"(^|.*\.){}($|\..*)"):
        found.update(matches)
    return found


def _targets(config: Config, modules: Modules, names: list[str]) -> list[str]:
    wanted: t.Any = config.get("target_modules")
    if wanted is None:
        wanted = DEFAULT_TARGETS
    if wanted == NOTHING:
        return []
    if is_pattern(wanted):
        found = matching([wanted], names, whole=True)[0]
        return [name for name in names if name in found]
    if isinstance(wanted, str):
        return [name for name in names if not modules[name].embedding and not matches_any(["lm_head"], name)]
    layers = config.get("layers_to_transform")
    in_layers = set(names) if layers is None or layers == [] else _in_layers(config, names)
    wanted = frozenset(wanted)
    return [name for name in names if name in wanted or (name in in_layers and matches_any(wanted, name))]


def _in_layers(config: Config, names: list[str]) -> set[str]:
    layers, patterns = config["layers_to_transform"], config.get("layers_pattern")
    if not patterns:
        found = matching([""], names, _LAYER)
    else:
        found = matching([patterns] if isinstance(patterns, str) else patterns, names, _LAYER_OF)
    wanted = set(layers) if isinstance(layers, list) else {layers}
    numbers: dict[str, str | None] = {}
    for matches in found:
        for name, number in matches.items():
            numbers.setdefault(name, number)
    return {name for name, number in numbers.items() if number is not None and int(number) in wanted}
