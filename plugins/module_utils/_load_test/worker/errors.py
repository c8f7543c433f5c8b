# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Part of the load test's program (C(_load_worker)): what is said against an adapter, its base or the room there is."""

from __future__ import annotations

import contextlib
import os
import typing as t

TRY_VERSIONS = "Try with the versions of PEFT and transformers that it was trained with."


class Refused(Exception):
    """One thing that is wrong with an adapter or its base."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class BaseRefused(Refused):
    """One thing that is wrong with a base: it says nothing of the adapter."""


class Shortage(Exception):
    """Memory does not suffice: it says nothing of the adapter nor of its base."""


@contextlib.contextmanager
def reading_base() -> t.Iterator[None]:
    """Makes a BaseRefused of what the user of this process may not read of a base."""
    try:
        yield
    except PermissionError as exc:
        problem = f"its base cannot be read by user {os.geteuid()}: {exc.filename}: {exc.strerror}."
        raise BaseRefused(problem, "Let this user read the whole base, and pass through all directories above it.") from exc


def in_words(exc: BaseException) -> str:
    """An exception in one line."""
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}".rstrip(". :")[:500]
