# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's transaction with a kill or a kernel error at every system call that matters."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths, make_store

from tests.crash.conftest import Count
from tests.crash.faults import EIO, ENOSPC, KILL, violations
from tests.crash.scenarios import SCENARIOS, Stage
from tests.crash.traced import calls_of, run_with_fault
from tests.support import invariants
from tests.support.transactions import Method

pytestmark = pytest.mark.usefixtures("strace")


@pytest.mark.parametrize("fault", [KILL, EIO, ENOSPC])
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("method", ["exchange", "symlink"])
def test_transaction_fault_at_any_call_keeps_invariants(
    directory: pathlib.Path, method: Method, scenario: str, fault: str, count: Count, pytestconfig: pytest.Config
) -> None:
    # Read errors in all scenarios would add about two thousand runs.
    every = pytestconfig.getoption("all_faults", default=False) or scenario == "take_over"
    found = list(violations(Stage(directory, SCENARIOS[scenario], method), fault, every))
    count(f"runs with {fault}", len(found) - 1)
    assert len(found) > 10
    assert [what for each in found for what in each] == []


@pytest.mark.parametrize(("method", "scenario"), [("exchange", "take_over"), ("exchange", "repair"), ("symlink", "other_method")])
def test_recovery_killed_at_any_call_keeps_invariants(
    directory: pathlib.Path, method: Method, scenario: str, count: Count
) -> None:
    """The first run is killed between a swap and the record of it, the next one at every call."""
    _ended, calls = calls_of(Stage(directory, SCENARIOS[scenario], method).run, ["renameat2", "fsync"], directory)
    swap = max(number for number, call in enumerate(calls) if call.name == "renameat2")
    shutil.rmtree(directory)
    directory.mkdir()
    stage = Stage(directory, SCENARIOS[scenario], method)

    def killed_before() -> None:
        assert run_with_fault(stage.run, calls[swap + 1], KILL).code is None
        assert list(stage.node.root.glob("incoming-*"))

    stage.prelude = killed_before
    found = list(violations(stage, KILL))
    count("runs killed after a killed one", len(found) - 1)
    assert [what for each in found for what in each] == []


def test_make_store_killed_at_any_call_has_right_modes(directory: pathlib.Path) -> None:
    """A narrow umask leaves no directory that other users cannot traverse."""
    paths = AdapterPaths(str(directory), str(directory / "store"), "adapter")

    def run() -> bool:
        os.umask(0o077)
        make_store(paths)
        return True

    _ended, calls = calls_of(run, ["mkdir", "chmod", "fsync"], directory)
    modes = invariants.listing(str(directory))
    assert len(calls) >= 12
    for call in calls:
        shutil.rmtree(directory / "store")
        assert run_with_fault(run, call, KILL).code is None
        make_store(paths)
        assert invariants.listing(str(directory)) == modes
