# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Serve by an engine that gets its adapters when it starts: all of them with one restart.

```text
prepare -> write the journal and the options -> restart -> probe all -> record all
   |                     |                         |           |           |
   +-- nothing changed   +-------------------------+-----------+-----------+
                           options of before, restart, compare answers with those of before
```
"""

from __future__ import annotations

import typing as t

from .contract import Dead, EngineError, Listed, NotFinite, Question, Refused, Row, ServingEngine
from .desired import Served, write_options
from .journal import EnginePaths, Pending, clear_pending, write_pending
from .names import release_directory, versioned
from .probe import ProbeFailed, own_noise, rows_distance
from .routine import Server
from .wanted import Outcome, ServingOptions, Wanted

_Rows = t.List[t.Tuple[str, str]]
_Failure = t.Union[EngineError, ProbeFailed, OSError]


def server_of(engine: ServingEngine, options: ServingOptions, paths: EnginePaths) -> Server:
    """Return the server for the way in which an engine gets its adapters."""
    return (RestartedServer if engine.restarts else Server)(engine, options, paths)


class _Before(t.NamedTuple):
    """What a name has answered before a restart."""

    questions: list[Question]
    rows: list[Row]


class RestartedServer(Server):
    """One engine that is started again for each change, under its lock."""

    # What this run has started it with.
    _started: _Rows | None = None

    def serve_all(self, wanted: t.Sequence[Wanted]) -> list[Outcome]:
        """Serve releases by an engine that gets its adapters when it starts."""
        outcomes = [Outcome(one) for one in wanted]
        for outcome in outcomes:
            recorded = self._desired.adapters.get(outcome.wanted.name)
            outcome.old_release = recorded.release if recorded else None
        try:
            listed = self.rows()
            fits = [self._has(one, listed) for one in wanted]
            rows = self._rows_with(wanted)
            if not all(fits):
                self._engine.prepare(rows)
        except EngineError as exc:
            # Nothing was changed.
            for outcome in outcomes:
                self._fail(
                    outcome, exc, self._after_restart(outcome.wanted.name) if isinstance(exc, Dead) else _said(outcome, "still")
                )
        else:
            if all(fits):
                self._confirm_all(outcomes)
            else:
                self._change_all(outcomes, fits, rows)
        self._remember(outcomes)
        return outcomes

    def rows(self) -> dict[str, Listed]:
        if not self.lists_nothing:
            return super().rows()
        # What it was started with.
        rows = self._desired.rows() if self._started is None else self._started
        return {name: Listed(name, root) for name, root in rows}

    def _has(self, wanted: Wanted, listed: t.Mapping[str, Listed]) -> bool:
        """Return whether the engine has a release already."""
        target = self._target(wanted)
        if target not in listed or not self._leads_to(listed[target], wanted):
            return False
        if not self.lists_nothing:
            return True
        # Only its answers tell whether it was started with these options.
        self._calls.begin_probe()
        try:
            self._prober.probe(target, wanted)
        except (NotFinite, ProbeFailed, Refused):
            return False
        return True

    def _confirm_all(self, outcomes: t.Sequence[Outcome]) -> None:
        """Prove releases that the engine has already."""
        for outcome in outcomes:
            try:
                served = self._proved(outcome)
                recorded = self._desired.adapters.get(outcome.wanted.name)
                outcome.changed = not served.same_as(recorded)
                outcome.served = served
                self._record({outcome.wanted.name: served})
            except (EngineError, ProbeFailed, OSError) as exc:
                # The release before may have stayed loaded.
                if outcome.old_release in (None, outcome.wanted.release):
                    outcome.fail(self._problem(exc, outcome.wanted.name))
                else:
                    self._fail(outcome, exc, _said(outcome, "still"))

    def _change_all(self, outcomes: t.Sequence[Outcome], fits: t.Sequence[bool], rows: _Rows) -> None:
        """Start the engine with other releases, and prove all of them."""
        before, recorded = self._desired.rows(), self._desired.adapters
        answers = [self._answers_before(outcome.wanted) for outcome in outcomes]
        new = [
            outcome.wanted
            for outcome in outcomes
            if outcome.wanted.name not in recorded or recorded[outcome.wanted.name].root != outcome.wanted.directory
        ]
        try:
            # If nothing is new, the engine gets what is recorded: there is nothing to revert.
            for one in new[:1]:
                write_pending(self._paths, Pending(one.name, None, one.directory))
            self._restart(rows)
            proved = {outcome.wanted.name: self._proved(outcome) for outcome in outcomes}
            self._record(proved)
            clear_pending(self._paths)
        except (EngineError, ProbeFailed, OSError) as exc:
            if new:
                self._go_back(outcomes, before, answers, exc)
            else:
                for outcome in outcomes:
                    outcome.fail(self._problem(exc, outcome.wanted.name))
            return
        for outcome, fitted in zip(outcomes, fits):
            outcome.served, outcome.changed = proved[outcome.wanted.name], not fitted

    def _proved(self, outcome: Outcome) -> Served:
        """Return the evidence for a release. Raises EngineError and ProbeFailed."""
        wanted, target = outcome.wanted, self._target(outcome.wanted)
        self._check_row(target, wanted)
        self._calls.begin_probe()
        with outcome.timed("probe"):
            return self._served(wanted, target, self._prober.probe(target, wanted), outcome.old_release)

    def _answers_before(self, wanted: Wanted) -> _Before | None:
        """Return what the engine answers for an adapter now, None if it does not tell."""
        recorded = self._desired.adapters.get(wanted.name)
        if recorded is None:
            return None
        self._calls.begin_probe()
        questions = self._prober.questions(wanted, few=True)
        try:
            rows = self._calls.replayed(recorded.names[0], questions)
        except EngineError:
            return None
        return None if rows is None else _Before(questions, rows)

    def _go_back(self, outcomes: t.Sequence[Outcome], rows: _Rows, answers: t.Sequence[_Before | None], exc: _Failure) -> None:
        """Start the engine with what it had before, and compare its answers."""
        figures = []
        try:
            self._restart(rows)
            for outcome, before in zip(outcomes, answers):
                figures.append(self._check_as_before(outcome.wanted.name, before))
            clear_pending(self._paths)
        except (EngineError, ProbeFailed, OSError) as wrong:
            for outcome in outcomes:
                self._fail(outcome, exc, f"The way back failed as well: {wrong}. {self._options.restart}", went_back=False)
            return
        for outcome, figure in zip(outcomes, figures):
            self._fail(outcome, exc, _said(outcome, "again", figure))

    def _check_as_before(self, name: str, before: _Before | None) -> str:
        """Return the distance from the answers of before as a clause. Raises ProbeFailed."""
        if before is None:
            return ""
        self._calls.begin_probe()
        again = self._calls.replayed(self._desired.adapters[name].names[0], before.questions)
        if again is None:
            return ""
        measured = rows_distance(before.rows, again)
        if measured > own_noise(self._options.bound):
            raise ProbeFailed(f"{name} answers otherwise than before ({measured:.4f} away)")
        return f", {measured:.4f} from its answers before"

    def _fail(self, outcome: Outcome, exc: _Failure, said: str, went_back: bool = True) -> None:
        """Say what went wrong with an adapter, and what is served."""
        outcome.fail(self._problem(exc, outcome.wanted.name), said)
        outcome.went_back = went_back

    def _rows_with(self, wanted: t.Sequence[Wanted]) -> _Rows:
        """Return the names and directories of these releases, and of the other adapters."""
        names = {one.name for one in wanted}
        others = [(name, served) for name, served in self._desired.adapters.items() if name not in names]
        return [
            *(row for name, served in others for row in served.rows(name)),
            *((self._target(one), one.directory) for one in wanted),
            *(row for one in wanted for row in self._row_before(one)),
        ]

    def _row_before(self, wanted: Wanted) -> _Rows:
        """Return the name and directory of the release that a gateway leads to until it follows."""
        recorded = self._desired.adapters.get(wanted.name)
        release = recorded and (recorded.previous if recorded.release == wanted.release else recorded.release)
        if self._target(wanted) == wanted.name or release in (None, wanted.release):
            return []
        name = t.cast(str, release)
        return [(versioned(wanted.name, name), release_directory(self._paths.store, wanted.name, name))]

    def _restart(self, rows: _Rows) -> None:
        """Start the engine with these names and directories: its unit reads the options."""
        write_options(self._paths, self._engine.start_options(rows))
        self._started = rows
        self._calls.ask(self._engine.restart, rows)
        self._wait_until_up()
        self._prober.forget_base()

    def _come_up(self) -> list[str]:
        # With the options of a run that was killed, the engine may not even start.
        notes = self._recover({})
        return [*notes, *super()._come_up()]

    def _revert(self, pending: Pending, rows: t.Mapping[str, Listed]) -> str:
        self._restart(self._desired.rows())
        return "The engine was started with what it served before."


def _said(outcome: Outcome, still: str, figure: str = "") -> str:
    if outcome.old_release is None:
        return "The engine had no release of it before, and has none now."
    return f"Release {outcome.old_release} is {still} served{figure}."
