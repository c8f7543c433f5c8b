# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Exceptions of the load test's worker: what is wrong with an adapter, its base, or the device."""

from __future__ import annotations

import contextlib
import os
import typing as t

TRY_VERSIONS = "Try the versions of PEFT and transformers that the adapter was trained with."


class CannotRun(Exception):
    """Nothing can be tested on this host: ``kind`` is package, import, cuda or memory."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class CheckFailed(Exception):
    """A check of an adapter or its base failed."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class BaseCheckFailed(CheckFailed):
    """A check of a base failed; the adapter may be fine."""


class Shortage(Exception):
    """There is too little memory; adapter and base may be fine."""


@contextlib.contextmanager
def reading_base() -> t.Iterator[None]:
    """Turn a PermissionError for a file of the base into BaseCheckFailed."""
    try:
        yield
    except PermissionError as exc:
        problem = f"its base cannot be read by user {os.geteuid()}: {exc.filename}: {exc.strerror}."
        remedy = "Give this user read access to all files of the base, and search permission on the directories above."
        raise BaseCheckFailed(problem, remedy) from exc


def summary(exc: BaseException) -> str:
    """Return an exception in one line."""
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}".rstrip(". :")[:500]
