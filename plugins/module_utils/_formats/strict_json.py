# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Strict JSON: rejects everything that other readers interpret differently, or that some reject."""

from __future__ import annotations

import json
import math
import re
import typing as t

from .._errors import DeliveryError
from .._files import open_regular
from .._text import shown
from .file_kinds import kind_of

# Real configurations are a few kB.
MAX_CONFIG = 1 << 20
# The largest tokenizer.json, of Gemma 3, has 33 MB.
# The largest tokenizers have about 40 MB. Parsed, JSON takes up to twenty times its size.
MAX_DATA = 1 << 26
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Rejected(ValueError):
    """The reason why a text is rejected; becomes the message of a DeliveryError."""


def parse_object(data: bytes, subject: str, remedy: str) -> dict[str, t.Any]:
    """Return the JSON object in ``data``.

    Raises DeliveryError about ``subject`` for duplicate keys, NaN and infinite numbers, a byte
    order mark, lone surrogates, and everything that is not an object. Its remedy is ``remedy``,
    unless the data begins like another kind of file, such as a Git LFS pointer.
    """
    other = kind_of(data)
    if other is not None:
        raise DeliveryError.of(subject, f"{other.what}; expected JSON.", other.remedy)
    try:
        if data.startswith(b"\xef\xbb\xbf"):
            raise _Rejected("begins with a byte order mark")
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
        # JSON can contain an escaped half of a surrogate pair, which UTF-8 cannot represent.
        if _ESCAPED_SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _Rejected as exc:
        raise DeliveryError.of(subject, f"{exc}.", remedy) from exc
    except (ValueError, RecursionError) as exc:
        raise DeliveryError.of(subject, f"is not valid JSON: {str(exc)[:200]}.", remedy) from exc
    if not isinstance(value, dict):
        raise DeliveryError.of(subject, f"is a JSON {type(value).__name__}; expected an object.", remedy)
    return value


def read_object(path: str, remedy: str, limit: int = MAX_CONFIG) -> dict[str, t.Any]:
    """Return the JSON object in a plain file of at most ``limit`` bytes. Raises DeliveryError."""
    return parse_object(_read(path, remedy, limit), path, remedy)


def read_json_file(path: str, remedy: str, limit: int = MAX_DATA) -> t.Any:
    """Return the JSON value in a plain file that any reader takes. Raises DeliveryError.

    For large files of other tools, such as vocabularies, whose keys may be any text.
    """
    data = _read(path, remedy, limit)
    other = kind_of(data)
    if other is not None:
        raise DeliveryError.of(path, f"{other.what}; expected JSON.", other.remedy)
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise DeliveryError.of(path, f"is not valid JSON: {str(exc)[:200]}.", remedy) from exc


def _read(path: str, remedy: str, limit: int) -> bytes:
    with open_regular(path) as stream:
        # A raw stream may return less than requested, so read to the end.
        parts, size = [], 0
        while size <= limit and (more := stream.read(limit)):
            parts.append(more)
            size += len(more)
    if size > limit:
        raise DeliveryError.of(path, f"is larger than {limit} bytes, too large for such a file.", remedy)
    return b"".join(parts)


def is_integer(value: t.Any) -> t.TypeGuard[int]:
    """Return whether a parsed value is an integer. Python counts ``True`` and ``False`` as such."""
    return isinstance(value, int) and not isinstance(value, bool)


def _unique(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        # Only now, since most objects are those of tensors and files: thousands without mistakes.
        seen: set[str] = set()
        for key, _value in pairs:
            if key in seen:
                raise _Rejected(f"has the key {shown(key)} twice")
            seen.add(key)
    return result


def _no_constant(text: str) -> t.NoReturn:
    raise _Rejected(f"has the value {text}, which is not valid JSON")


def _integer(text: str) -> int | float:
    # Not an integer for Rust's readers either, such as that of safetensors.
    if text == "-0":
        return -0.0
    # Old versions of Python take minutes to parse huge numbers. Tokenizers use 10^30 for no limit.
    if len(text) > 40:
        raise _Rejected(f"has the number {text[:20]}..., which is too large")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Rejected(f"has the number {text[:40]}, which is too large")
    return value
