# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import select
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving import commands
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.contract import Refused

_LIMIT = 30


@pytest.fixture
def pipe(tmp_path: pathlib.Path) -> t.Iterator[int]:
    """The end of the pipe ``tmp_path/pipe`` that is read."""
    os.mkfifo(tmp_path / "pipe")
    descriptor = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


def arrives(pipe: int, event: int) -> bool:
    poll = select.poll()
    poll.register(pipe, event)
    return any(found & event for _descriptor, found in poll.poll(1000 * _LIMIT))


@pytest.mark.parametrize("key", ["restart", "convert"])
def test_command_that_is_overdue_ends_with_all_that_it_has_started(
    pipe: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    class OverdueOnceBegun(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: t.Optional[float] = None) -> int:
            assert arrives(pipe, select.POLLIN)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", OverdueOnceBegun)
    # Both the shell and its child have the pipe, and neither ends by itself.
    script = f"exec 3>{tmp_path}/pipe; sleep 600 & echo begun >&3; wait"
    with pytest.raises(Refused, match="/bin/sh did not end within 0 seconds") as raised:
        commands.run(["/bin/sh", "-c", script], 0, key)
    assert raised.value.remedy == f"Correct {key} of this engine in engines."
    assert arrives(pipe, select.POLLHUP)


def test_command_that_does_not_even_end_when_killed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    class Stuck(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: t.Optional[float] = None) -> int:
            waits.append(timeout)
            raise subprocess.TimeoutExpired("stuck", timeout or 0)

    monkeypatch.setattr(subprocess, "Popen", Stuck)
    with pytest.raises(Refused, match="did not end within 1 seconds"):
        commands.run(["/bin/true"], 1, "restart")
    assert len(waits) == 2 and None not in waits
