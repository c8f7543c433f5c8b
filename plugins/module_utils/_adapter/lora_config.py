# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Checks adapter_config.json: LoRA for a causal language model, as declared.

PEFT is the measure. A key that does nothing when PEFT loads the adapter is accepted with any value;
one that chooses a form must be declared in the inventory; one that imports code or changes the base
is rejected. ``config_keys`` has the table.
"""

from __future__ import annotations

import math
import re
import typing as t

from .._base.architecture import Module, base_modules, is_known, vocabulary_size
from .._errors import DeliveryError, Problem
from .._formats.strict_json import is_integer, read_object
from .._text import first, shown
from .._versions import major_minor
from .config_keys import (
    CASELESS_INITIALIZATIONS,
    IMPORTED_PACKAGES,
    INITIALIZATIONS,
    KEYS,
    NEWEST,
    OTHER_METHODS,
    UNFIT_INITIALIZATIONS,
    Effect,
    is_empty,
    is_plain,
)
from .declaration import Declaration
from .files import CONFIG_FILE
from .module_selection import DEFAULT_TARGETS, Config, is_pattern, matches_any, select
from .patterns import PatternError

# PEFT itself shortens a list of more than 20 names to their endings when it saves.
MAX_NAMES = 1000
# The modules whose weights are one tensor in bases with tied embeddings.
TIED = ("embed_tokens", "lm_head")
# A path on the host of the training rather than a name on the Hub, which has one slash at most.
_PATH = re.compile(r"[/~.\\].*|[A-Za-z]:.*|.*[/\\].*[/\\].*", re.DOTALL)


def read_lora_config(path: str) -> Config:
    """Return the parsed file at ``path``. Raises DeliveryError if it is not strict JSON."""
    return read_object(path, _SAVE_AGAIN)


def is_well_formed(config: Config) -> bool:
    """Return whether every relevant key is present with a value of the right form."""
    return not _malformed(config)


def config_problems(config: Config, declared: Declaration) -> list[Problem]:
    """Return what PEFT must not load, and every deviation of ``config`` from the declaration."""
    problems: list[Problem] = []

    def report(key: str, problem: str, remedy: str) -> None:
        problems.append(Problem(f"{key} in {CONFIG_FILE}", problem, remedy, declared.name))

    if len(config) > MAX_NAMES:
        problem = f"has {len(config)} keys; at most {MAX_NAMES} are accepted."
        return [Problem(CONFIG_FILE, problem, _SAVE_AGAIN, declared.name)]
    method = config.get("peft_type")
    if isinstance(method, str) and method in OTHER_METHODS:
        # The other keys are that method's.
        problem = f'is "{method}": the adapter is {OTHER_METHODS[method]}, not LoRA.'
        report("peft_type", problem, "Train it as LoRA, or convert it if PEFT can (peft.save_as_lora).")
        return problems
    malformed = _malformed(config)
    for key in malformed:
        found = f"is {shown(config[key])}" if key in config else "is missing"
        report(key, f"{found}; expected {_FORMS[key][1]}.", _FORM_REMEDIES.get(key, _SAVE_AGAIN))

    for key in sorted(set(config) - set(malformed)):
        fault = _fault(key, config)
        if fault is not None:
            report(key, f"is {shown(config[key])}: {fault[0]}.", fault[1])
        elif key not in declared.peft_config and not malformed and _must_be_declared(key, config, declared):
            remedy = "If this is intended, declare it with exactly this value in the adapter's peft_config in the inventory."
            report(key, f"is {shown(config[key])}, which is not plain LoRA and not declared.", remedy)
    for key, value in sorted(declared.peft_config.items()):
        if key not in config:
            if not is_plain(key, value):
                report(key, f"is missing; the inventory declares {shown(value)} in peft_config.", _CORRECT)
        elif not _same(config[key], value) and not (is_plain(key, config[key]) and is_plain(key, value)):
            report(key, f"is {shown(config[key])}; the inventory declares {shown(value)} in peft_config.", _CORRECT)

    if malformed:
        return problems
    if config["r"] != declared.rank:
        report("r", f"is {config['r']}; the inventory declares rank {declared.rank}.", _CORRECT)
    if config["lora_alpha"] != declared.alpha:
        report("lora_alpha", f"is {config['lora_alpha']}; the inventory declares alpha {declared.alpha:g}.", _CORRECT)
    if config.get("task_type") == _SEQUENCES and (declared.base_config or {"is_encoder_decoder": True}).get("is_encoder_decoder"):
        report("task_type", f"is {shown(_SEQUENCES)}; expected {_FORMS['task_type'][1]}.", _FORM_REMEDIES["task_type"])
    base = config.get("base_model_name_or_path")
    # The tensors show which base it is, here or, on the controller, where the base is.
    compared = declared.base_config or declared.base_path
    if base and base not in declared.base_names and not (_PATH.fullmatch(base) and compared):
        names = " or ".join(sorted(declared.base_names))
        remedy = "If this is another name of the same base, add it to the base's aliases. Otherwise: " + _CORRECT
        report("base_model_name_or_path", f"is {shown(base)}; the inventory declares {names}.", remedy)
    size = vocabulary_size(declared.base_config)
    for key in ("alora_invocation_tokens", "trainable_token_indices"):
        highest = max(_token_ids(config.get(key)), default=-1)
        if size is not None and highest >= size:
            problem = f"has id {highest}, beyond the vocabulary of the base, which has {size}."
            report(key, problem, "Deliver it to nodes whose base has the vocabulary of the training.")
    try:
        difference = _target_difference(config, declared)
        if difference is not None:
            report("target_modules", *difference)
    except PatternError as exc:
        problem = f"One of its patterns {exc}."
        problems.append(Problem(CONFIG_FILE, problem, "List the names of the modules instead.", declared.name))
    return problems


def keys_to_declare(config: Config, declared: Declaration) -> list[str]:
    """Return the keys that a row's peft_config must have for a well-formed ``config``."""
    return [key for key in sorted(config) if _fault(key, config) is None and _must_be_declared(key, config, declared)]


