# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The checks of a preflight: what was found, and what to do about it."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._advisories import advisories_for
from .._errors import DeliveryError, Problem

OK = "ok"
WARNING = "warning"
FAILED = "failed"
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class Check:
    """One check of a host.

    ``state`` is ``WARNING`` for what does not stop a delivery, and ``UNKNOWN`` where something else
    that failed comes first. ``adapter`` is the adapter that is checked, if it is one.
    """

    check: str
    state: str
    found: str
    remedy: str = ""
    adapter: str | None = None

    def to_json(self) -> dict[str, str]:
        """As module preflight_info returns it in ``checks``."""
        return {"check": self.check, "state": self.state, "found": self.found, "remedy": self.remedy}

    def problem(self) -> Problem:
        return Problem(self.check, self.found, self.remedy, self.adapter)


class Checklist:
    """The checks of a host in the order in which they were made."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def add(self, check: str, state: str, found: str, remedy: str = "", adapter: str | None = None) -> None:
        self.checks.append(Check(check, state, found, remedy, adapter))

    def ok(self, check: str, found: str, adapter: str | None = None) -> None:
        self.add(check, OK, found, adapter=adapter)

    def unknown(self, check: str, found: str, adapter: str | None = None) -> None:
        self.add(check, UNKNOWN, found, adapter=adapter)

    def fail(self, check: str, problems: t.Iterable[Problem], state: str = FAILED, adapter: str | None = None) -> None:
        """Add a failure for each problem; one of ``WARNING`` if deliveries accept it."""
        for problem in problems:
            subject = "" if problem.subject in (check, f"adapter {problem.adapter}") else problem.subject
            found = f"{subject}: {problem.problem}" if subject else problem.problem
            self.add(check, state, found, problem.remedy, adapter or problem.adapter)

    @contextlib.contextmanager
    def checking(self, check: str, adapter: str | None = None) -> t.Iterator[None]:
        """Add a failure for each problem that the block raises, and continue after the block.

        The block adds the check itself if it passes.
        """
        try:
            yield
        except DeliveryError as exc:
            self.fail(check, exc.problems, adapter=adapter)
        except OSError as exc:
            where = f"{exc.filename}: " if exc.filename else ""
            remedy = "Run with become, or correct this on the host."
            self.add(check, FAILED, f"{where}{exc.strerror or exc}.", remedy, adapter)

    def versions(self, check: str, found: str, versions: t.Mapping[str, str]) -> None:
        """Add a check that passes, with a warning for each package that should be updated."""
        advisories = advisories_for(versions)
        if not advisories:
            self.ok(check, found)
        for advisory in advisories:
            text = f"{found}; {advisory.package} {versions[advisory.package]}: {advisory.reason}."
            self.add(check, WARNING, text, advisory.remedy)

    def failed(self, *checks: str) -> bool:
        """Return whether one of these checks has failed, or any check if none is named."""
        return any(one.state == FAILED for one in self.checks if not checks or one.check in checks)

    def problems(self) -> list[Problem]:
        return [one.problem() for one in self.checks if one.state == FAILED]

    def warnings(self) -> list[Problem]:
        return [one.problem() for one in self.checks if one.state == WARNING]

    def to_json(self) -> list[dict[str, str]]:
        return [one.to_json() for one in self.checks]
