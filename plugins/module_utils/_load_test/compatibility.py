# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Compare a node's libraries with those of the training: incompatibilities and differences."""

from __future__ import annotations

import typing as t

from .._adapter.config_keys import KEYS, Effect, is_plain
from .._errors import Problem
from .._text import first
from .._versions import dotted, major_minor

# Packages whose version can change what a model computes.
COMPARED = ("torch", "transformers", "peft", "safetensors")
# The only tokenizer class of transformers 5 that 4 does not have, and one of both for the same
# file.
_NEW_CLASS, _COMMON_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"

Settings = t.Optional[t.Dict[str, t.Any]]


def runtime_problems(
    config: dict[str, t.Any],
    here: t.Mapping[str, str],
    tokenizer_config: Settings,
    base_config: Settings,
    base_tokenizer_config: Settings,
) -> list[Problem]:
    """Return what would fail, or be computed wrongly without an error, with a node's packages.

    ``config`` is adapter_config.json, ``here`` are the node's versions by package.
    ``tokenizer_config`` is the adapter's tokenizer_config.json, the others are files of the base on
    this node. Each is None if it is unknown.
    """
    found = []
    ignored = _newer_settings(config, here["peft"]) if "peft" in here else {}
    if ignored:
        found.append(
            Problem(
                "",
                f"has {first(sorted(ignored))} in its configuration, which PEFT {here['peft']} on this node ignores.",
                f"Install PEFT {dotted(max(ignored.values()))} or newer in the environment of python.",
            )
        )
    if "transformers" not in here or major_minor(here["transformers"]) >= (5, 0):
        return found
    old = f"transformers {here['transformers']} on this node"
    for whose, settings in (("its tokenizer", tokenizer_config), ("the tokenizer of its base", base_tokenizer_config)):
        if settings and settings.get("tokenizer_class") == _NEW_CLASS:
            found.append(
                Problem(
                    "",
                    f"cannot be used with {old}: {whose} was saved by transformers 5 as {_NEW_CLASS}, which only that supports.",
                    "Install transformers 5 in the environment of python, or set tokenizer_class to"
                    f" {_COMMON_CLASS} in tokenizer_config.json on the training server.",
                )
            )
    if base_config and base_config.get("rope_parameters") and "rope_theta" not in base_config:
        found.append(
            Problem(
                "",
                f"is on a base that {old} misreads without an error: its config.json was saved by transformers 5 and has"
                " rope_parameters but no rope_theta.",
                "Install transformers 5 in the environment of python, or use the base as its authors published it.",
            )
        )
    return found


def _newer_settings(config: dict[str, t.Any], peft: str) -> dict[str, tuple[int, int]]:
    """Return the settings that a version of PEFT ignores, and the version that has each."""
    here, saved_by = major_minor(peft), major_minor(str(config.get("peft_version") or "0"))
    found = {}
    for key, value in config.items():
        since = major_minor(KEYS[key].since) if key in KEYS else saved_by
        plain = is_plain(key, value) or (key in KEYS and KEYS[key].effect is Effect.NOTHING)
        if since > here and not plain:
            found[key] = since
    return found


def runtime_notes(trained: t.Mapping[str, str], here: t.Mapping[str, str]) -> list[str]:
    """Return a sentence for each package whose known versions differ."""
    return [
        f"The training had {name} {trained[name]}, this node has {here[name]}."
        for name in COMPARED
        if name in trained and name in here and _public(trained[name]) != _public(here[name])
    ]


def _public(version: str) -> str:
    """Return a version without its build: 2.13.0+cpu is the same torch as 2.13.0+cu130."""
    return version.partition("+")[0]
