# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The figures of the fake engines: what a model with an adapter answers.

Every figure is a function of the base, of the bytes of the adapter and of the tokens before it.
Another release, or cached tokens that another adapter has computed, give other figures.
"""

from __future__ import annotations

import hashlib
import math
import pathlib
import struct
import typing as t

# That of the tests' tiny base.
VOCABULARY = 512
# A converted adapter: this, and the 32 bytes of `weights_in` of its release.
GGUF = b"GGUF"

# The widths of the logits of the base and of the effect of an adapter on them.
_BASE_WIDTH = 8.0
_EFFECT_WIDTH = 4.0

# What has computed a token: the digest of an adapter's files, or NONE for the base alone.
Weights = bytes
NONE: Weights = b""

Row = t.List[float]


def weights_in(directory: str | pathlib.Path) -> Weights:
    """Return the digest of the configuration and the weights of a release.

    Raises OSError for a missing file.
    """
    digest = hashlib.sha256()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        digest.update(hashlib.sha256(pathlib.Path(directory, name).read_bytes()).digest())
    return digest.digest()


def weights_in_gguf(path: str | pathlib.Path) -> Weights:
    """Return the digest in a converted adapter. Raises OSError or ValueError."""
    data = pathlib.Path(path).read_bytes()
    if not data.startswith(GGUF) or len(data) != len(GGUF) + 32:
        raise ValueError("no GGUF file")
    return data[len(GGUF) :]


class Model:
    """A base with any adapter."""

    def __init__(self, base: str | pathlib.Path, vocabulary: int = VOCABULARY) -> None:
        config = pathlib.Path(base, "config.json")
        self._base = hashlib.sha256(config.read_bytes()).digest() if config.is_file() else b"no configuration"
        self.vocabulary = vocabulary

    def next_token(self, ids: t.Sequence[int], computed_by: t.Sequence[Weights]) -> Row:
        """Return the log-probabilities of all tokens after ``ids``.

        ``computed_by`` names what has computed each of the tokens. A mixture has the effects of all
        in proportion, which is an answer of neither.
        """
        tokens = struct.pack(f"<{len(ids)}I", *ids)
        logits = self._row(b"base", tokens, _BASE_WIDTH)
        for weights in set(computed_by) - {NONE}:
            share = sum(one == weights for one in computed_by) / len(computed_by)
            effect = self._row(weights, tokens, _EFFECT_WIDTH)
            logits = [logit + share * value for logit, value in zip(logits, effect)]
        total = math.log(sum(map(math.exp, logits)))
        return [logit - total for logit in logits]

    def along(self, ids: t.Sequence[int], start: int, weights: Weights) -> list[Row]:
        """Return the log-probabilities of all tokens at each place from ``start`` on."""
        return [self.next_token(ids[:end], [weights] * end) for end in range(start, len(ids))]

    def continued(self, ids: t.Sequence[int], count: int, weights: Weights) -> list[int]:
        """Return the likeliest continuation, token by token."""
        found = list(ids)
        for _token in range(count):
            found.append(likeliest(self.next_token(found, [weights] * len(found))))
        return found[len(ids) :]

    def _row(self, key: bytes, tokens: bytes, width: float) -> Row:
        stream = hashlib.shake_256(self._base + key + tokens).digest(2 * self.vocabulary)
        return [width * value / 0xFFFF - width / 2 for value in struct.unpack(f"<{self.vocabulary}H", stream)]


def likeliest(row: t.Sequence[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)


def top(row: t.Sequence[float], count: int) -> list[int]:
    """Return the likeliest tokens, the likeliest first."""
    return sorted(range(len(row)), key=row.__getitem__, reverse=True)[:count]


def text_of(ids: t.Iterable[int]) -> str:
    """Return tokens as text: each is a word with a space before it."""
    return "".join(f" t{token}" for token in ids)


def tokens_of(text: str, vocabulary: int = VOCABULARY) -> list[int]:
    """Return a text as tokens, one for each word. Reads what ``text_of`` writes."""
    return [_token_of(word, vocabulary) for word in text.split()]


def _token_of(word: str, vocabulary: int) -> int:
    if word[0] == "t" and word[1:].isdigit():
        return int(word[1:]) % vocabulary
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % vocabulary