def config_notes(config: Config, declared: Declaration) -> list[str]:
    """Return what is unusual about a configuration that ``config_problems`` accepts."""
    notes = []
    task = config.get("task_type")
    if task != "CAUSAL_LM":
        notes.append(f"task_type in {CONFIG_FILE} is {shown(task)}. PEFT loads the adapter all the same.")
    base = config.get("base_model_name_or_path")
    if not base:
        notes.append(f"base_model_name_or_path in {CONFIG_FILE} names no base, so only the tensors show which it is.")
    elif base not in declared.base_names:
        problem = (
            f"base_model_name_or_path in {CONFIG_FILE} is the path {shown(base)}, so only the tensors show which base it is."
        )
        notes.append(problem)
    if config.get("target_modules") is None:
        chosen = f": {first(DEFAULT_TARGETS)}" if modules_of_base(declared.base_config) else ""
        notes.append(f"target_modules in {CONFIG_FILE} is null, so PEFT's defaults for this type of base apply{chosen}.")
    for key, value in sorted(config.items()):
        if key not in KEYS:
            if not is_empty(value):
                notes.append(f"{key} in {CONFIG_FILE} is {shown(value)}. PEFT has no such key and ignores it.")
        elif key in _NOTES and not is_plain(key, value):
            notes.append(f"{key} in {CONFIG_FILE} is {shown(value)}. {_NOTES[key]}")
        elif (
            KEYS[key].effect is Effect.FORM
            # Beside layers_to_transform, where it belongs, layers_pattern is nothing unusual.
            and key not in {*_REQUIRED, "layers_pattern"}
            and not is_plain(key, value)
            and not _must_be_declared(key, config, declared)
        ):
            notes.append(f"{key} in {CONFIG_FILE} is {shown(value)}, which changes nothing on this base.")
    return notes


def modules_of_base(base_config: dict[str, t.Any] | None) -> dict[str, Module]:
    """Return the modules of a base; none if they are not known or its config is invalid."""
    if base_config is None or not is_known(base_config):
        return {}
    try:
        return base_modules(base_config, "")
    except DeliveryError:
        return {}


def _fault(key: str, config: Config) -> tuple[str, str] | None:
    """Return why no declaration can permit this value, and the remedy."""
    value = config[key]
    if key == "init_lora_weights":
        if _is_unfit(value):
            return UNFIT_INITIALIZATIONS[_family(value)], _CONVERT
    elif key == "auto_mapping" and value and value.get("parent_library") is not None:
        if str(value["parent_library"]).partition(".")[0] not in IMPORTED_PACKAGES:
            return Effect.CODE.value, f"Save the adapter from a model of {' or '.join(IMPORTED_PACKAGES)}."
    elif key == "alora_invocation_tokens" and value and config.get("task_type") != "CAUSAL_LM":
        return 'PEFT applies it only if task_type is "CAUSAL_LM"', f'Set "task_type": "CAUSAL_LM" in {CONFIG_FILE}.'
    elif key in ("layers_to_transform", "layers_pattern") and value is not None and isinstance(config.get("target_modules"), str):
        return "PEFT does not accept it beside a pattern in target_modules", "List the names of the modules in target_modules."
    elif key == "layers_pattern" and value and config.get("layers_to_transform") is None:
        return "PEFT does not accept it without layers_to_transform", _SAVE_AGAIN
    elif key in KEYS and not is_plain(key, value) and KEYS[key].effect in (Effect.CODE, Effect.BASE, Effect.OTHERS):
        return KEYS[key].effect.value, "Train the adapter without it."
    return None


