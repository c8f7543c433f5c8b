# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Ask an engine for the proof that a name answers from a release, and others as before."""

from __future__ import annotations

import typing as t

from .calls import Calls
from .contract import Listed, NotFinite, Question, Refused, Row, ServingEngine, Unsupported, new_salt
from .names import versioned
from .probe import (
    ProbeFailed,
    check_differs,
    check_golden,
    distance,
    own_noise,
    prompts_of,
    questions_of,
    some_of,
)
from .wanted import ServingOptions, Wanted

_NO_GOLDEN = "It has no golden. Record one on the training server with adapter_golden and deploy again."

# The answers of all names that an engine has, and of its base (None).
Answers = t.Dict[t.Optional[str], t.Optional[t.Dict[str, float]]]


class Proof(t.NamedTuple):
    """The figures of a probe, and why it proves less than a golden does."""

    figures: dict[str, t.Any] | None
    why_unproved: str | None


class Prober:
    """Probes of one engine. ``longest`` is the most tokens that a request may have."""

    def __init__(self, engine: ServingEngine, calls: Calls, options: ServingOptions) -> None:
        self._engine = engine
        self._calls = calls
        self._options = options
        self.longest: int | None = None
        self._base_rows: dict[Question, Row] = {}

    def forget_base(self) -> None:
        """Ask the base again: the engine has been restarted."""
        self._base_rows.clear()

    def probe(self, name: str, wanted: Wanted, few: bool = False) -> Proof:
        """Ask a name for a release, with ``few`` questions where another name has proved it.

        Raises ProbeFailed, and NotFinite.
        """
        questions = self.questions(wanted, few)
        try:
            off = self._base(questions)
            on = self._calls.replay(name, questions)
            check_differs(on, off)
        except Unsupported as exc:
            self._check_weakly(name, wanted)
            return Proof(None, f"The engine {exc.message}.")
        except ProbeFailed as exc:
            raise ProbeFailed(f"{name} {exc.message}") from exc
        if wanted.golden is None:
            return Proof(None, _NO_GOLDEN)
        if not questions_of(wanted.golden, self.longest):
            return Proof(None, f"The engine takes {self.longest} tokens, fewer than the prompts of the golden have.")
        try:
            figures = check_golden(wanted.golden, questions, on, off, self._options.bound)
        except ProbeFailed as exc:
            raise ProbeFailed(f"{name} {exc.message}") from exc
        return Proof(figures.to_json(), None)

    def _check_weakly(self, name: str, wanted: Wanted) -> None:
        short = prompts_of(wanted.golden, self.longest)[0]
        here, base = (self._calls.next_token(model, short, None) for model in (name, None))
        if here is not None and here == base:
            raise ProbeFailed(f"{name} answers exactly as its base does: the engine has taken the adapter, but does not apply it")

    def check_cache(self, name: str, wanted: Wanted, truth: t.Mapping[str, float] | None) -> None:
        """Ask what users get: the prompt of before the switch, with the prefix cache and without.

        ``truth`` is the answer of the release under a name that no other release had. Raises
        ProbeFailed.
        """
        prompt, noise = prompts_of(wanted.golden, self.longest)[1], own_noise(self._options.bound)
        plain, salted = (self._calls.next_token(name, prompt, salt) for salt in (None, new_salt()))
        if plain is None or salted is None:
            return
        if truth is not None and distance(truth, salted) > noise:
            away = distance(truth, salted)
            raise ProbeFailed(f"{name} answers otherwise than {versioned(name, wanted.release)} ({away:.4f} away)")
        if distance(salted, plain) > noise:
            away = distance(salted, plain)
            raise ProbeFailed(
                f"{name} answers from the prefix cache of another release ({away:.4f} away from answers without it)"
            )

    def all_answers(self, rows: t.Mapping[str, Listed], wanted: Wanted) -> Answers:
        """Return the answers of the base and of all names, None for those that do not answer."""
        short = prompts_of(wanted.golden, self.longest)[0]
        found: Answers = {}
        for name in (None, *sorted(rows)):
            try:
                found[name] = self._calls.ask(self._engine.first_token, name, short, None)
            except (NotFinite, Refused):
                found[name] = None
        return found

    def check_others(self, before: Answers, wanted: Wanted, moved: bool) -> None:
        """Raise ProbeFailed if the base or another name answers otherwise than before.

        ``moved`` is whether the public name of the adapter is meant to answer otherwise.
        """
        short, noise = prompts_of(wanted.golden, self.longest)[0], own_noise(self._options.bound)
        for name, answer in before.items():
            if answer is None or (moved and name == wanted.name):
                continue
            title = "the base" if name is None else name
            try:
                away = distance(answer, self._calls.ask(self._engine.first_token, name, short, None))
            except (NotFinite, Refused) as exc:
                raise ProbeFailed(f"{title} {exc.message}, and did not before. {self._options.restart}") from exc
            if away > noise:
                raise ProbeFailed(f"{title} answers otherwise than before ({away:.4f} away). {self._options.restart}")

    def _base(self, questions: t.Sequence[Question]) -> list[Row]:
        unknown = [one for one in questions if one not in self._base_rows]
        self._base_rows.update(zip(unknown, self._calls.replay(None, unknown)))
        return [self._base_rows[one] for one in questions]

    def questions(self, wanted: Wanted, few: bool = False) -> list[Question]:
        """Return the questions of a probe, weaker ones if the engine has no room for the golden."""
        questions = questions_of(wanted.golden, self.longest) or questions_of(None, None)
        return some_of(questions) if few else questions
