# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What an engine is to serve, how it is told, and what became of it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import typing as t

from .._errors import Problem
from .._golden.golden import Golden
from .desired import Served


class ServingOptions(t.NamedTuple):
    """How one engine is made to serve.

    ``title`` names it in messages. ``alias`` is whether it gets the public names. ``bound`` is how
    far its right answers may be from PEFT's. ``drain``, ``start`` and ``probe`` are in seconds.
    ``restart`` is a sentence on how to restart it.
    """

    title: str
    alias: bool
    bound: float
    drain: float
    start: float
    probe: float
    restart: str


class Wanted(t.NamedTuple):
    """A release that an engine is to serve. ``directory`` is its path in the store."""

    name: str
    release: str
    digest: str
    directory: str
    golden: Golden | None


@dataclasses.dataclass
class Outcome:
    """What became of a wanted release.

    ``served`` is what the engine serves now, None if that is not the wanted release. ``went_back``
    is whether the release before it is served, as far as there was one. ``predicted`` is whether
    nothing was done: then ``changed`` is what would be. ``why`` is a sentence on why the release is
    not served. ``seconds`` are those of each step.
    """

    wanted: Wanted
    served: Served | None = None
    changed: bool = False
    went_back: bool = False
    predicted: bool = False
    old_release: str | None = None
    why: str | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    problems: list[Problem] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def fail(self, problem: Problem, said: str = "") -> None:
        """Add a problem, and say what is served now."""
        self.served = None
        self.why = problem.problem
        self.problems.append(dataclasses.replace(problem, problem=f"{problem.problem} {said}".rstrip()))

    @contextlib.contextmanager
    def timed(self, step: str) -> t.Iterator[None]:
        """Add the seconds of a block."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = round(self.seconds.get(step, 0.0) + time.monotonic() - start, 3)
