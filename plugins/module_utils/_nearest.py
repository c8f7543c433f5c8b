# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Finds the known name that somebody meant who wrote another one."""

from __future__ import annotations

import typing as t


def nearest(name: str, known: t.Iterable[str]) -> str | None:
    """Return the known name that is most like another one, if any is."""
    return next(iter(near(name, known, 1)), None)


def near(name: str, known: t.Iterable[str], most: int) -> list[str]:
    """Return the known names that are like another one, the most similar first."""
    # It takes milliseconds to load, and only mistakes need it.
    import difflib

    return difflib.get_close_matches(name, sorted(known), n=most)
