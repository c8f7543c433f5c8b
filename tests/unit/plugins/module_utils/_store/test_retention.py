# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which releases a deployment prunes."""

from __future__ import annotations

import mmap
import os
import pathlib

import pytest

from tests.support.releases import WEIGHTS, release_of, version_at, write_version
from tests.support.transactions import Node


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


def test_prune_keeps_most_recently_active(node: Node) -> None:
    for version in (1, 2, 3):
        node.deploy(version)
    node.roll_back(release=release_of(1))
    outcome = node.deploy(4, keep=3)
    assert outcome["pruned"] == [release_of(2)]
    assert [version for version in range(1, 5) if node.release(version).exists()] == [1, 3, 4]
    for kind in ("manifests", "receipts"):
        assert not (node.root / kind / f"{release_of(2)}.json").exists()
        assert len(os.listdir(node.root / kind)) == 3
    assert node.junk() == []


def test_prune_keeps_active_and_previous(node: Node) -> None:
    for version in (1, 2, 3):
        node.deploy(version, keep=1)
    assert [version for version in range(1, 4) if node.release(version).exists()] == [2, 3]


def test_prune_starts_with_releases_outside_the_history(node: Node) -> None:
    # Sorted by name alone, the releases with a history would be pruned.
    oldest, *unknown, previous, active = sorted(range(1, 6), key=release_of)
    for version in unknown:
        node.deploy(version, keep=9)
    os.unlink(node.paths.state)
    for version in (oldest, previous, active):
        node.deploy(version)
    assert node.paths.release_names() == sorted(map(release_of, (oldest, previous, active)))


def test_prune_counts_only_verified_releases(node: Node) -> None:
    for version in (1, 2, 3):
        node.deploy(version, keep=9)
    os.unlink(node.paths.receipt(release_of(2)))
    node.deploy(4, keep=3)
    assert [version for version in range(1, 5) if node.release(version).exists()] == [1, 2, 3, 4]


def test_prune_keeps_quarantine_and_foreign_directories(node: Node) -> None:
    write_version(node.served, 7)
    node.deploy(1, keep=1)
    (node.root / "releases" / "notes").mkdir()
    for version in (2, 3, 4):
        node.deploy(version, keep=1)
    assert [version_at(path) for path in node.root.glob("adopted-*")] == [7]
    assert (node.root / "releases" / "notes").is_dir()


@pytest.mark.parametrize("use", ["mapped", "directory"])
def test_prune_keeps_release_in_use(node: Node, use: str) -> None:
    node.deploy(1)
    if use == "mapped":
        with open(node.release(1) / WEIGHTS, "rb") as stream:
            mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        release = mapping.close
    else:
        descriptor = os.open(node.release(1), os.O_RDONLY)

        def release() -> None:
            os.close(descriptor)

    for version in (2, 3):
        assert node.deploy(version, keep=1)["pruned"] == []
    release()
    assert node.carry_out(3, keep=1)["pruned"] == [release_of(1)]
    assert node.changed