def _must_be_declared(key: str, config: Config, declared: Declaration) -> bool:
    value = config[key]
    if key not in KEYS:
        # Released versions have no other keys that matter; a newer one may compute differently.
        newer = major_minor(str(config.get("peft_version") or "0")) > major_minor(NEWEST)
        return newer and not is_empty(value)
    if KEYS[key].effect not in (Effect.FORM, Effect.REVISION) or key in _REQUIRED or is_plain(key, value):
        return False
    if key == "ensure_weight_tying":
        return may_be_tied(config, declared.base_config)
    if key in ("exclude_modules", "layers_to_transform", "layers_pattern"):
        modules = modules_of_base(declared.base_config)
        try:
            return not modules or select(config, modules) != select({**config, key: None}, modules)
        except PatternError:
            return False  # config_problems reports it
    return True


def may_be_tied(config: Config, base_config: dict[str, t.Any] | None) -> bool:
    """Return whether the adapter may change weights that the base shares between two modules."""
    if base_config is not None and base_config.get("tie_word_embeddings") is False:
        return False
    if config.get("trainable_token_indices"):
        return True
    named = [*(config.get("modules_to_save") or ()), *_names(config.get("target_modules"))]
    if any(matches_any(TIED, name) for name in named):
        return True
    targets: t.Any = config.get("target_modules")
    return is_pattern(targets) and any(re.search(name, targets) for name in TIED)


def _token_ids(value: t.Any) -> list[int]:
    """Return the token ids of a list, or of lists by the names of modules."""
    lists = value.values() if isinstance(value, dict) else [value or ()]
    return [number for numbers in lists for number in numbers]


def _family(value: t.Any) -> str:
    """Return an initialization as ``config_keys`` names it: pissa_niter for pissa_niter_4."""
    if not isinstance(value, str):
        return ""
    return value.lower() if value.lower() in CASELESS_INITIALIZATIONS else re.sub(r"_\d+$", "", value)


def _is_unfit(value: t.Any) -> bool:
    return _family(value) in UNFIT_INITIALIZATIONS


def _names(value: t.Any) -> list[str]:
    return value if isinstance(value, list) else []


def _malformed(config: Config) -> list[str]:
    required = _REQUIRED
    if _are_names(config.get("target_parameters")) and config["target_parameters"] and not config.get("target_modules"):
        required = required - {"target_modules"}
    return [
        key
        for key, (fits, _expected) in _FORMS.items()
        if (key in required or (key in config and (config[key] or key != "target_modules"))) and not fits(config.get(key))
    ]


def _target_difference(config: Config, declared: Declaration) -> tuple[str, str] | None:
    """Return how target_modules differs from base and declaration, and the remedy.

    Raises PatternError.
    """
    modules = modules_of_base(declared.base_config)
    # Also where nothing is declared, so that no pattern reaches PEFT that cannot be evaluated.
    found = select(config, modules).ranks
    targets = config.get("target_modules")
    if is_pattern(targets) and modules and not found and not config.get("target_parameters"):
        problem = f"is {shown(targets)}: as a regular expression, it matches the whole name of no module of the base."
        return problem, "List the names of the modules: PEFT takes a text as a regular expression."
    if declared.target_modules in (None, {targets} if isinstance(targets, str) else set(targets or ())):
        return None
    declared_names = first(sorted(declared.target_modules))
    shown_targets = first(sorted(targets)) if isinstance(targets, list) else shown(targets)
    problem = f"is {shown_targets}; the inventory declares {declared_names}"
    if not modules:
        # The tensors show what a pattern, or PEFT's default, selects; see structure_problems().
        return (f"{problem}.", _CORRECT) if isinstance(targets, list) else None
    # PEFT saves "all-linear" as the full names of all modules, so different lists can select the
    # same modules.
    intended = select({**config, "target_modules": sorted(declared.target_modules)}, modules).ranks
    differing = [name for name in modules if (name in found) != (name in intended)]
    return (f"{problem}. They differ in {first(differing)}.", _CORRECT) if differing else None


def _is_number(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: t.Any, minimum: int = 1) -> bool:
    return is_integer(value) and value >= minimum


