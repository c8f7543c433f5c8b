# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Forms of the values that hosts answer: types, keys and sizes.

``read`` of a form returns a copy of a value that consists of plain JSON types. So nothing that
Ansible attaches to values or parses from them, such as vaulted text, gets past a form.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import datetime
import json
import math
import re
import typing as t

import yaml  # type: ignore[import-untyped]
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import escaped


class UnexpectedForm(Exception):
    """A value does not have its form. ``key`` is where it is in the answer.

    ``problem`` is the end of a sentence about it.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key, self.problem = key, problem


class Form(t.Protocol):
    """Returns a value of this form as plain data. Raises UnexpectedForm for any other value."""

    def read(self, value: t.Any, key: str) -> t.Any: ...


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or false."""

    def read(self, value: t.Any, key: str) -> bool:
        if not isinstance(value, bool):
            raise UnexpectedForm(key, "is not true or false")
        return value


@dataclasses.dataclass(frozen=True)
class Integer:
    """An integer that 64 bits can hold."""

    def read(self, value: t.Any, key: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 63) <= value < 1 << 64:
            raise UnexpectedForm(key, "is not an integer")
        return int(value)


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number."""

    def read(self, value: t.Any, key: str) -> int | float:
        if isinstance(value, float) and math.isfinite(value):
            return float(value)
        if isinstance(value, float):
            raise UnexpectedForm(key, "is not a finite number")
        return Integer().read(value, key)


@dataclasses.dataclass(frozen=True)
class Exact:
    """Text that must arrive as it is, of at most ``limit`` characters.

    It must match ``pattern`` as a whole, and is never displayed before that.
    """

    limit: int = 4096
    pattern: re.Pattern[str] | None = None
    what: str = "text"

    def read(self, value: t.Any, key: str) -> str:
        if not isinstance(value, str) or (self.pattern and not self.pattern.fullmatch(value)):
            raise UnexpectedForm(key, f"is not {self.what}")
        if len(value) > self.limit:
            raise UnexpectedForm(key, f"is longer than {self.limit} characters")
        # Of this very type, also if Ansible has a type of its own for texts of hosts.
        return str.__str__(value)


@dataclasses.dataclass(frozen=True)
class Text:
    """Text for people, of at most ``limit`` characters. Control characters are escaped.

    It is one line unless ``lines`` is set.
    """

    limit: int = 1 << 14
    lines: bool = False

    def read(self, value: t.Any, key: str) -> str:
        return escaped(Exact(self.limit).read(value, key), kept="\n\t" if self.lines else "")


@dataclasses.dataclass(frozen=True)
class Output:
    """What a program printed. Of a long text, both ends are kept."""

    kept: int = 10_000

    def read(self, value: t.Any, key: str) -> str:
        if not isinstance(value, str):
            raise UnexpectedForm(key, "is not text")
        # On a terminal, which sudo may need, lines end like this.
        text = str.__str__(value).replace("\r\n", "\n")
        return escaped(text if len(text) <= 2 * self.kept else f"{text[: self.kept]}\n...\n{text[-self.kept :]}")


@dataclasses.dataclass(frozen=True)
class Time:
    """A time as ISO 8601 writes it; with its time zone if ``zone`` is set."""

    zone: bool = False

    def read(self, value: t.Any, key: str) -> str:
        try:
            time = datetime.datetime.fromisoformat(Exact(64).read(value, key))
        except ValueError:
            raise UnexpectedForm(key, "is not a time") from None
        if self.zone and time.tzinfo is None:
            raise UnexpectedForm(key, "is a time without a time zone")
        return time.isoformat()


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few texts."""

    values: tuple[str, ...]

    def read(self, value: t.Any, key: str) -> str:
        if value not in self.values or not isinstance(value, str):
            raise UnexpectedForm(key, f"is not one of {', '.join(self.values)}")
        return str.__str__(value)


