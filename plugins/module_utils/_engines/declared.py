# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The engines of a node as the inventory declares them: the option ``engines``."""

from __future__ import annotations

import os
import typing as t

from .._errors import DeliveryError, Problem
from .._nearest import nearest
from .._text import shown
from .endpoint import KEYS, Endpoint, endpoint_of, endpoint_problems
from .installed import installed_version
from .rules.table import rules_of
from .verdicts import Engine


class DeclaredEngine(t.NamedTuple):
    """An engine of a node.

    ``version`` is the one that the inventory states, ``python`` the interpreter that the engine is
    installed for. ``endpoint`` is where it serves adapters, None for an engine without ``url``.
    """

    name: str
    version: str | None
    python: str | None
    settings: dict[str, t.Any]
    endpoint: Endpoint | None = None

    def on_this_host(self) -> tuple[Engine, Problem | None]:
        """Return the engine with the version that is installed, or else the declared one.

        Also returns the problem of an engine that is not where the inventory says.
        """
        rules = rules_of(self.name)
        installed = installed_version(self.python, rules.packages) if self.python else None
        missing = None
        if self.python and installed is None:
            assumed = f"version {self.version} is assumed" if self.version else "its version is not known"
            problem = f"{self.python} has no package {' or '.join(rules.packages)}, so {assumed}."
            missing = Problem(f"engine {rules.name}", problem, "Correct python of this engine in engines.")
        return Engine(self.name, installed or self.version, self.settings), missing


def declared_engines(value: t.Any, option: str) -> list[DeclaredEngine]:
    """Return the engines of a value of ``option``.

    Raises DeliveryError with all that is wrong with it, whose subject is ``option``.
    """
    entries = value if isinstance(value, list) else [] if value in (None, "") else [value]
    forms = [entry if isinstance(entry, dict) else {"name": entry} for entry in entries]
    problems = [problem for form in forms for problem in _problems(form, option)]
    if problems:
        raise DeliveryError(*problems)
    return [_engine(**form) for form in forms]


def _engine(name: str, version: str | None = None, python: str | None = None, **others: t.Any) -> DeclaredEngine:
    stated = {key: value for key, value in others.items() if value is not None}
    settings = {key: value for key, value in stated.items() if key not in KEYS}
    return DeclaredEngine(name, version, python, settings, endpoint_of(stated))


def _problems(form: dict[str, t.Any], option: str) -> t.Iterator[Problem]:
    name = form.get("name")
    if not isinstance(name, str):
        problem = f"has an engine without a name: {shown(form)}." if name is None else f"has {shown(name)} as an engine."
        yield Problem(option, problem, "Write the name of an engine, a dictionary with name, or a list of these.")
        return
    try:
        settings = rules_of(name).settings
    except DeliveryError as exc:
        [unknown] = exc.problems
        yield Problem(option, f"names {unknown.subject}, which {unknown.problem}", unknown.remedy)
        return
    known = ["name", "version", "python", *settings, *KEYS]
    for key, value in form.items():
        if key not in known:
            meant = nearest(str(key), known)
            remedy = f"Write {meant}." if meant else f"The keys of this engine are {', '.join(known)}."
            yield Problem(option, f"has the unknown key {key} for engine {name}.", remedy)
        elif value is None:
            continue
        elif key == "version" and not isinstance(value, str):
            # YAML reads 0.30 as the number 0.3.
            yield Problem(option, f"has version {shown(value)} for engine {name}, which is not text.", "Put it in quotes.")
        elif key == "python" and not (isinstance(value, str) and os.path.isabs(value)):
            yield Problem(option, f"has python {shown(value)} for engine {name}.", "Write the absolute path of an interpreter.")
        elif key in settings and not settings[key].fits(value):
            form_of = settings[key].form
            yield Problem(option, f"has {key} {shown(value)} for engine {name}, which is not {form_of}.", f"Write {form_of}.")
    yield from endpoint_problems(form, name, option)
