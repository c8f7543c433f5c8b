# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the crash tests: they kill every mutant of the transaction."""

from __future__ import annotations

import pathlib

import pytest

from tests.crash import disks
from tests.crash.mutants import MUTANTS

pytestmark = pytest.mark.usefixtures("strace")


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(directory: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    reason = disks.why_not("ext4") if mutant.needs_disk else None
    if reason:
        pytest.skip(reason)
    mutant.mutate(monkeypatch)
    found = set()
    for what in mutant.harness(directory):
        found.update(what)
        if all(any(invariant in line for line in found) for invariant in mutant.invariants):
            return
    raise AssertionError(f"expected {mutant.invariants}, found {sorted(found)}")
