# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which directories are in use, and whether all processes are visible."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._linux.open_files import in_use


def test_in_use_open_directory_is_found(tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert in_use([str(tmp_path), str(other)]) == {str(tmp_path)}
    finally:
        os.close(descriptor)
    assert in_use([str(tmp_path), str(other)]) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_sees_all_processes_only_with_capability() -> None:
    code = (
        "import os, sys\n"
        "from ansible_collections.lorafleet.delivery.plugins.module_utils._linux.open_files import sees_all_processes\n"
        "seen = [sees_all_processes()]; os.setgid(65534); os.setuid(65534); print(*seen, sees_all_processes())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["True", "False"]
