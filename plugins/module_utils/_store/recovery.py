# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Finishing a swap: the same code runs right after it and, when that did not happen, at the start of the next run."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._files import fsync_directory, unfinished
from .displaced import empty_trash, in_trash, put_away, remove
from .paths import AdapterPaths
from .state import PROMOTE, Intent, State, read_state, write_state

_INCOMING = "incoming-"


def incoming(paths: AdapterPaths, release: str) -> str:
    """Where a swap takes its new part from, and so where it leaves the old one."""
    return os.path.join(paths.root, _INCOMING + release)


def inode_of(path: str) -> t.Optional[int]:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None


def settled(paths: AdapterPaths, state: State) -> State:
    """What C(settle) would make of C(state). Reads only."""
    intent = state.intent
    if intent is None:
        return state
    if intent.step != PROMOTE and inode_of(paths.live) == intent.inode:
        return state.activated(intent.release, intent.way)
    return dataclasses.replace(state, intent=None)


def is_settled(paths: AdapterPaths) -> bool:
    """Whether C(settle) would find nothing to do. Reads only. Raises OSError and DeliveryError."""
    return read_state(paths).intent is None and not any(
        (_incoming(paths), in_trash(paths), unfinished(paths.root), unfinished(paths.manifests))
    )


def _incoming(paths: AdapterPaths) -> list[str]:
    return [entry.path for entry in os.scandir(paths.root) if entry.name.startswith(_INCOMING)]


def settle(paths: AdapterPaths) -> tuple[State, t.Optional[str]]:
    """Bring in order what a crash left; return the state, and where something was set aside, if it was.

    The caller holds the lock.
    """
    recorded = read_state(paths)
    state, adopted = settled(paths, recorded), None
    if recorded.intent is not None:
        adopted = finish_swap(paths, recorded.intent)
        write_state(paths, state)
    # An intent is on the disk before any swap and until its old part was put away: without one, this is our unfinished copy.
    for path in _incoming(paths):
        remove(path)
    # Receipts are written without the lock: what is left of one goes with the release.
    for directory in (paths.root, paths.manifests):
        for path in unfinished(directory):
            os.unlink(path)
    empty_trash(paths)
    return state, adopted


def finish_swap(paths: AdapterPaths, intent: Intent) -> t.Optional[str]:
    """Make a swap durable and put away what it took out; return where that was set aside, if it was.

    When the swap did not happen, the new part is taken back.
    """
    fsync_directory(paths.releases if intent.step == PROMOTE else paths.models_dir)
    fsync_directory(paths.root)
    old = incoming(paths, intent.release)
    inode = inode_of(old)
    if inode is None:
        return None
    if inode != intent.inode:
        return put_away(paths, old)
    if intent.step == PROMOTE and not os.path.lexists(paths.staged(intent.release)):
        os.rename(old, paths.staged(intent.release))
        fsync_directory(paths.staging)
    else:
        remove(old)
    return None
