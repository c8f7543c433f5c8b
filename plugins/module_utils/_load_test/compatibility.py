# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The libraries of the training against those of a node: what is known to go wrong between them, and what merely differs."""

from __future__ import annotations

import typing as t

from .._errors import Problem
from .._versions import dotted, major_minor

# Those whose version can change what a model computes.
COMPARED = ("torch", "transformers", "peft", "safetensors")
# The only tokenizer class that transformers 5 writes and 4 does not know, and one that both know for the same file.
_NEW_CLASS, _COMMON_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"

Settings = t.Optional[t.Dict[str, t.Any]]


def runtime_problems(
    subject: str,
    saved_by: t.Optional[str],
    here: t.Mapping[str, str],
    tokenizer_config: Settings,
    base_config: Settings,
    base_tokenizer_config: Settings,
) -> list[Problem]:
    """What would go wrong, or be computed wrongly without a word, with the packages that a node has.

    C(saved_by) is the version of PEFT that adapter_config.json names, C(here) are the node's versions by package.
    C(tokenizer_config) is the adapter's tokenizer_config.json, the others are files of the base on this node. Each is None
    where it is not known.
    """
    found = []
    if saved_by and "peft" in here and major_minor(here["peft"]) < major_minor(saved_by):
        found.append(
            Problem(
                subject,
                f"was saved by PEFT {saved_by}, this node has the older PEFT {here['peft']}, which leaves out what is new.",
                f"Install PEFT {dotted(major_minor(saved_by))} or newer in agent_python.",
            )
        )
    if "transformers" not in here or major_minor(here["transformers"]) >= (5, 0):
        return found
    old = f"transformers {here['transformers']} on this node"
    for whose, settings in (("its tokenizer", tokenizer_config), ("the tokenizer of its base", base_tokenizer_config)):
        if settings and settings.get("tokenizer_class") == _NEW_CLASS:
            found.append(
                Problem(
                    subject,
                    f"cannot be used with {old}: {whose} was saved by transformers 5 as {_NEW_CLASS}, which only that knows.",
                    "Install transformers 5 in agent_python, or set tokenizer_class in tokenizer_config.json to"
                    f" {_COMMON_CLASS} where it comes from.",
                )
            )
    if base_config and base_config.get("rope_parameters") and "rope_theta" not in base_config:
        found.append(
            Problem(
                subject,
                f"is on a base that {old} reads wrongly without a word: its config.json was saved by transformers 5 and has"
                " rope_parameters but no rope_theta.",
                "Install transformers 5 in agent_python, or bring the base as its authors published it.",
            )
        )
    return found


def runtime_notes(trained: t.Mapping[str, str], here: t.Mapping[str, str]) -> list[str]:
    """One sentence for each package that differs from the training's; nothing where either version is not known."""
    return [
        f"The training had {name} {trained[name]}, this node has {here[name]}."
        for name in COMPARED
        if name in trained and name in here and _public(trained[name]) != _public(here[name])
    ]


def _public(version: str) -> str:
    """A version without the name of its build: 2.13.0+cpu is the torch that 2.13.0+cu130 is."""
    return version.partition("+")[0]
