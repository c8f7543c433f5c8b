# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The one family of errors that shared code raises; modules turn it into fail_json."""

from __future__ import annotations

import dataclasses
import typing as t


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong: which adapter (or part of the host), what, and what to do about it."""

    subject: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem} {self.remedy}".rstrip()

    def to_json(self) -> dict[str, str]:
        return dataclasses.asdict(self)


class DeliveryError(Exception):
    """Raised with one or more problems; C(str()) is the message that the operator reads."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems: tuple[Problem, ...] = problems

    @classmethod
    def of(cls, subject: str, problem: str, remedy: str = "") -> DeliveryError:
        return cls(Problem(subject, problem, remedy))

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    def to_json(self) -> list[dict[str, t.Any]]:
        return [problem.to_json() for problem in self.problems]
