# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Which releases are no longer needed, and deleting them."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._linux.open_files import in_use
from .._names import is_release_name
from .displaced import to_trash
from .lock import is_received_into
from .paths import AdapterPaths
from .receipt import read_receipt
from .state import State


def prunable(paths: AdapterPaths, state: State, keep: int, linked: t.Optional[str], coming: str) -> list[str]:
    """The verified releases beyond the C(keep) that were active last, without active, previous and those in use.

    C(state) is the state after the activation of C(coming), C(linked) the release that NAME is a link to now. A release
    without a receipt is neither counted nor pruned. Reads only.
    """
    names = {*paths.release_names(), coming}
    verified = [name for name in names if name == coming or read_receipt(paths, name) is not None]
    rank = {entry.release: number for number, entry in enumerate(state.history)}
    verified.sort(key=lambda name: (rank.get(name, -1), name), reverse=True)
    doomed = [name for name in verified[keep:] if name not in (state.active, state.previous, linked)]
    used = in_use(paths.release(name) for name in doomed)
    return sorted(name for name in doomed if paths.release(name) not in used)


def prune(paths: AdapterPaths, doomed: t.Iterable[str]) -> None:
    """Take releases away; their manifests and receipts go with C(forget_absent)."""
    for name in doomed:
        to_trash(paths, paths.release(name))


def drop_staging(paths: AdapterPaths) -> None:
    """Take away what is still staged once a later release is active, except what another run is bringing."""
    for name in filter(is_release_name, os.listdir(paths.staging)):
        if not is_received_into(paths.staged(name)):
            to_trash(paths, paths.staged(name))


def forget_absent(paths: AdapterPaths, state: State) -> None:
    """Delete the manifests and receipts of releases that are neither in the store, nor staged, nor active or previous."""
    present = {*paths.release_names(), *os.listdir(paths.staging), state.active, state.previous}
    for directory in (paths.manifests, paths.receipts):
        for name in os.listdir(directory):
            release, _dot, rest = name.partition(".")
            if rest.startswith("json") and is_release_name(release) and release not in present:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(directory, name))
