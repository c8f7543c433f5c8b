# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Check the types in a worker's result: what ran there may have been taken over by an adapter."""

from __future__ import annotations

import dataclasses
import typing as t

from .._levels import LEVELS
from .worker.protocol import LoadTestResult

_TYPES: dict[str, t.Callable[[t.Any], bool]] = {
    "None": lambda value: value is None,
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "dict[str, t.Any]": lambda value: isinstance(value, dict),
    "dict[str, str]": lambda value: isinstance(value, dict) and all(isinstance(one, str) for one in value.values()),
    "dict[str, float]": lambda value: isinstance(value, dict) and all(map(_TYPES["float"], value.values())),
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
}


def check_form(part: t.Any) -> None:
    """Raise TypeError if a field of a dataclass of ``worker.protocol`` has another type.

    Fields of these dataclasses that hold others of them are checked too.
    """
    if isinstance(part, LoadTestResult) and part.level not in (None, *LEVELS):
        raise TypeError("level")
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        nested = [one for one in parts if dataclasses.is_dataclass(one)]
        for one in nested:
            check_form(one)
        known = [_TYPES[name] for name in str(field.type).split(" | ") if name in _TYPES]
        if not (nested and len(nested) == len(parts)) and known and not any(has_type(value) for has_type in known):
            raise TypeError(field.name)
