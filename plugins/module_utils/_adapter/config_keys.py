# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The keys of adapter_config.json: what each does when PEFT loads the adapter.

The table has all keys of ``LoraConfig`` in PEFT 0.2 to 0.21. ``since`` is the first release of PEFT
that writes the key. PEFT ignores keys that it does not know.
"""

from __future__ import annotations

import enum
import typing as t

# The newest release of PEFT whose keys the table has.
NEWEST = "0.21"


class Effect(enum.Enum):
    """What a value other than that of plain LoRA does when PEFT loads the adapter."""

    NOTHING = "nothing: only the training, or a reader other than PEFT, uses it"
    FORM = "it chooses tensors or a computation that the load test knows, if the inventory declares it"
    REVISION = "it makes AutoPeftModel load another revision of the base, if the inventory declares it"
    BASE = "it makes the adapter change the base itself, which other adapters share"
    CODE = "it makes PEFT import Python modules that the adapter names"
    OTHERS = "PEFT cannot load the adapter without the others that it combines"


class Key(t.NamedTuple):
    """One key. ``plain`` are the values of plain LoRA; None stands for all empty values."""

    since: str
    effect: Effect
    plain: tuple[t.Any, ...] | None = None


# Of keys whose empty object or list is a setting, too.
_NULL = (None,)


KEYS: dict[str, Key] = {
    "alora_invocation_tokens": Key("0.18", Effect.FORM, _NULL),
    "alpha_pattern": Key("0.6", Effect.FORM),
    "arrow_config": Key("0.18", Effect.OTHERS, _NULL),
    # See IMPORTED_PACKAGES.
    "auto_mapping": Key("0.4", Effect.NOTHING),
    "base_model_name_or_path": Key("0.2", Effect.NOTHING),
    # Which biases of the base are trained. Their tensors, if the file has any, are rejected.
    "bias": Key("0.2", Effect.NOTHING, ("none",)),
    "corda_config": Key("0.15", Effect.NOTHING),
    "enable_lora": Key("0.2", Effect.NOTHING),
    "ensure_weight_tying": Key("0.18", Effect.FORM),
    "eva_config": Key("0.14", Effect.NOTHING),
    "exclude_modules": Key("0.14", Effect.FORM),
    # PEFT corrects it to suit the type of each layer.
    "fan_in_fan_out": Key("0.2", Effect.NOTHING),
    "inference_mode": Key("0.2", Effect.NOTHING, (True, False)),
    # See INITIALIZATIONS.
    "init_lora_weights": Key("0.3", Effect.NOTHING),
    # It replaces singular values of the base's weights by zero.
    "kasa_config": Key("0.21", Effect.BASE, _NULL),
    "layer_replication": Key("0.10", Effect.BASE),
    "layers_pattern": Key("0.4", Effect.FORM, (None, "", [])),
    "layers_to_transform": Key("0.4", Effect.FORM),
    "loftq_config": Key("0.7", Effect.NOTHING),
    "lora_alpha": Key("0.2", Effect.FORM),
    "lora_bias": Key("0.14", Effect.FORM),
    "lora_dropout": Key("0.2", Effect.NOTHING),
    "lora_ga_config": Key("0.19", Effect.NOTHING),
    "megatron_config": Key("0.7", Effect.CODE, _NULL),
    # Without megatron_config, it is not imported.
    "megatron_core": Key("0.7", Effect.NOTHING, ("megatron.core", None)),
    "merge_weights": Key("0.2", Effect.NOTHING),
    "modules_to_save": Key("0.2", Effect.FORM),
    "monteclora_config": Key("0.20", Effect.FORM, _NULL),
    "peft_type": Key("0.2", Effect.FORM),
    "peft_version": Key("0.18", Effect.NOTHING),
    "qalora_group_size": Key("0.16", Effect.NOTHING, (16,)),
    "r": Key("0.2", Effect.FORM),
    "rank_pattern": Key("0.6", Effect.FORM),
    # Of the base. On the Hub, anybody can open a pull request, which is a revision.
    "revision": Key("0.4", Effect.REVISION, (None, "main")),
    "runtime_config": Key("0.12", Effect.NOTHING),
    "target_modules": Key("0.2", Effect.FORM),
    "target_parameters": Key("0.17", Effect.FORM),
    "task_type": Key("0.2", Effect.NOTHING),
    "trainable_token_indices": Key("0.15", Effect.FORM, (None, {})),
    "use_bdlora": Key("0.19", Effect.FORM, _NULL),
    "use_dora": Key("0.9", Effect.FORM),
    "use_qalora": Key("0.16", Effect.FORM),
    "use_rslora": Key("0.8", Effect.FORM),
    "velora_config": Key("0.20", Effect.FORM, _NULL),
}

# The keys that choose modules, and neither their tensors nor what they compute.
KEYS_OF_MODULES = ("ensure_weight_tying", "exclude_modules", "layers_pattern", "layers_to_transform", "target_modules")

# The values of init_lora_weights with which the file alone is the whole adapter: they choose the
# values that the training begins with.
INITIALIZATIONS = (True, False, "gaussian", "orthogonal", "eva", "mica")
# PEFT reads these in capitals, too.
CASELESS_INITIALIZATIONS = ("gaussian", "mica", "olora")
# The other values, and what makes the file alone another adapter than the trained one. Names of
# PiSSA may end in _niter_ and a number.
_REPEATED = "PEFT repeats its decomposition of the base's weights when it loads the adapter, which changes the base"
UNFIT_INITIALIZATIONS = {
    "corda": "PEFT needs the training data again to load it",
    "loftq": "PEFT quantizes the base again when it loads the adapter, which changes it",
    "lora_ga": "PEFT changed the base's weights before the training, but does not when it loads the adapter: the answers differ",
    "olora": _REPEATED,
    "pissa": _REPEATED,
    "pissa_niter": "PEFT decomposes the base's weights with random numbers, which differ when it loads the adapter",
}

# PEFT's other methods, by the names in peft_type and as their authors write them.
OTHER_METHODS = {
    "ADALORA": "AdaLoRA",
    "ADAMSS": "AdaMSS",
    "ADAPTION_PROMPT": "LLaMA-Adapter",
    "BEFT": "BEFT",
    "BOFT": "BOFT",
    "BONE": "Bone",
    "C3A": "C3A",
    "CARTRIDGE": "Cartridge",
    "CPT": "CPT",
    "DEFT": "DEFT",
    "DELORA": "DeLoRA",
    "FOURIERFT": "FourierFT",
    "FROD": "FRoD",
    "GLORA": "GLoRA",
    "GRALORA": "GraLoRA",
    "HIRA": "HiRA",
    "HRA": "HRA",
    "IA3": "IA³",
    "LILY": "Lily",
    "LN_TUNING": "LayerNorm tuning",
    "LOHA": "LoHa",
    "LOKR": "LoKr",
    "MISS": "MiSS",
    "MULTITASK_PROMPT_TUNING": "multitask prompt tuning",
    "OFT": "OFT",
    "OSF": "OSF",
    "PEANUT": "PEANuT",
    "P_TUNING": "p-tuning",
    "POLY": "Poly",
    "PREFIX_TUNING": "prefix tuning",
    "PROMPT_TUNING": "prompt tuning",
    "PSOFT": "PSOFT",
    "PVERA": "PVeRA",
    "RANDLORA": "RandLoRA",
    "ROAD": "RoAd",
    "SHADOW": "Shadow",
    "SHIRA": "SHiRA",
    "SUPERTUNING": "SuperTuning",
    "TINYLORA": "TinyLoRA",
    "TRAINABLE_TOKENS": "trainable tokens",
    "UNILORA": "UniLoRA",
    "VBLORA": "VB-LoRA",
    "VERA": "VeRA",
    "WAVEFT": "WaveFT",
    "XLORA": "X-LoRA",
}

# The packages that auto_mapping may name. Only AutoPeftModel reads it, and only without task_type;
# from PEFT 0.20 on, it imports from no others.
IMPORTED_PACKAGES = ("transformers", "diffusers", "lerobot")


def is_empty(value: t.Any) -> bool:
    """Return whether a value is PEFT's default of most keys."""
    return value is None or value is False or (isinstance(value, (dict, list)) and not value)


def is_plain(key: str, value: t.Any) -> bool:
    """Return whether plain LoRA has this value."""
    plain = KEYS[key].plain if key in KEYS else None
    if plain is None:
        return is_empty(value)
    return any(type(value) is type(one) and value == one for one in plain)
