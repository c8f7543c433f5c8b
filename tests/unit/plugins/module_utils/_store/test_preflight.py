# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The preflight check of a node's directories."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.preflight import check_directories

from tests.support.releases import stage, version_at, write_version
from tests.support.transactions import Node

# In a private mount namespace, so that nothing stays mounted.
BIND = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$1" "$1" && shift && exec "$@"', "sh"]
DEPLOY = "import pathlib, sys; from tests.support.transactions import Node; Node(pathlib.Path(sys.argv[1])).carry_out(1)"


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


def test_check_directories_with_store_inside_models_is_error(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path, store=tmp_path / "models" / ".store")
    with pytest.raises(DeliveryError, match="is inside"):
        node.carry_out(1)
    assert os.listdir(node.models) == []


def test_check_directories_with_store_around_models_is_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DeliveryError, match="contains"):
        Node(tmp_path, store=tmp_path).carry_out(1)


def test_check_directories_with_store_on_other_file_system_is_error(
    tmp_path: pathlib.Path, other_file_system: pathlib.Path
) -> None:
    with pytest.raises(DeliveryError, match="is not on the file system of"):
        Node(tmp_path, store=other_file_system / "store").carry_out(1)
    assert os.listdir(other_file_system) == []


def test_check_directories_with_read_only_store_is_error(
    tmp_path: pathlib.Path, file_system: t.Callable[[str], pathlib.Path]
) -> None:
    with pytest.raises(DeliveryError, match=r"store: is on a read-only file system\."):
        Node(tmp_path, store=file_system("size=1m,ro") / "store").carry_out(1)


def test_check_directories_without_models_is_error(node: Node) -> None:
    node.models.rmdir()
    with pytest.raises(DeliveryError, match="is not a directory"):
        node.carry_out(1)
    assert not node.store.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_directories_with_unwritable_models_is_error(node: Node) -> None:
    node.models.chmod(0o555)
    with pytest.raises(DeliveryError, match="cannot be written by user"):
        node.carry_out(1)


def test_check_directories_without_parent_of_store_is_error(tmp_path: pathlib.Path, node: Node) -> None:
    with pytest.raises(DeliveryError, match=r"does not exist.*correct the option store"):
        check_directories(str(node.models), str(tmp_path / "not" / "there"))


def deploy_with_mount(node: Node, mounted: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Deploy in a process for which a directory is bind-mounted on itself."""
    if subprocess.run([*BIND, str(node.base), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*BIND, str(mounted), sys.executable, "-c", DEPLOY, str(node.base)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_carry_out_over_mount_point_is_error(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path)
    write_version(node.served, 7)
    stage(node.paths, 1)
    done = deploy_with_mount(node, node.served)
    assert f"{node.served}: is a mount point, which cannot be replaced." in done.stderr
    assert version_at(node.served) == 7


def test_check_directories_with_models_on_other_mount_is_error(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path)
    stage(node.paths, 1)
    done = deploy_with_mount(node, node.models)
    assert f"is not on the file system of {node.models}" in done.stderr
    assert not node.served.exists()
