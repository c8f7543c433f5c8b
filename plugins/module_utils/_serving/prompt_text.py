# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Token ids as text, for engines that take prompts as text only.

Tokenizers of Llama 3, Qwen, SmolLM and Mistral's Tekken are byte-level: each token of the
vocabulary is a string of bytes, in which a printable character stands for each byte (the table of
GPT-2). Others are not supported.
"""

from __future__ import annotations

import os
import typing as t

from .._errors import DeliveryError
from .._formats.strict_json import read_json_file
from .contract import Unsupported

_FILE = "tokenizer.json"
_LIMIT = 1 << 28


class Texts:
    """The tokens of a base whose directory is on this host. Raises Unsupported without it."""

    def __init__(self, base: str | None) -> None:
        if base is None or not os.path.isabs(base):
            raise Unsupported(f"takes prompts as text only, and the {_FILE} of its base is not known")
        path = os.path.join(base, _FILE)
        try:
            data = read_json_file(path, "", _LIMIT)
        except DeliveryError as exc:
            raise Unsupported(f"takes prompts as text only, and {path} {exc.problems[0].problem.rstrip('.')}") from exc
        self._pieces = _pieces(data, path)
        self._begin = _begin(data)
        self.size = len(self._pieces)

    def of(self, ids: t.Sequence[int]) -> str:
        """Return a prompt as text, without the token that the tokenizer itself puts before a text.

        Raises Unsupported for tokens that are no text together.
        """
        try:
            pieces = [self._pieces[token] for token in ids]
            return b"".join(pieces[1:] if pieces[:1] == [self._begin] else pieces).decode()
        except (KeyError, UnicodeDecodeError) as exc:
            raise Unsupported("takes prompts as text only, and these tokens are no text") from exc


def _pieces(data: t.Any, path: str) -> dict[int, bytes]:
    """Return the bytes of each token of a tokenizer.json."""
    try:
        kinds = {part.get("type") for part in (data["decoder"], *data["decoder"].get("decoders", ()))}
        if "ByteLevel" not in kinds:
            raise ValueError("its tokens are not byte-level")
        byte_of = {character: byte for byte, character in _characters().items()}
        pieces = {number: bytes(byte_of[character] for character in token) for token, number in data["model"]["vocab"].items()}
        # These are literal, and the vocabulary may have them, too.
        pieces.update((added["id"], added["content"].encode()) for added in data.get("added_tokens", ()))
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise Unsupported(f"takes prompts as text only, and {path} has another form ({type(exc).__name__} {exc})") from exc
    return pieces


def _begin(data: dict[str, t.Any]) -> bytes | None:
    """Return the token that the tokenizer puts before a text, None if it puts none there."""
    try:
        post = data.get("post_processor") or {}
        for part in (post, *post.get("processors", ())):
            if part.get("type") == "TemplateProcessing":
                special = part["single"][0].get("SpecialToken")
                return special["id"].encode() if special else None
    except (AttributeError, IndexError, KeyError, TypeError):
        # The engine then counts other tokens than there are, which its client compares.
        return None
    return None


def _characters() -> dict[int, str]:
    """Return the character that stands for each byte: itself if printable, else one above 255."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + n) for n, byte in enumerate(others)}}
