# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories of two hosts that are, or are not, the same one.

An NFS mount is represented by the identity that it gives: tests cannot mount one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._linux.directory_identity import DirectoryIdentity

from tests.support.paths import CHECKOUT

MARK = "adapter_config.json"
# In a private mount namespace, as in a container: what is at $1 is also at $2.
BOUND = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh"]
PRINT = (
    "import json, sys; from ansible_collections.lorafleet.delivery.plugins.module_utils._linux.directory_identity"
    " import DirectoryIdentity; print(json.dumps(DirectoryIdentity.of(sys.argv[1], sys.argv[2]).to_json()))"
)


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "models" / "a_lora"
    path.mkdir(parents=True)
    (path / MARK).write_text("{}", encoding="utf-8")
    return path


def of(path: pathlib.Path) -> DirectoryIdentity:
    """The identity after its way through JSON."""
    return DirectoryIdentity.from_json(json.loads(json.dumps(DirectoryIdentity.of(str(path), MARK).to_json())))


def elsewhere(path: pathlib.Path, shareable: bool) -> DirectoryIdentity:
    """The same directory as another machine sees it, with a device number of its own."""
    here = of(path)
    inodes = tuple((device + 1, inode) for device, inode in here.inodes)
    return dataclasses.replace(here, machine="another", inodes=inodes, shareable=shareable)


def test_is_same_through_link(directory: pathlib.Path) -> None:
    link = directory.with_name("link")
    link.symlink_to(directory)
    assert of(link).is_same(of(directory))
    assert of(link).path == str(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="wants root to mount")
def test_is_same_through_bind_mount_of_another_namespace(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bound = tmp_path / "bound"
    bound.mkdir()
    command = [*BOUND, str(directory.parent), str(bound), sys.executable, "-c", PRINT, str(bound / directory.name), MARK]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / ".collections")}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    there = DirectoryIdentity.from_json(json.loads(printed))
    assert (there.path, there.is_same(of(directory))) == (str(bound / directory.name), True)


@pytest.mark.parametrize("command", [["cp", "-a"], ["cp", "-al"], ["cp", "-a", "--reflink=auto"], ["rsync", "-aH"]])
def test_is_same_of_copy_is_false(directory: pathlib.Path, command: list[str]) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]}")
    copy = directory.with_name("copy")
    subprocess.run([*command, f"{directory}/", f"{copy}/"], check=True)
    assert not of(copy).is_same(of(directory))
    assert not elsewhere(copy, shareable=True).is_same(of(directory))


@pytest.mark.parametrize(("shareable", "same"), [(True, True), (False, False)])
def test_is_same_on_another_machine_needs_shared_file_system(directory: pathlib.Path, shareable: bool, same: bool) -> None:
    """A clone of the whole disk has the same inodes and times, but is local to its machine."""
    here = dataclasses.replace(of(directory), shareable=False)
    assert here.is_same(elsewhere(directory, shareable)) is same
    assert elsewhere(directory, shareable).is_same(here) is same


def test_is_same_on_another_machine_needs_equal_mark(directory: pathlib.Path) -> None:
    there = elsewhere(directory, shareable=True)
    assert there.mark is not None
    later = dataclasses.replace(there, mark=(there.mark[0], there.mark[1] + 1))
    assert not later.is_same(of(directory))
    (directory / MARK).unlink()
    assert not elsewhere(directory, shareable=True).is_same(of(directory))


def test_is_inside(directory: pathlib.Path) -> None:
    (directory / "below" / "it").mkdir(parents=True)
    below = of(directory / "below" / "it")
    assert below.is_inside(of(directory))
    assert not of(directory).is_inside(below)
    assert not below.is_inside(below)
    assert not dataclasses.replace(below, machine="another").is_inside(of(directory))


@pytest.mark.parametrize("data", [None, {}, {"path": "/x", "machine": "m", "inodes": [], "mark": None, "shareable": False}])
def test_from_json_of_anything_else_is_error(data: object) -> None:
    with pytest.raises(DeliveryError, match=r"source_directories: .*Pass the value that"):
        DirectoryIdentity.from_json(data)
