# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The errors that shared code raises; ``DeliveryModule`` turns them into ``fail_json``."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing as t


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong: its subject, what is wrong with it, and what to do about it.

    ``adapter`` is the name of the adapter that it belongs to. ``subject`` is the part of that
    adapter or of the host. It is empty if the problem concerns the adapter as a whole.
    """

    subject: str
    problem: str
    remedy: str
    adapter: str | None = None

    @property
    def full_subject(self) -> str:
        """The subject after the name of the adapter, unless the subject (a path, often) has it."""
        # Whole names only: an adapter named "a" or "adapter" is not named by "adapter_config.json".
        if self.adapter is None or re.search(rf"(?<![\w.-]){re.escape(self.adapter)}(?![\w-])", self.subject):
            return self.subject
        return f"adapter {self.adapter}, {self.subject}" if self.subject else f"adapter {self.adapter}"

    def __str__(self) -> str:
        return f"{self.full_subject}: {self.problem} {self.remedy}".rstrip()

    def to_json(self) -> dict[str, str | None]:
        """As modules return it in ``problems``."""
        return {
            "adapter": self.adapter,
            "subject": self.full_subject,
            "problem": self.problem,
            "remedy": self.remedy,
        }


class DeliveryError(Exception):
    """Raised with one or more problems; ``str()`` is the message for the user."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems: tuple[Problem, ...] = problems

    @classmethod
    def of(cls, subject: str, problem: str, remedy: str = "", adapter: str | None = None) -> DeliveryError:
        return cls(Problem(subject, problem, remedy, adapter))

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    def to_json(self) -> list[dict[str, t.Any]]:
        return [problem.to_json() for problem in self.problems]


def attributed(adapter: str, problems: t.Iterable[Problem]) -> list[Problem]:
    """The problems with ``adapter`` set where they name none."""
    return [dataclasses.replace(problem, adapter=problem.adapter or adapter) for problem in problems]


@contextlib.contextmanager
def about(adapter: str) -> t.Iterator[None]:
    """Attribute every DeliveryError that passes through to an adapter."""
    try:
        yield
    except DeliveryError as exc:
        raise DeliveryError(*attributed(adapter, exc.problems)) from exc.__cause__


@contextlib.contextmanager
def collected(problems: list[Problem], adapter: str) -> t.Iterator[None]:
    """Append the problems of a DeliveryError to ``problems``, and continue after the block."""
    try:
        yield
    except DeliveryError as exc:
        problems += attributed(adapter, exc.problems)
