# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recovery from a run that was killed just before or after a swap.

The crash tests kill it at every call.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._linux.rename import exchange
from ansible_collections.lorafleet.delivery.plugins.module_utils._store import activate
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import Request
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.recovery import pending_path, recover, recovered
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import read_state

from tests.support.releases import WEIGHTS, release_of, stage, version_at, write_version
from tests.support.transactions import Node


class Killed(BaseException):
    """Like a signal: no code of the collection handles it."""


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


@contextlib.contextmanager
def killed(swapped: bool) -> t.Iterator[None]:
    """Kill the run in the block just before a swap, or just after it."""

    def swap(one: str, other: str) -> None:
        if swapped:
            exchange(one, other)
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(activate, "exchange", swap)
        yield


@pytest.mark.parametrize("swapped", [False, True])
def test_recover_interrupted_activation_follows_the_swap(node: Node, swapped: bool) -> None:
    node.deploy(1)
    with killed(swapped):
        node.deploy(2)
    version = 2 if swapped else 1
    before = node.snapshot()
    # Reading code already sees the state after recovery.
    assert recovered(node.paths, read_state(node.paths)).active == release_of(version)
    assert node.snapshot() == before
    state, adopted = recover(node.paths)
    assert (state.active, state.previous) == (release_of(version), release_of(1) if swapped else None)
    assert (state.intent, adopted) == (None, None)
    assert read_state(node.paths) == state
    assert version_at(node.served) == version
    assert (version_at(node.release(1)), version_at(node.release(2))) == (1, 2)
    assert node.junk() == []


def test_roll_back_after_interrupted_rollback_finishes_it(node: Node) -> None:
    for version in (1, 2, 3):
        node.deploy(version)
    with killed(swapped=True):
        node.roll_back(release=release_of(1))
    outcome = node.roll_back()
    assert (outcome["action"], outcome["release"], outcome["previous"]) == ("rolled_back", release_of(1), release_of(3))
    assert version_at(node.served) == 1
    assert node.roll_back()["release"] == release_of(3)


def test_recover_interrupted_return_from_refused_release_finishes_it(node: Node) -> None:
    for version in (1, 2, 3):
        node.deploy(version)
    with killed(swapped=True):
        node.carry_out_all([Request(node.paths, release=release_of(2), refused=True)])
    state, _adopted = recover(node.paths)
    assert (state.active, state.previous) == (release_of(2), release_of(1))


def test_return_from_refused_second_release_leaves_no_previous_one(node: Node) -> None:
    for version in (1, 2):
        node.deploy(version)
    node.carry_out_all([Request(node.paths, release=release_of(1), refused=True)])
    state = read_state(node.paths)
    assert (state.active, state.previous) == (release_of(1), None)


def test_recover_quarantines_unknown_displaced_directory(node: Node) -> None:
    write_version(node.served, 7)
    with killed(swapped=True):
        node.deploy(1)
    _state, adopted = recover(node.paths)
    assert adopted is not None
    assert version_at(adopted) == 7
    assert version_at(node.served) == 1


@pytest.mark.parametrize("staged_again", [False, True])
def test_recover_interrupted_promote_keeps_staged_release(node: Node, staged_again: bool) -> None:
    node.deploy(1)
    (node.release(1) / WEIGHTS).write_bytes(b"damage")
    with killed(swapped=False):
        node.deploy(1)
    staged = pathlib.Path(node.paths.staged(release_of(1)))
    assert not staged.exists()
    if staged_again:
        stage(node.paths, 1)
    state, adopted = recover(node.paths)
    assert (state.active, state.intent, adopted) == (release_of(1), None, None)
    assert version_at(staged) == 1
    assert (node.release(1) / WEIGHTS).read_bytes() == b"damage"
    assert node.carry_out(1)["action"] == "repaired"
    assert node.junk() == []


def test_recover_finished_promote_quarantines_damaged_release(node: Node) -> None:
    node.deploy(1)
    (node.release(1) / WEIGHTS).write_bytes(b"damage")
    with killed(swapped=True):
        node.deploy(1)
    # The intent concerns the stored release, not which release is active.
    assert recovered(node.paths, read_state(node.paths)).active == release_of(1)
    _state, adopted = recover(node.paths)
    assert version_at(node.release(1)) == 1
    assert pathlib.Path(str(adopted), WEIGHTS).read_bytes() == b"damage"


def test_recover_deletes_unfinished_files(node: Node) -> None:
    node.deploy(1)
    write_version(pending_path(node.paths, release_of(2)), 2)
    for path in (node.paths.state, node.paths.manifest(release_of(2))):
        pathlib.Path(f"{path}.new").write_text("{")
    (node.root / "notes").write_text("not ours")
    recover(node.paths)
    assert node.junk() == ["notes"]
    assert os.listdir(node.root / "manifests") == [f"{release_of(1)}.json"]
    assert version_at(node.served) == 1
