# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Make an engine serve releases: load, prove, switch, prove again, record, and the way back.

All of it happens in one call on the node, so a controller that goes away in the middle changes
nothing. A run that is killed leaves a journal, and the next one returns to what was recorded before
it goes on.

```text
load NAME@NEW -> list -> probe -> switch NAME -> list -> probe, plain and salted -> record -> unload
     |             |       |           |          |        |                          |
     +-------------+-------+           +----------+--------+--------------------------+
       unload NAME@NEW                   NAME back to OLD, prove it, unload NAME@NEW
```
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import typing as t

from .._errors import DeliveryError, Problem
from .._time import now
from .calls import Calls
from .contract import PROVES_NOTHING, Dead, EngineError, EngineState, Listed, NotFinite, Refused, Row, ServingEngine, new_salt
from .desired import SERVED, UNPROVED, Desired, Refusal, Served, read_desired, write_desired
from .journal import EnginePaths, Pending, clear_pending, read_pending, write_pending
from .names import release_at, release_in, versioned
from .probe import ProbeFailed, own_noise, prompts_of, rows_distance
from .prober import Answers, Prober, Proof
from .wanted import Outcome, ServingOptions, Wanted

_POLL_SECONDS = 0.2


class Server:
    """One engine, under its lock. ``begin`` first, then ``serve`` for each adapter."""

    def __init__(self, engine: ServingEngine, options: ServingOptions, paths: EnginePaths) -> None:
        self._engine = engine
        self._options = options
        self._paths = paths
        self._calls = Calls(engine, options.probe)
        self._prober = Prober(engine, self._calls, options)
        self._desired = Desired()
        self.state = EngineState()

    def begin(self) -> list[str]:
        """Wait for an engine that starts, and revert what a killed run left. Returns notes.

        Raises DeliveryError if the engine is not up, or has lost the files of an adapter.
        """
        self._desired = read_desired(self._paths)
        try:
            notes = self._come_up()
        except (EngineError, ProbeFailed, OSError) as exc:
            raise DeliveryError(self._problem(exc)) from exc
        # Answers that were in work when the last run ended have ended long ago.
        self._desired.lingering.clear()
        return [*self.state.warnings, *notes]

    def _come_up(self) -> list[str]:
        """Wait for the engine, and revert what a killed run left. Returns notes."""
        self._wait_until_up()
        rows = self.rows()
        self._check_roots(rows.values())
        return self._recover(rows)

    @property
    def lists_nothing(self) -> bool:
        """Return whether the engine has no list of its adapters."""
        return self._engine.proves == PROVES_NOTHING

    def rows(self) -> dict[str, Listed]:
        """Return the names that the engine has. Raises EngineError."""
        return self._calls.rows()

    def predict(self, wanted: Wanted) -> Outcome:
        """Return what ``serve`` would do if every probe passed. Reads only."""
        outcome = Outcome(wanted, predicted=True)
        try:
            rows, target = self._compare(wanted, outcome)
        except EngineError as exc:
            outcome.problems.append(self._problem(exc, wanted.name))
            return outcome
        except DeliveryError as exc:
            outcome.problems += exc.problems
            return outcome
        row, recorded = rows.get(target), self._desired.adapters.get(wanted.name)
        if row and recorded and self._leads_to(row, wanted) and recorded.root == wanted.directory:
            outcome.served = recorded
            return outcome
        outcome.changed = True
        old = self._served_before(wanted.name, target, rows)
        outcome.old_release = release_at(self._paths.store, wanted.name, rows[old].root) if old else None
        return outcome

    def read(self) -> None:
        """Read the state of the engine and what is recorded, and change nothing.

        Raises DeliveryError.
        """
        self._desired = read_desired(self._paths)
        try:
            self._read_state()
        except EngineError as exc:
            raise DeliveryError(self._problem(exc)) from exc

    def serve(self, wanted: Wanted) -> Outcome:
        """Make the engine serve a release. What goes wrong is in the outcome."""
        outcome = Outcome(wanted)
        self._calls.begin_probe()
        try:
            self._serve(wanted, outcome)
        except (EngineError, ProbeFailed, OSError) as exc:
            outcome.fail(self._problem(exc, wanted.name))
        except DeliveryError as exc:
            for problem in exc.problems:
                outcome.fail(problem)
        return outcome

    def serve_all(self, wanted: t.Sequence[Wanted]) -> list[Outcome]:
        """Serve several releases. After the engine has died, the rest is not tried."""
        outcomes: list[Outcome] = []
        for one in wanted:
            outcomes.append(self.serve(one))
            if outcomes[-1].problems and not self._calls.is_up():
                break
        self._remember(outcomes)
        return outcomes

    def prove(self, name: str, wanted: Wanted) -> tuple[dict[str, t.Any] | None, str | None]:
        """Probe a listed name for a release. Returns the figures, and why they prove less.

        Raises ProbeFailed and EngineError.
        """
        self._calls.begin_probe()
        try:
            proof = self._prober.probe(name, wanted)
            self._prober.check_cache(name, wanted, None)
        except NotFinite as exc:
            raise ProbeFailed(f"{name} {exc.message}") from exc
        return proof.figures, proof.why_unproved

    # The steps.

    def _serve(self, wanted: Wanted, outcome: Outcome) -> None:
        rows, target = self._compare(wanted, outcome)
        row, recorded = rows.get(target), self._desired.adapters.get(wanted.name)
        # A release that stayed loaded for a gateway may be the one to return to.
        returns = target != wanted.name and recorded and recorded.release != wanted.release and recorded.names[0] in rows
        if row is not None and self._leads_to(row, wanted) and not returns:
            self._confirm(wanted, target, outcome)
        else:
            self._change(wanted, rows, target, outcome)
        self._tidy(wanted, target, outcome)

    def _compare(self, wanted: Wanted, outcome: Outcome) -> tuple[dict[str, Listed], str]:
        """Return the list of the engine, and the name that it has to have for a release.

        Raises DeliveryError and Refused if it must not have it.
        """
        if wanted.name == self.state.base:
            raise DeliveryError.of(
                "",
                f"has the name of the base that {self._options.title} serves, whose requests it would take.",
                "Start the engine with another --served-model-name, or rename the adapter.",
                wanted.name,
            )
        rows, new = self.rows(), versioned(wanted.name, wanted.release)
        why_not = self._engine.why_not_switch() if self._options.alias else None
        if why_not:
            outcome.notes.append(f"{why_not} So a gateway has to lead {wanted.name} to {new}.")
        listed = rows.get(new)
        if listed is not None and not self._leads_to(listed, wanted):
            raise Refused(f"has {new} from {listed.root}, not from {wanted.directory}", f"Unload {new} from the engine.")
        return rows, self._target(wanted)

    def _confirm(self, wanted: Wanted, target: str, outcome: Outcome) -> None:
        """Prove a release that the engine has already."""
        with outcome.timed("probe"):
            proof = self._prober.probe(target, wanted)
            self._prober.check_cache(target, wanted, None)
        outcome.old_release = wanted.release
        recorded = self._desired.adapters.get(wanted.name)
        outcome.served = served = self._served(wanted, target, proof, wanted.release)
        outcome.changed = not served.same_as(recorded)
        self._record({wanted.name: served})

    def _change(self, wanted: Wanted, rows: t.Mapping[str, Listed], target: str, outcome: Outcome) -> None:
        """Bring a release into the engine, and the public name to it."""
        name, new = wanted.name, versioned(wanted.name, wanted.release)
        old = self._served_before(name, target, rows)
        old_root = rows[old].root if old else None
        outcome.old_release = release_at(self._paths.store, name, old_root)
        if target != name:
            # So an engine has two releases at most.
            rows = self._forget_earlier(wanted, target, outcome)
        public = rows.get(name)
        with outcome.timed("baseline"):
            before = self._prober.all_answers(rows, wanted)
            old_rows = self._calls.replayed(old, self._prober.questions(wanted, few=True)) if old else None
            if public and target == name:
                # Users have filled the prefix cache under this name; a short prompt would not.
                self._calls.next_token(name, prompts_of(wanted.golden, self.state.longest)[1], None)
        write_pending(self._paths, Pending(name, public.root if public else None, wanted.directory))
        step = _Step()
        try:
            if new not in rows:
                with outcome.timed("load"):
                    step.loaded = True
                    self._calls.load(new, wanted.directory)
            self._check_row(new, wanted)
            with outcome.timed("probe"):
                proof = self._prober.probe(new, wanted)
                self._prober.check_others(before, wanted, self._public_moved(wanted))
            if target == name:
                truth = self._calls.next_token(new, prompts_of(wanted.golden, self.state.longest)[1], new_salt())
                step.switched = True
                with outcome.timed("switch"):
                    self._calls.switch(name, wanted.directory)
                    self._check_row(name, wanted)
                with outcome.timed("probe_again"):
                    self._prober.probe(name, wanted, few=True)
                    self._prober.check_cache(name, wanted, truth)
            outcome.served = self._served(wanted, target, proof, outcome.old_release)
            self._record({name: outcome.served})
        except (EngineError, ProbeFailed, OSError) as exc:
            with outcome.timed("way_back"):
                said = self._way_back(wanted, step, public, old, old_rows, before, outcome, isinstance(exc, Dead))
            outcome.fail(self._problem(exc, name), said)
            return
        outcome.changed = True
        if step.switched and old_root and old_root != wanted.directory:
            self._desired.lingering[versioned(name, outcome.old_release or "before")] = old_root
        clear_pending(self._paths)

    def _way_back(
        self,
        wanted: Wanted,
        step: _Step,
        public: Listed | None,
        old: str | None,
        old_rows: list[Row] | None,
        before: Answers,
        outcome: Outcome,
        died: bool,
    ) -> str:
        """Return to what the engine served before, prove it, and say it in a sentence.

        An engine that has died is sent nothing more; the journal then lets the next run go back.
        """
        name, new = wanted.name, versioned(wanted.name, wanted.release)
        recorded = self._desired.adapters.get(name)
        if died:
            outcome.went_back = True
            outcome.old_release = recorded.release if recorded else None
            return self._after_restart(name)
        try:
            figure = ""
            if step.switched:
                self._bring_back(name, public)
            if step.loaded and new in self.rows():
                self._calls.unload(new)
            if old is not None and old_rows is not None:
                again = self._calls.replayed(old, self._prober.questions(wanted, few=True))
                if again is not None:
                    measured = rows_distance(old_rows, again)
                    if measured > own_noise(self._options.bound):
                        raise ProbeFailed(f"answers otherwise than before ({measured:.4f} away)")
                    figure = f", {measured:.4f} from its answers before"
            self._prober.check_others(before, wanted, self._public_moved(wanted))
            clear_pending(self._paths)
        except (EngineError, ProbeFailed, OSError) as exc:
            reason = str(exc)
            return f"The way back failed as well: {reason}. {self._options.restart}"
        outcome.went_back = True
        if old is None:
            return "The engine had no other release of it before, and has none now."
        again_or_still = "again" if step.switched else "still"
        return f"Release {outcome.old_release or old} is {again_or_still} served{figure}."

    def _after_restart(self, name: str) -> str:
        """Say what an engine that has died gets of an adapter when it starts again."""
        recorded = self._desired.adapters.get(name)
        kept = f"release {recorded.release}" if recorded else "none of its releases"
        return f"After the restart, the options in {self._paths.options} load {kept}."

    def _bring_back(self, name: str, public: Listed | None) -> None:
        """Return the public name to where it led before."""
        listed = self.rows().get(name)
        if public is None or public.root is None:
            if listed is not None and public is None:
                self._calls.unload(name)
            return
        if listed is None or listed.root != public.root or listed.generation != public.generation:
            self._calls.switch(name, public.root)

    def _forget_earlier(self, wanted: Wanted, target: str, outcome: Outcome) -> dict[str, Listed]:
        """Unload all releases but the wanted one and that before. Returns the list."""
        self._unload_others(wanted, target, {wanted.release, outcome.old_release}, outcome)
        recorded = self._desired.adapters.get(wanted.name)
        if recorded is not None and recorded.previous not in (None, wanted.release):
            self._record({wanted.name: dataclasses.replace(recorded, previous=None)})
        return self.rows()

    def _tidy(self, wanted: Wanted, target: str, outcome: Outcome) -> None:
        """Unload what nobody asks any more, once its answers have ended."""
        served = outcome.served
        if served is None:
            return
        # Without a gateway, the name of the adapter is the only one that users have.
        kept = set() if target == wanted.name else {served.release, served.previous}
        self._unload_others(wanted, target, kept, outcome)
        releases = {self._release_of(wanted.name, row) for row in self.rows().values()}
        if served.previous not in releases:
            outcome.served = served = dataclasses.replace(served, previous=None)
        self._record({wanted.name: served})

    def _unload_others(self, wanted: Wanted, target: str, kept: t.Container[str | None], outcome: Outcome) -> None:
        """Unload the names of an adapter but ``target`` and those of the releases ``kept``."""
        with outcome.timed("drain"):
            for listed, row in sorted(self.rows().items()):
                release = self._release_of(wanted.name, row)
                # Somebody else has loaded what is no release.
                if listed == target or release is None or release in kept:
                    continue
                if listed == wanted.name and self._options.alias:
                    continue
                idle = self._calls.ask(self._engine.wait_until_idle, listed, self._options.drain)
                self._calls.unload(listed)
                outcome.changed = True
                if not idle and row.root is not None and row.root != wanted.directory:
                    self._desired.lingering[listed] = row.root

    def _release_of(self, name: str, row: Listed) -> str | None:
        """Return the release that a listed name of an adapter has, None for other names."""
        release = release_in(name, row.name)
        if row.name != name and release is None:
            return None
        return release if row.root is None else release_at(self._paths.store, name, row.root)

    def _recover(self, rows: dict[str, Listed]) -> list[str]:
        """Revert the change that a killed run left, unless that run had recorded it."""
        pending = read_pending(self._paths)
        if pending is None:
            return []
        recorded = self._desired.adapters.get(pending.name)
        note = f"An earlier run ended while it changed {pending.name}. "
        if recorded is not None and recorded.root == pending.new_root:
            clear_pending(self._paths)
            return [f"{note}Its release was recorded already."]
        reverted = self._revert(pending, rows)
        clear_pending(self._paths)
        return [note + reverted]

    def _revert(self, pending: Pending, rows: t.Mapping[str, Listed]) -> str:
        """Return to what was served before, and say so in a sentence."""
        public = rows.get(pending.name)
        if pending.old_root is not None and (public is None or public.root != pending.old_root):
            if not os.path.isdir(pending.old_root):
                raise Refused(
                    f"served {pending.name} from {pending.old_root} before, which does not exist", self._options.restart
                )
            self._calls.switch(pending.name, pending.old_root)
        elif pending.old_root is None and public is not None and public.root == pending.new_root:
            self._calls.unload(pending.name)
        release = release_at(self._paths.store, pending.name, pending.new_root)
        new = release and versioned(pending.name, release)
        recorded = self._desired.adapters.get(pending.name)
        if new and new in self.rows() and (recorded is None or recorded.previous != release):
            self._calls.unload(new)
        return f"{pending.name} was returned to what it served before."

    def _wait_until_up(self) -> None:
        """Read the state of the engine as soon as it is up. Raises EngineError."""
        deadline = time.monotonic() + self._options.start
        while True:
            try:
                return self._read_state()
            except Dead:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def _read_state(self) -> None:
        self.state = self._calls.ask(self._engine.state)
        self._prober.longest = self.state.longest

    # What is recorded.

    def _served(self, wanted: Wanted, target: str, proof: Proof, before: str | None) -> Served:
        """Return the evidence for a release; ``before`` is the one that was served before."""
        recorded, previous = self._desired.adapters.get(wanted.name), None
        if target != wanted.name:
            previous = before if before not in (None, wanted.release) else recorded.previous if recorded else None
        return Served(
            release=wanted.release,
            digest=wanted.digest,
            root=wanted.directory,
            names=(target,),
            engine=self._engine.name,
            version=self.state.version,
            proof=UNPROVED if proof.why_unproved else SERVED,
            at=now(),
            why_unproved=proof.why_unproved,
            figures=proof.figures,
            converted=self._engine.converted_digest(wanted.directory),
            previous=previous if previous != wanted.release else None,
        )

    def _record(self, served: t.Mapping[str, Served]) -> None:
        """Record releases that the engine serves, by the names of their adapters, at once."""
        before = self._desired.adapters, self._desired.refused
        self._desired.adapters = {**self._desired.adapters, **served}
        self._desired.refused = {name: one for name, one in self._desired.refused.items() if name not in served}
        try:
            self._write()
        except (OSError, EngineError):
            self._desired.adapters, self._desired.refused = before
            raise

    def _remember(self, outcomes: t.Iterable[Outcome]) -> None:
        """Record why releases are not served, for those who ask later."""
        refused = {one.wanted.name: Refusal(one.wanted.release, now(), one.why) for one in outcomes if one.why}
        if refused:
            self._desired.refused.update(refused)
            # It is a problem already that the record cannot be written.
            with contextlib.suppress(OSError, EngineError):
                self._write()

    def _write(self) -> None:
        write_desired(self._paths, self._desired, self._engine.start_options(self._desired.rows()))

    # Probes.

    def _check_row(self, name: str, wanted: Wanted) -> None:
        """Raise Refused unless the engine lists a name with the wanted release."""
        row = self.rows().get(name)
        if row is None:
            raise Refused(f"accepted {name}, but does not list it")
        expected = self._engine.expected_generation(wanted.directory)
        if row.generation is not None and expected is not None and row.generation != expected:
            raise Refused(f"has {name} with other bytes than those of release {wanted.release}")
        if row.root is not None and os.path.normpath(row.root) != wanted.directory:
            raise Refused(f"lists {name} from {row.root}, not from {wanted.directory}")
        if row.parent is not None and self.state.base is not None and row.parent != self.state.base:
            raise Refused(f"lists {name} as an adapter of {row.parent}, not of {self.state.base}")

    def _leads_to(self, row: Listed, wanted: Wanted) -> bool:
        """Return whether a listed name has the wanted release, as far as the list tells."""
        expected = self._engine.expected_generation(wanted.directory)
        if row.generation is not None and expected is not None:
            return row.generation == expected
        if row.root is not None:
            # Not another way to the same directory, such as a served link: that may lead to another
            # release tomorrow, and an engine that keys its cache by the path would not notice.
            return os.path.normpath(row.root) == wanted.directory
        recorded = self._desired.adapters.get(wanted.name)
        return release_in(wanted.name, row.name) == wanted.release or (recorded is not None and recorded.root == wanted.directory)

    def _public_moved(self, wanted: Wanted) -> bool:
        """Return whether the public name has the wanted release already, or is gone."""
        row = self.rows().get(wanted.name)
        return row is None or self._leads_to(row, wanted)

    def _target(self, wanted: Wanted) -> str:
        """Return the name that users, or a gateway, ask for the release."""
        switches = self._options.alias and (self._engine.restarts or self._engine.why_not_switch() is None)
        return wanted.name if switches else versioned(wanted.name, wanted.release)

    def _served_before(self, name: str, target: str, rows: t.Mapping[str, Listed]) -> str | None:
        """Return the name that users, or a gateway, ask for an adapter now."""
        recorded = self._desired.adapters.get(name)
        names = [*(recorded.names if recorded else ()), *sorted((one for one in rows if release_in(name, one)), reverse=True)]
        names.insert(0 if target == name else len(names), name)
        return next((one for one in names if one in rows), None)

    def _check_roots(self, rows: t.Iterable[Listed]) -> None:
        """Raise Refused if the files of a listed adapter are gone: the engine may read them."""
        gone = [row for row in rows if row.root is not None and os.path.isabs(row.root) and not os.path.isdir(row.root)]
        if gone:
            listed = ", ".join(f"{row.name} from {row.root}" for row in gone)
            raise Refused(f"lists {listed}, which does not exist: it fails when it reads that again", self._options.restart)

    def _problem(self, exc: EngineError | ProbeFailed | OSError, adapter: str | None = None) -> Problem:
        if isinstance(exc, OSError):
            path = str(exc.filename or self._paths.root)
            return Problem(path, f"cannot be written: {exc.strerror}.", "Fix the problem and run again.", adapter)
        message = exc.message.rstrip(".")
        if isinstance(exc, Dead):
            return Problem(self._options.title, f"{message}.", self._options.restart, adapter)
        if isinstance(exc, NotFinite):
            return Problem(self._options.title, f"{message}.", f"Compare with docs/engines.md. {self._options.restart}", adapter)
        if isinstance(exc, EngineError):
            return Problem(self._options.title, f"{message}.", exc.remedy, adapter)
        return Problem(
            self._options.title, f"{message}.", "Compare what this engine makes of such adapters in docs/engines.md.", adapter
        )


@dataclasses.dataclass
class _Step:
    """How far a change got: whether the new name may be listed, and the public one moved."""

    loaded: bool = False
    switched: bool = False