@dataclasses.dataclass(frozen=True)
class Nullable:
    """A value of a form, or null."""

    form: Form

    def read(self, value: t.Any, key: str) -> t.Any:
        return None if value is None else self.form.read(value, key)


@dataclasses.dataclass(frozen=True)
class ListOf:
    """A list of at most ``limit`` values of one form."""

    form: Form
    limit: int = 10_000

    def read(self, value: t.Any, key: str) -> list[t.Any]:
        if not isinstance(value, list) or len(value) > self.limit:
            raise UnexpectedForm(key, f"is not a list of at most {self.limit} values")
        return [self.form.read(one, f"{key}[{number}]") for number, one in enumerate(value)]


@dataclasses.dataclass(frozen=True)
class DictOf:
    """A dictionary of at most ``limit`` values of one form, with any keys of another form."""

    form: Form
    keys: Form = dataclasses.field(default_factory=lambda: Text(256))
    limit: int = 10_000

    def read(self, value: t.Any, key: str) -> dict[str, t.Any]:
        if not isinstance(value, dict) or len(value) > self.limit:
            raise UnexpectedForm(key, f"is not a dictionary of at most {self.limit} values")
        return {
            self.keys.read(name, f"the keys of {key}"): self.form.read(one, f"{key}.{escaped(str(name)[:100])}")
            for name, one in value.items()
        }


@dataclasses.dataclass(frozen=True)
class Record:
    """A dictionary with known keys. Those of ``optional`` may be missing; others are dropped."""

    required: c.Mapping[str, Form]
    optional: c.Mapping[str, Form] = dataclasses.field(default_factory=dict)

    def read(self, value: t.Any, key: str = "") -> dict[str, t.Any]:
        if not isinstance(value, dict):
            raise UnexpectedForm(key or "the answer", "is not a dictionary")
        prefix = f"{key}." if key else ""
        for name in self.required:
            if name not in value:
                raise UnexpectedForm(f"{prefix}{name}", "is missing")
        known = {**self.required, **self.optional}
        return {name: form.read(value[name], f"{prefix}{name}") for name, form in known.items() if name in value}


def size_of(value: t.Any) -> int:
    """Return how many characters plain data has, with one for every value."""
    if isinstance(value, str):
        return len(value) + 1
    if isinstance(value, dict):
        return sum(size_of(key) + size_of(one) for key, one in value.items()) + 1
    return sum(map(size_of, value)) + 1 if isinstance(value, list) else 1


@dataclasses.dataclass(frozen=True)
class Data:
    """Any JSON value with at most ``limit`` values in it, at most ``depth`` levels deep."""

    limit: int = 10_000
    depth: int = 8

    def read(self, value: t.Any, key: str) -> t.Any:
        return self._copy(value, key, self.depth, [self.limit])

    def _copy(self, value: t.Any, key: str, depth: int, left: list[int]) -> t.Any:
        left[0] -= 1
        if depth < 0 or left[0] < 0:
            raise UnexpectedForm(key, f"has more than {self.limit} values or {self.depth} levels")
        if isinstance(value, list):
            return [self._copy(one, key, depth - 1, left) for one in value]
        if isinstance(value, dict):
            name = Text(256)
            return {name.read(one, key): self._copy(of, key, depth - 1, left) for one, of in value.items()}
        if isinstance(value, str):
            return Text(lines=True).read(value, key)
        if value is None or isinstance(value, bool):
            return value
        return Number().read(value, key)


_TEMPLATE = re.compile(r"\{[{%#]")


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows to paste into an inventory: YAML without templates, which Ansible would evaluate."""

    def read(self, value: t.Any, key: str) -> str:
        text = Text(lines=True).read(value, key)
        try:
            rows = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise UnexpectedForm(key, "is not YAML") from None
        if _TEMPLATE.search(json.dumps(Data().read(rows, key))):
            raise UnexpectedForm(key, "has a template")
        return text
