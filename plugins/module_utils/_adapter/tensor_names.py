# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Why PEFT ignores tensors with another prefix. Part of the load test's program, too."""

from __future__ import annotations

import re
import typing as t

from .._text import count, cut

PREFIX = "base_model.model."

# The name of a LoRA tensor up to the number of its layer, and the rest.
_LAYER = re.compile(r"(?P<prefix>.*?\.?)(?P<rest>[^.]+\.\d+\..*\.lora_.*)")
_PEFT = "Save it with save_pretrained of the PeftModel."


def name_cause(found: t.Collection[str], expected: t.Collection[str]) -> tuple[str, str] | None:
    """Return why PEFT ignores the tensors of a file, and the remedy; None if no cause is known.

    ``found`` are the names in the file, ``expected`` those that PEFT expects.
    """
    lora = sorted(name for name in found if ".lora_" in name and name not in expected)
    for expression, cause, remedy in _CAUSES:
        named = [name for name in lora if re.search(expression, name)]
        if named:
            return f"has {count(len(named), 'tensor')} that PEFT would ignore, such as {cut(named[0])}: {cause}.", remedy
    theirs, ours = _prefixes(lora), _prefixes(expected)
    for name in lora:
        one = _LAYER.fullmatch(name)
        if one is None or one["rest"] not in ours:
            continue
        prefix = ours[one["rest"]]
        begin = f"their names begin with {one['prefix'].rstrip('.')}, those of its base with {prefix.rstrip('.')}"
        problem = f"has {count(len(theirs), 'tensor')} that PEFT would ignore: {begin}. {_class_cause(one['prefix'], prefix)}"
        return (
            problem,
            "Deliver it to the base that it was trained on, or train it on the class that the base's config.json names.",
        )
    return None


def _prefixes(names: t.Iterable[str]) -> dict[str, str]:
    """Return the prefix of each name of a layer by the rest of the name."""
    layers = filter(None, map(_LAYER.fullmatch, names))
    return {layer["rest"]: layer["prefix"] for layer in layers}


def _class_cause(found: str, expected: str) -> str:
    if "language_model." in found and "language_model." not in expected:
        return "It was trained on the multimodal class of its base, and the base here is the text model."
    if "language_model." in expected and "language_model." not in found:
        return (
            "It was trained on the text model of its base, or with transformers before 4.52, and the base here is the"
            " multimodal class."
        )
    if expected.startswith(found) and expected.count(".") == found.count(".") + 1:
        return "It was trained on the base without its head (AutoModel), as for embeddings."
    return "It was trained on another class of the base."


_CAUSES = (
    (
        r"(^|\.)_orig_mod\.",
        "_orig_mod. is the name that torch.compile gives a model",
        f"Unwrap the model (model._orig_mod) before it is saved. {_PEFT}",
    ),
    (
        r"^(base_model\.model\.)?module\.",
        "module. is the name that DistributedDataParallel gives a model",
        f"Unwrap the model (model.module) before it is saved. {_PEFT}",
    ),
    (
        r"\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\.(?!weight$|bias$)[^.]+(\.(weight|bias))?$",
        "they have the name of the adapter, as in the state_dict of a model",
        _PEFT,
    ),
    (
        r"\._(fsdp|checkpoint)_wrapped_module\.|^_fsdp_wrapped_module\.",
        "FSDP and activation checkpointing give modules such names",
        f"Unwrap the model before it is saved. {_PEFT}",
    ),
    (
        r"\.lora_(down|up)\.",
        "lora_down and lora_up are names of diffusers and of kohya's scripts",
        "Convert it: PEFT's names are lora_A and lora_B, and alpha is in its adapter_config.json.",
    ),
    (
        rf"^({re.escape(PREFIX)}){{2}}",
        "they have PEFT's prefix twice, as when one PeftModel wraps another",
        "Train the adapter on the base itself.",
    ),
    (rf"^(?!{re.escape(PREFIX)})", f"they do not begin with {PREFIX.rstrip('.')}", _PEFT),
)
