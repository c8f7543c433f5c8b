# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's transaction on a file system without exchange, such as NFS, simulated by strace."""

from __future__ import annotations

import os
import pathlib

import pytest

from tests.crash.scenarios import SCENARIOS, Stage
from tests.crash.traced import Ended, run_traced
from tests.support.releases import release_of
from tests.support.transactions import Method

pytestmark = pytest.mark.usefixtures("strace")


def run(stage: Stage) -> Ended:
    return run_traced(stage.run, "-o", "/dev/null", "-e", "trace=renameat2", "-e", "inject=renameat2:error=EINVAL")


@pytest.mark.parametrize("scenario", ["first", "next_release", "roll_back", "repair"])
def test_auto_without_exchange_uses_symlink(directory: pathlib.Path, scenario: str) -> None:
    stage = Stage(directory, SCENARIOS[scenario], "symlink")
    stage.method = "auto"
    ended = run(stage)
    stage.method = "symlink"
    assert ended.code == 0, ended.message
    assert stage.violations(ended) == []
    assert stage.violations_after_another_run() == []
    assert os.readlink(stage.node.served).endswith(release_of(2))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("auto", "is a plain directory, and this file system cannot exchange it"),
        ("symlink", "is a plain directory, and this file system cannot exchange it"),
        ("exchange", "cannot be exchanged in one step"),
    ],
)
def test_take_over_without_exchange_is_error(directory: pathlib.Path, method: Method, message: str) -> None:
    stage = Stage(directory, SCENARIOS["take_over"], method)
    ended = run(stage)
    assert ended.code == 1
    assert message in ended.message
    assert stage.violations(ended) == []
    # The staged release is kept for the next run.
    assert stage.node.junk() == sorted(["neighbour", release_of(2)])
