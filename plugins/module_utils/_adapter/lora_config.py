# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Checks adapter_config.json: plain LoRA for a causal language model, as declared."""

from __future__ import annotations

import math
import re
import typing as t

from .._base.architecture import base_modules
from .._errors import DeliveryError, Problem
from .._formats.strict_json import is_integer, read_object
from .._text import first, shown
from .declaration import Declaration
from .files import CONFIG_FILE

Config = t.Dict[str, t.Any]

# A module name. Patterns are rejected: they could match anything, or take forever.
_MODULE_NAME = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
_SAVED_MODULES = ("embed_tokens", "lm_head")


def read_lora_config(path: str) -> Config:
    """Return the parsed file at ``path``. Raises DeliveryError if it is not strict JSON."""
    return read_object(path, _SAVE_AGAIN)


def matches_any(names: t.Sequence[str] | None, module: str) -> bool:
    """Return whether ``module`` has one of ``names`` as its name or as its last components."""
    return any(module == name or module.endswith(f".{name}") for name in names or ())


def targets(config: Config, module: str) -> bool:
    """Return whether PEFT adds a LoRA layer to ``module``, a module name of the base.

    ``config`` must be well-formed.
    """
    if matches_any(config.get("exclude_modules"), module) or matches_any(config.get("modules_to_save"), module):
        return False
    if module in config["target_modules"]:
        return True
    layers = config.get("layers_to_transform")
    if layers is None or layers == []:
        return matches_any(config["target_modules"], module)
    # PEFT uses the first number in the name as the number of the layer.
    layer = re.search(r"\.[^.]+\.(\d+)\.", module)
    numbers = layers if isinstance(layers, list) else [layers]
    return layer is not None and int(layer[1]) in numbers and matches_any(config["target_modules"], module)


def saves(config: Config, module: str) -> bool:
    """Return whether the adapter contains its own copy of all weights of ``module``."""
    return matches_any(config.get("modules_to_save"), module)


