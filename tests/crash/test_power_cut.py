# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power cuts during the node's transaction on real file systems."""

from __future__ import annotations

import pathlib

import pytest

from tests.crash import disks
from tests.crash.conftest import Count
from tests.crash.scenarios import SCENARIOS
from tests.support.transactions import Method

pytestmark = pytest.mark.usefixtures("strace")

# These run on all file systems, which differ in what a flush makes durable. ext4 runs all
# scenarios.
ON_EVERY_KIND = ("take_over", "next_release")


@pytest.mark.parametrize("neighbour", [False, True], ids=["alone", "with a neighbour that flushes"])
@pytest.mark.parametrize(
    ("kind", "scenario"),
    [(kind, scenario) for kind in disks.KINDS for scenario in SCENARIOS if kind == "ext4" or scenario in ON_EVERY_KIND],
)
@pytest.mark.parametrize("method", ["exchange", "symlink"])
def test_transaction_power_cut_at_any_call_keeps_invariants(
    directory: pathlib.Path, method: Method, kind: str, scenario: str, neighbour: bool, count: Count
) -> None:
    reason = disks.why_not(kind)
    if reason:
        pytest.skip(reason)
    found = list(disks.violations(directory, kind, SCENARIOS[scenario], method, neighbour))
    count(f"power cuts on {kind}", len(found))
    assert len(found) > 5
    assert [what for each in found for what in each] == []
