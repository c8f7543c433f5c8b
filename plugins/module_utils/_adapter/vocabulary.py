# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The vocabulary of a tokenizer against that of the model: no token beyond its embedding."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._base.architecture import vocabulary_size
from .._errors import DeliveryError, Problem
from .._formats.strict_json import is_integer, read_json_file
from .._formats.tensor_scan import TensorScan
from .._text import count, first, shown
from .declaration import Declaration
from .files import TOKENIZER_CONFIG, TOKENIZER_FILE, is_chat_template

# The tensors with a row for each token.
_ROWS = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "embed_out.weight", "word_embeddings.weight")
# At most this many ids of a tokenizer's model are listed, which may be any numbers.
_SHOWN = 1000
_SPECIAL = ("bos_token", "eos_token", "pad_token")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The ids of a tokenizer.json: ``highest`` of its model, and the texts of its added tokens."""

    highest: int
    added: dict[int, str]

    def beyond(self, rows: int) -> dict[int, str]:
        """Return the tokens whose ids a model with ``rows`` tokens does not have."""
        found = {number: text for number, text in self.added.items() if number >= rows}
        return {**dict.fromkeys(range(rows, min(self.highest + 1, rows + _SHOWN)), ""), **found}

    def to_json(self) -> list[t.Any]:
        return [self.highest, [[number, text] for number, text in self.added.items()]]

    @classmethod
    def from_json(cls, data: t.Any) -> Vocabulary | None:
        """Return what ``to_json`` returned, or None for None."""
        return None if data is None else cls(data[0], dict(data[1]))


def read_vocabulary(path: str) -> Vocabulary | None:
    """Return the vocabulary of a tokenizer.json, None if it does not exist or has another form.

    Raises DeliveryError if it is not JSON.
    """
    if not os.path.isfile(path):
        return None
    content = read_json_file(path, "Save the tokenizer again.")
    try:
        words = content["model"]["vocab"]
        ids = words.values() if isinstance(words, dict) else range(len(words))
        added = {token["id"]: str(token["content"]) for token in content.get("added_tokens") or ()}
        highest = max(ids, default=-1)
        return Vocabulary(highest, added) if all(map(is_integer, [highest, *added])) else None
    except (KeyError, TypeError, AttributeError):
        return None


def vocabulary_problems(
    vocabulary: Vocabulary | None, paths: t.Mapping[str, str], tensors: t.Iterable[TensorScan], declared: Declaration
) -> tuple[list[Problem], list[str]]:
    """Return the problem of tokens that the model lacks, and a note if they do no harm.

    ``paths`` are those of the adapter's files. Tokens that the base's own tokenizer has as well are
    no fault of the adapter: that of Gemma 3 has one for images, which its small models lack.
    """
    rows = _rows(declared.base_config, tensors)
    if vocabulary is None or rows is None:
        return [], []
    beyond = vocabulary.beyond(rows)
    own = _of_base(declared)
    if own is not None:
        beyond = {number: text for number, text in beyond.items() if own.beyond(rows).get(number) != text}
    if not beyond:
        return [], []
    listed = first(f"{number} ({shown(text)})" if text else str(number) for number, text in sorted(beyond.items()))
    what = f"has {count(len(beyond), 'token')} beyond the vocabulary of the model, which has {rows}: {listed}."
    if own is None and not _are_used(beyond, paths):
        return [], [f"{TOKENIZER_FILE} {what}"]
    remedy = (
        "The tokens were added for the training, but their embeddings are not in the adapter: deliver the tokenizer of the"
        " base, or train with embeddings that are saved (modules_to_save or trainable_token_indices)."
    )
    return [Problem(TOKENIZER_FILE, what, remedy, declared.name)], []


def _rows(base_config: dict[str, t.Any] | None, tensors: t.Iterable[TensorScan]) -> int | None:
    """Return the number of tokens of the model with the adapter, None if it is unknown."""
    size = vocabulary_size(base_config)
    saved = [tensor.shape[0] for tensor in tensors if tensor.name.endswith(_ROWS) and len(tensor.shape) == 2]
    return None if size is None else max([size, *saved])


def _of_base(declared: Declaration) -> Vocabulary | None:
    if not declared.base_path:
        return None
    try:
        # A snapshot in the Hub's cache consists of links.
        return read_vocabulary(os.path.realpath(os.path.join(declared.base_path, TOKENIZER_FILE)))
    except DeliveryError:
        return None


def _are_used(tokens: t.Mapping[int, str], paths: t.Mapping[str, str]) -> bool:
    """Return whether a special token or a chat template of the tokenizer has one of these texts."""
    texts = set(filter(None, tokens.values()))
    if len(texts) < len(tokens):
        # The model of the tokenizer has them, which any text can contain.
        return True
    used = ""
    for name, path in paths.items():
        if is_chat_template(name):
            with open(path, encoding="utf-8", errors="replace") as stream:
                used += stream.read(1 << 20)
    if TOKENIZER_CONFIG in paths:
        config = read_json_file(paths[TOKENIZER_CONFIG], "Save the tokenizer again.")
        for key in (*_SPECIAL, "chat_template"):
            used += shown(config.get(key)) if key in _SPECIAL else str(config.get(key))
    return any(text in used for text in texts)
