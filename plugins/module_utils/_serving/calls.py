# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Calls of an engine, with a look at its list where an answer does not tell what happened."""

from __future__ import annotations

import time
import typing as t

from .contract import Busy, EngineError, Listed, NotFinite, Question, Refused, Row, ServingEngine, Slow, Unanswered, Unsupported

_PATIENCE = 60.0
_T = t.TypeVar("_T")


class Calls:
    """One engine, asked again only where it asks for that itself.

    ``probe_seconds`` is how long the questions about one adapter may occupy it.
    """

    def __init__(self, engine: ServingEngine, probe_seconds: float) -> None:
        self._engine = engine
        self._probe_seconds = probe_seconds
        self.begin_probe()

    def ask(self, method: t.Callable[..., _T], *arguments: t.Any) -> _T:
        """Call a method of the engine, and again as often as it asks to come back."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return method(*arguments)
            except Busy as exc:
                if time.monotonic() + exc.seconds >= deadline:
                    raise
                time.sleep(exc.seconds)

    def is_up(self) -> bool:
        """Return whether the engine answers at all."""
        try:
            self.ask(self._engine.state)
        except EngineError:
            return False
        return True

    def rows(self) -> dict[str, Listed]:
        """Return the list by names."""
        return {row.name: row for row in self.ask(self._engine.listed)}

    def load(self, name: str, directory: str) -> None:
        """Load a release under a name that is not listed."""
        try:
            self.ask(self._engine.load, name, directory)
        except (Unanswered, Refused):
            row = self.rows().get(name)
            if row is None or row.root != directory:
                raise

    def unload(self, name: str) -> None:
        """Remove a name."""
        try:
            self.ask(self._engine.unload, name)
        except (Unanswered, Refused):
            if name in self.rows():
                raise

    def switch(self, name: str, directory: str) -> None:
        """Make a name answer from another release."""
        try:
            self.ask(self._engine.switch, name, directory)
        except Unanswered:
            # The name may be gone, and nothing be loaded yet.
            row = self.rows().get(name)
            if row is None or row.root != directory:
                self.ask(self._engine.switch, name, directory)

    def next_token(self, name: str | None, prompt: t.Sequence[int], salt: str | None) -> dict[str, float] | None:
        """Return what users get, None if the engine does not tell."""
        try:
            return self.ask(self._engine.first_token, name, prompt, salt)
        except Unsupported:
            return None

    def begin_probe(self) -> None:
        """Give the questions about one adapter their time, which ``replay`` keeps."""
        self._deadline = time.monotonic() + self._probe_seconds

    def replay(self, name: str | None, questions: t.Sequence[Question]) -> list[Row]:
        """Return the answers of a name, None for the base, to questions. Raises Slow."""
        rows: list[Row] = []
        most = self._engine.most_questions
        for number in range(0, len(questions), most):
            if time.monotonic() >= self._deadline:
                raise Slow(
                    f"did not answer the questions of a probe within {self._probe_seconds:g} seconds",
                    "Run again when it is less busy, or raise probe_timeout of this engine.",
                )
            rows += self.ask(self._engine.log_probabilities, name, questions[number : number + most])
        return rows

    def replayed(self, name: str, questions: t.Sequence[Question]) -> list[Row] | None:
        """Return the answers of a name that need not be right, None if it gives none in time."""
        try:
            return self.replay(name, questions)
        except (Refused, NotFinite, Slow):
            return None