def rank_of(config: Config, module: str) -> int:
    """Return the rank of the LoRA layer on ``module``.

    It is the value of the first match in ``rank_pattern``, otherwise ``r``.
    """
    for pattern, rank in (config.get("rank_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return int(rank)
    return int(config["r"])


def is_well_formed(config: Config) -> bool:
    """Return whether every relevant key is present with a value of the right form."""
    return not _malformed(config)


def config_problems(config: Config, declared: Declaration) -> list[Problem]:
    """Return every deviation of ``config`` from plain LoRA and from the declaration."""
    problems: list[Problem] = []

    def report(key: str, problem: str, remedy: str) -> None:
        problems.append(Problem(f"{key} in {CONFIG_FILE}", problem, remedy, declared.name))

    malformed = _malformed(config)
    for key in malformed:
        found = f"is {shown(config[key])}" if key in config else "is missing"
        report(key, f"{found}; expected {_FORMS[key][1]}.", _FORM_REMEDIES.get(key, _SAVE_AGAIN))

    for key in sorted(set(config) - _CORE - set(malformed)):
        value = config[key]
        if key in _UNSUPPORTED:
            if not _is_plain(key, value):
                report(key, f"is {shown(value)}: {_UNSUPPORTED[key]}.", "Train the adapter without it.")
        elif not _is_plain(key, value) and key not in declared.peft_config:
            remedy = "If this is intended, declare it with exactly this value in the adapter's peft_config in the inventory."
            report(key, f"is {shown(value)}, which is not plain LoRA and not declared.", remedy)
    for key, value in sorted(declared.peft_config.items()):
        if key not in config:
            if not _is_plain(key, value):
                report(key, f"is missing; the inventory declares {shown(value)} in peft_config.", _CORRECT)
        elif not _same(config[key], value) and not (_is_empty(config[key]) and _is_empty(value)):
            report(key, f"is {shown(config[key])}; the inventory declares {shown(value)} in peft_config.", _CORRECT)

    if malformed:
        return problems
    if config["r"] != declared.rank:
        report("r", f"is {config['r']}; the inventory declares rank {declared.rank}.", _CORRECT)
    if config["lora_alpha"] != declared.alpha:
        report("lora_alpha", f"is {config['lora_alpha']}; the inventory declares alpha {declared.alpha:g}.", _CORRECT)
    base = config["base_model_name_or_path"]
    if base not in declared.base_names:
        names = " or ".join(sorted(declared.base_names))
        remedy = "If this is another name of the same base, add it to the base's aliases. Otherwise: " + _CORRECT
        report("base_model_name_or_path", f"is {shown(base)}; the inventory declares {names}.", remedy)
    difference = _target_difference(config, declared)
    if difference:
        report("target_modules", difference, _CORRECT)
    return problems


def _malformed(config: Config) -> list[str]:
    return [key for key, (fits, _expected) in _FORMS.items() if (key in config or key in _REQUIRED) and not fits(config.get(key))]


def _target_difference(config: Config, declared: Declaration) -> str:
    found = set(config["target_modules"])
    if declared.target_modules is None or found == declared.target_modules:
        return ""
    problem = f"is {first(sorted(found))}; the inventory declares {first(sorted(declared.target_modules))}"
    if declared.base_config is None:
        return f"{problem}."
    # PEFT saves "all-linear" as the full names of all modules, so different lists can select the
    # same modules.
    try:
        modules = base_modules(declared.base_config, f"config of base {declared.base}")
    except DeliveryError:
        return f"{problem}."
    intended = {**config, "target_modules": sorted(declared.target_modules)}
    differing = [name for name in modules if targets(config, name) != targets(intended, name)]
    return f"{problem}. They differ in {first(differing)}." if differing else ""


def _is_number(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: t.Any, minimum: int = 1) -> bool:
    return is_integer(value) and value >= minimum


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _are_names(value: t.Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and _MODULE_NAME.fullmatch(name) for name in value)


def _is_pattern_of(value: t.Any, fits: t.Callable[[t.Any], bool]) -> bool:
    # PEFT treats the keys as regular expressions. Only names are accepted, which match nothing
    # unexpected.
    return isinstance(value, dict) and all(
        _MODULE_NAME.fullmatch(key[1:] if key.startswith("^") else key) and fits(value[key]) for key in value
    )


def _are_layers(value: t.Any) -> bool:
    return _is_count(value, 0) or (isinstance(value, list) and all(_is_count(number, 0) for number in value))


def _is_plain(key: str, value: t.Any) -> bool:
    """Return whether plain LoRA has this value: PEFT's default, which is empty for most keys."""
    if key in _PLAIN:
        return any(_same(value, plain) for plain in _PLAIN[key])
    return _is_empty(value)


def _is_empty(value: t.Any) -> bool:
    return value is None or value is False or (isinstance(value, (dict, list)) and not value)


def _same(one: t.Any, other: t.Any) -> bool:
    """Compare as JSON: 1 equals 1.0 but not true. The order of a list of names does not matter."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        if all(isinstance(item, str) for item in one + other):
            return sorted(one) == sorted(other)
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


_SAVE_AGAIN = "Save the adapter again with PEFT."
_CORRECT = "Deliver the intended adapter, or correct the inventory."

_REQUIRED = frozenset({"peft_type", "task_type", "r", "lora_alpha", "target_modules", "base_model_name_or_path"})
# The form of every key whose value matters here, as of PEFT 0.21 and older versions.
_FORMS: dict[str, tuple[t.Callable[[t.Any], bool], str]] = {
    "peft_type": (lambda value: value == "LORA", '"LORA"'),
    "task_type": (lambda value: value == "CAUSAL_LM", '"CAUSAL_LM"'),
    "r": (_is_count, "a rank of at least 1"),
    "lora_alpha": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "target_modules": (lambda value: _are_names(value) and value != [], "a list of plain module names"),
    "base_model_name_or_path": (lambda value: isinstance(value, str) and value != "", "the name of the base"),
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "inference_mode": (lambda value: isinstance(value, bool), "true or false"),
    "peft_version": (lambda value: value is None or isinstance(value, str), "a version"),
    "revision": (lambda value: value is None or isinstance(value, str), "a revision name"),
    "use_rslora": (lambda value: isinstance(value, bool), "true or false"),
    "use_dora": (lambda value: isinstance(value, bool), "true or false"),
    "modules_to_save": (
        lambda value: value is None or (_are_names(value) and {_last(name) for name in value} <= {*_SAVED_MODULES}),
        f"a list of {' and '.join(_SAVED_MODULES)}",
    ),
    "init_lora_weights": (
        # All others need more than the file, or rewrite the weights of the base when the adapter is
        # loaded (pissa, olora, loftq).
        lambda value: isinstance(value, bool) or value in ("gaussian", "orthogonal"),
        'true, false, "gaussian" or "orthogonal"',
    ),
    "exclude_modules": (lambda value: value is None or _are_names(value), "a list of plain module names"),
    "layers_to_transform": (lambda value: value is None or _are_layers(value), "layer numbers"),
    "rank_pattern": (lambda value: _is_pattern_of(value, _is_count), "ranks of at least 1 by plain module name"),
    "alpha_pattern": (lambda value: _is_pattern_of(value, _is_number), "numbers by plain module name"),
}
_FORM_REMEDIES = {
    "target_modules": "List the names of the modules it was trained on. PEFT treats the list like the pattern.",
    "exclude_modules": "List the names of the modules. PEFT treats the list like the pattern.",
    "init_lora_weights": "Save it as plain LoRA (save_pretrained with path_initial_model_for_weight_conversion).",
    "modules_to_save": "Train the adapter without saving other modules.",
    "task_type": "Save the adapter with the task type of a causal language model.",
}

# Harmless with any value of the right form.
_CORE = _REQUIRED | {"inference_mode", "lora_dropout", "peft_version", "revision"}
# Defaults that are not empty, and other values that do not change how the adapter is loaded.
_PLAIN: dict[str, tuple[t.Any, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
    "megatron_core": ("megatron.core", None),
    "qalora_group_size": (16,),
}
_IMPORTS = "it makes PEFT import Python modules named by the adapter"
_CHANGES_BASE = "it makes the adapter change the base itself, which other adapters share"
_MORE_TENSORS = "it adds tensors that level structure does not know"
# Rejected even when declared.
_UNSUPPORTED = {
    "auto_mapping": _IMPORTS,
    "megatron_config": _IMPORTS,
    "bias": _CHANGES_BASE,
    "layer_replication": _CHANGES_BASE,
    "ensure_weight_tying": _MORE_TENSORS,
    "kasa_config": _MORE_TENSORS,
    "layers_pattern": "layer numbers are only supported for the layers of the base",
    "lora_bias": _MORE_TENSORS,
    "monteclora_config": _MORE_TENSORS,
    "target_parameters": _MORE_TENSORS,
    "trainable_token_indices": _MORE_TENSORS,
    "use_bdlora": _MORE_TENSORS,
    "use_qalora": _MORE_TENSORS,
}
