# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disposition of displaced directories."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.displaced import (
    DISCARD,
    QUARANTINE,
    RESTORE,
    disposition_of,
    known_manifests,
)

from tests.support.releases import manifest_of, release_of, write_version
from tests.support.transactions import Node


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    """A node with release 1 and its manifest."""
    node = Node(tmp_path)
    node.deploy(1)
    return node


def test_disposition_of_known_content_depends_on_the_store(node: Node, tmp_path: pathlib.Path) -> None:
    one, two = manifest_of(1), manifest_of(2)
    # One manifest is ruled out by its sizes, another one only by its hashes.
    larger = dataclasses.replace(one, files=(*one.files, FileEntry("zzz.json", 1, "0" * 64)))
    longer = dataclasses.replace(one, files=tuple(dataclasses.replace(entry, size=entry.size + 1) for entry in one.files))
    manifests = [longer, manifest_of(3), one, two]
    dispositions = {}
    for version in (1, 2, 4):
        write_version(tmp_path / str(version), version)
        dispositions[version] = disposition_of(node.paths, str(tmp_path / str(version)), manifests)
    assert dispositions == {1: (DISCARD, one), 2: (RESTORE, two), 4: (QUARANTINE, None)}
    # The content is all of one release and a part of a larger one: the larger one does not decide.
    assert disposition_of(node.paths, str(tmp_path / "2"), [larger, two]) == (RESTORE, two)
    assert disposition_of(node.paths, str(tmp_path / "2"), [two], intact=[two.release]) == (DISCARD, two)


def test_disposition_of_links_files_and_empty_directories(node: Node, tmp_path: pathlib.Path) -> None:
    manifests = known_manifests(node.paths)
    ours, foreign, file, empty = (tmp_path / name for name in ("ours", "foreign", "file", "empty"))
    ours.symlink_to(node.release(1))
    foreign.symlink_to(tmp_path)
    file.write_text("content")
    empty.mkdir()
    dispositions = [disposition_of(node.paths, str(path), manifests)[0] for path in (ours, foreign, file, empty)]
    assert dispositions == [DISCARD, QUARANTINE, QUARANTINE, DISCARD]


def test_known_manifests_ignore_invalid_files(node: Node) -> None:
    directory = node.root / "manifests"
    shutil.copy(directory / f"{release_of(1)}.json", directory / f"{release_of(2)}.json")
    (directory / f"{release_of(3)}.json").write_text("{")
    (directory / "notes.json").write_text("{}")
    (directory / f"{release_of(1)}.json.new").write_text("")
    assert known_manifests(node.paths) == [manifest_of(1)]