def _are_names(value: t.Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_NAMES and all(isinstance(name, str) and name for name in value)


def _are_numbers(value: t.Any) -> bool:
    return isinstance(value, list) and all(_is_count(number, 0) for number in value)


def _are_patterns_of(value: t.Any, fits: t.Callable[[t.Any], bool]) -> bool:
    return isinstance(value, dict) and len(value) <= MAX_NAMES and all(map(fits, value.values()))


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


# The task of an encoder and a decoder, which some give for a causal language model.
_SEQUENCES = "SEQ_2_SEQ_LM"
_SAVE_AGAIN = "Save the adapter again with PEFT."
_CORRECT = "Deliver the intended adapter, or correct the inventory."
_CONVERT = "Save it as plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)."

Form = t.Tuple[t.Callable[[t.Any], bool], str]
_BOOLEAN: Form = (lambda value: value is None or isinstance(value, bool), "true or false")
_TEXT: Form = (lambda value: value is None or isinstance(value, str), "text")
_OBJECT: Form = (lambda value: value is None or isinstance(value, dict), "an object")
_MODULES: Form = (
    lambda value: value is None or isinstance(value, str) or _are_names(value),
    f"at most {MAX_NAMES} module names, or a pattern",
)

# Of an adapter of any kind; without target_modules, target_parameters takes its place.
_REQUIRED = frozenset({"peft_type", "r", "lora_alpha", "target_modules"})
# The form of every key whose value matters here.
_FORMS: dict[str, Form] = {
    "peft_type": (lambda value: value == "LORA", '"LORA"'),
    "task_type": (lambda value: value in (None, "CAUSAL_LM", "FEATURE_EXTRACTION", _SEQUENCES), '"CAUSAL_LM" or null'),
    "r": (_is_count, "a rank of at least 1"),
    "lora_alpha": (lambda value: _is_number(value) and value != 0, "a number other than 0"),
    "target_modules": (
        lambda value: value is None or (bool(value) and (isinstance(value, str) or _are_names(value))),
        f'a list of at most {MAX_NAMES} module names, a pattern or "all-linear"',
    ),
    "base_model_name_or_path": _TEXT,
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "use_rslora": _BOOLEAN,
    "use_dora": _BOOLEAN,
    "use_qalora": _BOOLEAN,
    "lora_bias": _BOOLEAN,
    "ensure_weight_tying": _BOOLEAN,
    "bias": (lambda value: value in ("none", "all", "lora_only"), '"none", "all" or "lora_only"'),
    "auto_mapping": _OBJECT,
    "modules_to_save": (lambda value: value is None or _are_names(value), f"a list of at most {MAX_NAMES} module names"),
    "init_lora_weights": (
        lambda value: value is None or isinstance(value, bool) or _family(value) in INITIALIZATIONS or _is_unfit(value),
        ", ".join(shown(value) for value in INITIALIZATIONS),
    ),
    "exclude_modules": _MODULES,
    "layers_to_transform": (lambda value: value is None or _is_count(value, 0) or _are_numbers(value), "layer numbers"),
    "layers_pattern": _MODULES,
    "rank_pattern": (
        lambda value: _are_patterns_of(value, _is_count),
        f"ranks of at least 1 by at most {MAX_NAMES} module names or patterns",
    ),
    "alpha_pattern": (
        lambda value: _are_patterns_of(value, _is_number),
        f"numbers by at most {MAX_NAMES} module names or patterns",
    ),
    "alora_invocation_tokens": (lambda value: value is None or (value != [] and _are_numbers(value)), "token ids"),
    "trainable_token_indices": (
        lambda value: value in (None, {}) or (bool(value) and (_are_numbers(value) or _are_patterns_of(value, _are_numbers))),
        "token ids, or token ids by module name",
    ),
    "target_parameters": (lambda value: value is None or _are_names(value), f"a list of at most {MAX_NAMES} parameter names"),
    "use_bdlora": _OBJECT,
    "velora_config": _OBJECT,
    "monteclora_config": _OBJECT,
}
_FORM_REMEDIES = {
    "init_lora_weights": _CONVERT,
    # verl's merger writes 0 where lora_train_meta.json is missing.
    "lora_alpha": "Set it to the alpha of the training; with 0 the adapter has no effect.",
    "task_type": "Save the adapter with the task type of a causal language model.",
    # mergekit-extract-lora --sv-epsilon writes such ranks.
    "rank_pattern": "PEFT loads neither null nor a rank of 0: extract or save the adapter again with ranks of at least 1.",
}
_NOTES = {
    "auto_mapping": "Only AutoPeftModel reads it, and only without task_type.",
    "bias": "PEFT uses it in training only.",
    "enable_lora": "PEFT ignores it since 0.3.",
    "fan_in_fan_out": "PEFT sets it to suit each layer.",
    "merge_weights": "PEFT ignores it since 0.3.",
    "runtime_config": "PEFT ignores it.",
}
