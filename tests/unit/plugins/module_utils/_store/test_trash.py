# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The trash of the store."""

from __future__ import annotations

import errno
import os
import pathlib
import time

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._store import trash
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.trash import empty_trash, move_to_trash

from tests.support.transactions import Node


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    node = Node(tmp_path)
    node.deploy(1)
    return node


def test_move_to_trash_repeated_name_keeps_all(node: Node) -> None:
    for content in ("one", "two", "three"):
        path = node.root / "releases" / "name"
        path.mkdir()
        (path / content).touch()
        move_to_trash(node.paths, str(path))
    assert sorted(path.name for path in node.root.glob("trash-name*/*")) == ["one", "three", "two"]
    empty_trash(node.paths)
    assert node.junk() == []


def nest(directory: pathlib.Path, levels: int) -> None:
    """Nest directories, in more levels than a path may have characters, with a file in the last."""
    descriptor = os.open(directory, os.O_RDONLY)
    for _level in range(levels):
        os.mkdir("a", dir_fd=descriptor)
        inner = os.open("a", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)


def test_deploy_deletes_trash_of_any_depth(node: Node) -> None:
    # What was served may belong to another user, who can write to it until it is deleted.
    path = node.root / "releases" / "name"
    path.mkdir()
    nest(path, 3000)
    move_to_trash(node.paths, str(path))
    node.deploy(2)
    assert node.junk() == []


def test_deploy_leaves_trash_that_cannot_be_deleted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(path: str) -> None:
        # As for a directory in which a user has mounted something.
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    left = ["trash-incoming-000000000000", "trash-name"]
    for name in ("releases/name", "incoming-000000000000"):
        (node.root / name).mkdir()
    move_to_trash(node.paths, str(node.root / "releases" / "name"))
    monkeypatch.setattr(trash, "remove", busy)
    node.deploy(2)
    assert {*left} <= {*node.junk()}
    monkeypatch.undo()
    node.carry_out(2)
    assert node.junk() == []


def test_empty_trash_without_visible_processes_waits(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash, "sees_all_processes", lambda: False)
    now = time.time()
    for later, left in ((1, 1), (500, 1), (1000, 0), (-1000, 0)):
        path = node.root / "releases" / "name"
        path.mkdir()
        move_to_trash(node.paths, str(path))
        # The last value is after the clock was set back, which must not keep the trash for ever.
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        empty_trash(node.paths)
        found = list(node.root.glob("trash-*"))
        assert len(found) == left
        for each in found:
            os.rmdir(each)


def test_deploy_without_visible_processes_keeps_displaced_directory(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash, "sees_all_processes", lambda: False)
    node.deploy(2)
    [replaced] = [name for name in node.junk() if name.startswith("trash-")]
    kept = sorted(path.name for path in (node.root / replaced).iterdir())
    assert kept == sorted(path.name for path in node.served.iterdir())
    node.carry_out(2)
    assert node.junk() == [replaced]
    assert not node.changed

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    node.carry_out(2)
    assert node.junk() == []
    assert not node.changed


def test_deploy_after_clock_was_set_back_deletes_displaced_directory(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(trash, "sees_all_processes", lambda: False)
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    node.deploy(2)
    assert node.junk() == []
