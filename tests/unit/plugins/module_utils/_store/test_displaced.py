# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of what was taken out of its place."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import time

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry
from ansible_collections.lorafleet.delivery.plugins.module_utils._store import displaced
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.displaced import (
    ADOPT,
    DISCARD,
    KEEP,
    empty_trash,
    fate_of,
    known_manifests,
    to_trash,
)

from tests.support.releases import manifest_of, release_of, write_version
from tests.support.transactions import Node


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    """One that has release 1, and its manifest."""
    node = Node(tmp_path)
    node.deploy(1)
    return node


def test_bytes_are_known_by_any_of_the_manifests(node: Node, tmp_path: pathlib.Path) -> None:
    one, two = manifest_of(1), manifest_of(2)
    # Others of which the first look says no, and of which only the bytes do.
    larger = dataclasses.replace(one, files=(*one.files, FileEntry("zzz.json", 1, "0" * 64)))
    longer = dataclasses.replace(one, files=tuple(dataclasses.replace(entry, size=entry.size + 1) for entry in one.files))
    manifests = [longer, manifest_of(3), one, two]
    fates = {}
    for version in (1, 2, 4):
        write_version(tmp_path / str(version), version)
        fates[version] = fate_of(node.paths, str(tmp_path / str(version)), manifests)
    assert fates == {1: (DISCARD, one), 2: (KEEP, two), 4: (ADOPT, None)}
    # What is whole of one may be a part of another, which alone says nothing.
    assert fate_of(node.paths, str(tmp_path / "2"), [larger, two]) == (KEEP, two)
    assert fate_of(node.paths, str(tmp_path / "2"), [two], whole=[two.release]) == (DISCARD, two)


def test_links_files_and_empty_directories(node: Node, tmp_path: pathlib.Path) -> None:
    manifests = known_manifests(node.paths)
    ours, foreign, file, empty = (tmp_path / name for name in ("ours", "foreign", "file", "empty"))
    ours.symlink_to(node.release(1))
    foreign.symlink_to(tmp_path)
    file.write_text("content")
    empty.mkdir()
    fates = [fate_of(node.paths, str(path), manifests)[0] for path in (ours, foreign, file, empty)]
    assert fates == [DISCARD, ADOPT, ADOPT, DISCARD]


def test_manifests_that_are_none_know_nothing(node: Node) -> None:
    directory = node.root / "manifests"
    shutil.copy(directory / f"{release_of(1)}.json", directory / f"{release_of(2)}.json")
    (directory / f"{release_of(3)}.json").write_text("{")
    (directory / "notes.json").write_text("{}")
    (directory / f"{release_of(1)}.json.new").write_text("")
    assert known_manifests(node.paths) == [manifest_of(1)]


def test_the_trash_has_room_for_the_same_name_again(node: Node) -> None:
    for content in ("one", "two", "three"):
        path = node.root / "releases" / "name"
        path.mkdir()
        (path / content).touch()
        to_trash(node.paths, str(path))
    assert sorted(path.name for path in node.root.glob("trash-name*/*")) == ["one", "three", "two"]
    empty_trash(node.paths)
    assert node.junk() == []


def test_where_readers_cannot_be_seen_they_have_their_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displaced, "sees_all_processes", lambda: False)
    now = time.time()
    for later, left in ((1, 1), (500, 1), (1000, 0), (-1000, 0)):
        path = node.root / "releases" / "name"
        path.mkdir()
        to_trash(node.paths, str(path))
        # A clock that was put back would keep it for ever.
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        empty_trash(node.paths)
        found = list(node.root.glob("trash-*"))
        assert len(found) == left
        for each in found:
            os.rmdir(each)
