# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What unit and integration tests share."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import typing as t

import hypothesis
import pytest

from tests import fuzz, tiny_adapters
from tests import sshd as sshd_server

# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("lorafleet", deadline=None, max_examples=50)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=fuzz.EXAMPLES)
hypothesis.settings.load_profile("lorafleet")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[sshd_server.Server]:
    """A real ssh server on the loopback interface that only this run's key can log in to, as the user of this run."""
    lacking = sshd_server.lacking()
    if lacking:
        pytest.skip(lacking)
    directory: pathlib.Path = tmp_path_factory.mktemp("sshd")
    with sshd_server.running(directory) as server:
        yield server


@pytest.fixture
def file_system(tmp_path: pathlib.Path) -> t.Iterator[t.Callable[[str], pathlib.Path]]:
    """Mounts an empty file system with the options of tmpfs that are given, for the time of the test."""
    with contextlib.ExitStack() as mounted:

        def mount(options: str) -> pathlib.Path:
            path = tmp_path / "mounted"
            path.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options, "none", path]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", path], check=True)
            return path

        yield mount


@pytest.fixture(scope="session")
def tiny() -> pathlib.Path:
    """The directory with base/ and the adapters. Shared and kept between runs: read it, never write to it."""
    return tiny_adapters.cached()
