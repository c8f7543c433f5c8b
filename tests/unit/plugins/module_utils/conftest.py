# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for the tests of module_utils."""

from __future__ import annotations

import os
import pathlib
import tempfile
import typing as t

import pytest


@pytest.fixture
def other_file_system(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """An empty directory on another file system than tmp_path."""
    memory = pathlib.Path("/dev/shm")  # noqa: S108
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to write to")
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield pathlib.Path(directory)
