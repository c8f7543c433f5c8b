# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""JSON as a checker must read it: what other readers understand differently, or only some refuse, is refused."""

from __future__ import annotations

import json
import math
import typing as t

from .._errors import DeliveryError
from .._files import open_regular

# Real configurations are a few kB.
MAX_CONFIG = 1 << 20


class _Refused(ValueError):
    """Why a text was refused; its message ends up in a DeliveryError."""


def parse_object(data: bytes, subject: str, remedy: str, naturals_only: bool = False) -> dict[str, t.Any]:
    """Return the one JSON object that C(data) holds.

    Refused are duplicate keys, NaN and infinite numbers, a byte order mark, lone surrogates, and everything that is
    not an object. With C(naturals_only) no other numbers than 0, 1, 2 ... pass.
    Raises DeliveryError about C(subject), with C(remedy).
    """
    try:
        if data.startswith(b"\xef\xbb\xbf"):
            raise _Refused("begins with a byte order mark")
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_natural if naturals_only else _integer,
            parse_float=_no_float if naturals_only else _finite,
        )
        # JSON can spell half of a character, which no UTF-8 text can hold.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _Refused as exc:
        raise DeliveryError.of(subject, f"{exc}.", remedy) from exc
    except (ValueError, RecursionError) as exc:
        raise DeliveryError.of(subject, f"is not valid JSON: {str(exc)[:200]}.", remedy) from exc
    if not isinstance(value, dict):
        raise DeliveryError.of(subject, f"is a JSON {type(value).__name__}, expected an object.", remedy)
    return value


def read_object(path: str, remedy: str, most: int = MAX_CONFIG) -> dict[str, t.Any]:
    """Return the JSON object in a plain file of at most C(most) bytes. Raises DeliveryError, also when it cannot be read."""
    with open_regular(path) as stream:
        # A raw stream may give less than it was asked for, so it is read to its end.
        data = b""
        while len(data) <= most and (more := stream.read(most)):
            data += more
    if len(data) > most:
        raise DeliveryError.of(path, f"is larger than {most} bytes, which no configuration is.", remedy)
    return parse_object(data, path, remedy)


def is_integer(value: t.Any) -> t.TypeGuard[int]:
    """Whether a value that was read is an integer: not C(true) or C(false), which are integers to Python."""
    return isinstance(value, int) and not isinstance(value, bool)


def _unique(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    result: dict[str, t.Any] = {}
    for key, value in pairs:
        if key in result:
            raise _Refused(f"has the key {ascii(key)[:100]} twice")
        result[key] = value
    return result


def _no_constant(text: str) -> t.NoReturn:
    raise _Refused(f"has the value {text}, which is no JSON")


def _integer(text: str) -> int:
    # Far longer ones take old versions of Python minutes; tokenizers say 10^30 where they mean no limit.
    if len(text) > 40:
        raise _Refused(f"has the number {text[:20]}..., which is too large")
    return int(text)


def _natural(text: str) -> int:
    if text.startswith("-"):
        raise _Refused(f"has the number {text[:40]} where only 0, 1, 2 ... are allowed")
    return _integer(text)


def _no_float(text: str) -> t.NoReturn:
    raise _Refused(f"has the number {text[:40]} where only 0, 1, 2 ... are allowed")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"has the number {text[:40]}, which is too large")
    return value
