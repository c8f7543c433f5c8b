# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Find expired releases and delete them."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._linux.open_files import in_use
from .._names import is_release_name
from .lock import has_receiver
from .paths import AdapterPaths
from .receipt import read_receipt
from .state import State
from .trash import move_to_trash


def expired_releases(paths: AdapterPaths, state: State, keep: int, linked: str | None, target: str) -> list[str]:
    """Return the verified releases beyond the ``keep`` most recently active ones. Reads only.

    The active and previous releases, and those in use, never expire. Releases without a receipt are
    neither counted nor deleted. ``state`` is the state after the activation of ``target``;
    ``linked`` is the release that the served link leads to now.
    """
    names = {*paths.release_names(), target}
    verified = [name for name in names if name == target or read_receipt(paths, name) is not None]
    rank = {entry.release: number for number, entry in enumerate(state.history)}
    verified.sort(key=lambda name: (rank.get(name, -1), name), reverse=True)
    expired = [name for name in verified[keep:] if name not in (state.active, state.previous, linked)]
    used = in_use(paths.release(name) for name in expired)
    return sorted(name for name in expired if paths.release(name) not in used)


def prune(paths: AdapterPaths, expired: t.Iterable[str]) -> None:
    """Move releases to the trash; ``forget_absent`` deletes their manifests and receipts."""
    for name in expired:
        move_to_trash(paths, paths.release(name))


def drop_staging(paths: AdapterPaths) -> None:
    """Move staged releases to the trash, except those that another run is receiving."""
    for name in filter(is_release_name, os.listdir(paths.staging)):
        if not has_receiver(paths.staged(name)):
            move_to_trash(paths, paths.staged(name))


def forget_absent(paths: AdapterPaths, state: State) -> None:
    """Delete manifests and receipts of releases that are not stored, staged, active or previous."""
    present = {*paths.release_names(), *os.listdir(paths.staging), state.active, state.previous}
    for directory in (paths.manifests, paths.receipts):
        for name in os.listdir(directory):
            release, _dot, rest = name.partition(".")
            if rest.startswith("json") and is_release_name(release) and release not in present:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(directory, name))
