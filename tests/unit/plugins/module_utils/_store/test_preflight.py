# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deploying to directories that are mounted in the wrong place."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests.support.releases import stage, version_at, write_version
from tests.support.transactions import Node

# In a private mount namespace, so that nothing stays mounted.
BIND = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$1" "$1" && shift && exec "$@"', "sh"]
DEPLOY = "import pathlib, sys; from tests.support.transactions import Node; Node(pathlib.Path(sys.argv[1])).carry_out(1)"


def deploy_with_mount(node: Node, mounted: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Deploy in a process for which a directory is bind-mounted on itself."""
    if subprocess.run([*BIND, str(node.base), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*BIND, str(mounted), sys.executable, "-c", DEPLOY, str(node.base)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_preflight_mount_point_at_name_is_rejected(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path)
    write_version(node.served, 7)
    stage(node.paths, 1)
    done = deploy_with_mount(node, node.served)
    assert f"{node.served}: is a mount point, which cannot be replaced." in done.stderr
    assert version_at(node.served) == 7


def test_preflight_store_under_other_mount_is_rejected(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path)
    stage(node.paths, 1)
    done = deploy_with_mount(node, node.models)
    assert f"is not on the file system of {node.models}" in done.stderr
    assert not node.served.exists()
