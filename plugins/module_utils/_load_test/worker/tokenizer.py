# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Load the adapter's tokenizer as an engine would. Part of the load test's worker."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ..._adapter.files import TOKENIZER_CONFIG, is_tokenizer_file
from ..._text import count, first
from .device import out_of_memory
from .errors import CheckFailed, summary
from .protocol import Target

_SAVE_AGAIN = (
    "Save the tokenizer again on the training server, with the version of transformers that is used here or an older one."
)
_SPECIAL = ("bos_token", "eos_token", "pad_token")
_SETTINGS = (".jinja", "_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json")


@dataclasses.dataclass(frozen=True)
class TokenizerReport:
    """What was checked, and what is unusual about the tokenizer."""

    checks: list[str]
    notes: list[str]


def check_tokenizer(target: Target, config: t.Any, rows: int) -> TokenizerReport:
    """Load the tokenizer of an adapter, and compare it with a model of ``rows`` tokens.

    ``config`` is the configuration of the base. Raises CheckFailed.
    """
    files = _files(target.directory)
    if not files:
        return TokenizerReport([], [])
    if TOKENIZER_CONFIG not in files or all(file.endswith(_SETTINGS) for file in files):
        note = f"Its tokenizer is incomplete ({first(files)}), so it was not loaded: engines use that of the base then."
        return TokenizerReport(_check_templates(_template_files(target.directory, files)), [note])
    try:
        tokenizer = _load(target.directory, config)
    except ImportError as exc:
        return TokenizerReport([], [f"Its tokenizer was not loaded, because python lacks a package: {summary(exc)[:200]}."])
    highest = max(tokenizer.get_vocab().values(), default=0)
    for name in _SPECIAL:
        token = getattr(tokenizer, name, None)
        number = None if token is None else tokenizer.convert_tokens_to_ids(token)
        if token is not None and (number is None or number >= rows):
            problem = f"its tokenizer's {name} {token!r} has id {number}, beyond the vocabulary of the model, which has {rows}."
            raise CheckFailed(
                problem, "Deliver the tokenizer of the base, or save the embeddings of added tokens with the adapter."
            )
    notes = []
    if highest >= rows:
        notes.append(f"Its tokenizer has ids up to {highest}, beyond the vocabulary of the model, which has {rows}.")
    if not tokenizer("A short text.")["input_ids"]:
        raise CheckFailed("its tokenizer makes no tokens of a text.", _SAVE_AGAIN)
    templates = tokenizer.chat_template or {}
    named = {"": templates} if isinstance(templates, str) else templates
    checks = [f"transformers loads its tokenizer without code from it: {count(len(tokenizer), 'token')}, {first(files)}."]
    return TokenizerReport([*checks, *_check_templates(named)], notes)


def _files(directory: str) -> list[str]:
    found = []
    for top, _directories, names in os.walk(directory):
        found += [os.path.normpath(os.path.join(os.path.relpath(top, directory), name)) for name in names]
    return sorted(filter(is_tokenizer_file, found))


def _template_files(directory: str, files: t.Iterable[str]) -> dict[str, str]:
    found = {}
    for file in files:
        if file.endswith(".jinja"):
            with open(os.path.join(directory, file), encoding="utf-8") as stream:
                found[file] = stream.read()
    return found


def _load(directory: str, config: t.Any) -> t.Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, config=config, local_files_only=True, trust_remote_code=False)
    except ImportError:
        raise
    # transformers raises any exception.
    except Exception as exc:
        if out_of_memory(exc):
            raise
        if "pip install" in str(exc):
            raise ImportError(str(exc)) from exc
        raise CheckFailed(f"its tokenizer cannot be loaded: {summary(exc)}.", _SAVE_AGAIN) from exc


def _check_templates(templates: t.Mapping[str, str]) -> list[str]:
    """Compile the templates in the sandbox of transformers, without rendering them."""
    if not templates:
        return []
    try:
        from transformers.utils.chat_template_utils import _compile_jinja_template as compile_template
    except ImportError:
        return []
    for name, template in templates.items():
        try:
            compile_template(template)
        except ImportError:
            return []
        # Errors of jinja2, which may not be installed.
        except Exception as exc:
            what = f"chat template {name}" if name else "chat template"
            raise CheckFailed(
                f"its {what} does not compile: {summary(exc)}.", "Correct the template, or deliver that of the base."
            ) from exc
    return [f"{count(len(templates), 'chat template')} compile{'s' * (len(templates) == 1)} in the sandbox of transformers."]
