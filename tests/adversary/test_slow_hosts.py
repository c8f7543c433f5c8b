# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that do not answer: a task of theirs ends all the same."""

from __future__ import annotations

import re
import typing as t

import pytest

from tests.support.fleet import CLEANER_3B, DESCRIBER_3B, Fleet
from tests.support.hostile import rewrite_answers

pytestmark = pytest.mark.slow

# The words of ansible-core since 2.19, and those of 2.18.
TIMED_OUT = r"Timed out after {0} second|expected time frame \({0}\)"

Silence = t.Callable[[str, str], None]


@pytest.fixture
def silence(fleet: Fleet) -> t.Iterator[Silence]:
    """Let a module never return on a host."""
    ended = fleet.root / "ended"

    def silence(host: str, module: str) -> None:
        code = f"""
        import os, time
        # Bounded, should this test be killed.
        for _ in range(3000 if module == {module!r} else 0):
            if os.path.exists({str(ended)!r}):
                break
            time.sleep(0.1)
        return result
        """
        rewrite_answers(fleet, host, code)

    yield silence
    ended.touch()


def test_node_that_does_not_answer_fails_alone(fleet: Fleet, silence: Silence) -> None:
    silence("jw3-1", "adapter_up_to_date_info")
    fleet.hosts["jw3-1"]["agent_task_timeout"] = 20
    done = fleet.run("deploy")
    assert done.rc == 2, done.output
    [message] = done.failures("jw3-1")
    assert re.search(TIMED_OUT.format(20), message)
    assert fleet.reported("jw2-1", CLEANER_3B)["verified"]
    assert fleet.reported("jw3-1", DESCRIBER_3B)["state"] == "failed"


def test_training_server_that_does_not_answer_ends_the_run(fleet: Fleet, silence: Silence) -> None:
    silence("sbs29", "adapter_info")
    fleet.groups["agents"]["agent_task_timeout"] = 10
    done = fleet.run("deploy")
    assert done.rc == 2, done.output
    for node in ("jw2-1", "jw3-1"):
        [message] = done.failures(node)
        assert re.search(TIMED_OUT.format(10), message)
