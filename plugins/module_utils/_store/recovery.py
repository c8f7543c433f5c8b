# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Recovery of an interrupted swap.

A run finishes each of its swaps with the code that the next run uses if the first one was killed.
"""

from __future__ import annotations

import dataclasses
import os

from .._files import fsync_directory, unfinished
from .displaced import dispose
from .paths import AdapterPaths
from .state import PROMOTE, RETURN, Intent, State, read_state, write_state
from .trash import discard, empty_trash, list_trash

_PENDING = "incoming-"


def pending_path(paths: AdapterPaths, release: str) -> str:
    """Return where a swap prepares its new directory, and so where it leaves the old one."""
    return os.path.join(paths.root, _PENDING + release)


def inode_of(path: str) -> int | None:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None


def recovered(paths: AdapterPaths, state: State) -> State:
    """Return the state that ``recover`` would record for ``state``. Reads only."""
    intent = state.intent
    if intent is None:
        return state
    if intent.step != PROMOTE and inode_of(paths.served) == intent.inode:
        return state.activated(intent.release, intent.method, refused=intent.step == RETURN)
    return dataclasses.replace(state, intent=None)


def needs_recovery(paths: AdapterPaths) -> bool:
    """Return whether ``recover`` has anything to do.

    Reads only. Raises OSError and DeliveryError.
    """
    return read_state(paths).intent is not None or any(
        (_pending(paths), list_trash(paths), unfinished(paths.root), unfinished(paths.manifests))
    )


def _pending(paths: AdapterPaths) -> list[str]:
    return [entry.path for entry in os.scandir(paths.root) if entry.name.startswith(_PENDING)]


def recover(paths: AdapterPaths) -> tuple[State, str | None]:
    """Finish or roll back what a crash interrupted.

    Returns the state, and the path of what was quarantined, if anything was. The caller holds the
    lock.
    """
    recorded = read_state(paths)
    state, adopted = recovered(paths, recorded), None
    if recorded.intent is not None:
        adopted = finish_swap(paths, recorded.intent)
        write_state(paths, state)
    # An intent is on disk before any swap and until the old directory has been disposed of.
    # Without an intent, a pending directory is an unfinished copy.
    for path in _pending(paths):
        discard(paths, path)
    # Not the receipts: they are written without the lock, and their leftovers are deleted with the
    # release.
    for directory in (paths.root, paths.manifests):
        for path in unfinished(directory):
            os.unlink(path)
    empty_trash(paths)
    return state, adopted


def finish_swap(paths: AdapterPaths, intent: Intent) -> str | None:
    """Make a swap durable and dispose of the directory that it displaced.

    Rolls back to the staged release, or deletes the copy, if the swap did not happen.
    Returns the path of what was quarantined, if anything was.
    """
    fsync_directory(paths.releases if intent.step == PROMOTE else paths.models_dir)
    fsync_directory(paths.root)
    pending = pending_path(paths, intent.release)
    inode = inode_of(pending)
    if inode is None:
        return None
    if inode != intent.inode:
        return dispose(paths, pending)
    if intent.step == PROMOTE and not os.path.lexists(paths.staged(intent.release)):
        os.rename(pending, paths.staged(intent.release))
        fsync_directory(paths.staging)
    else:
        discard(paths, pending)
    return None
