# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The trash of an adapter in the store: directories to delete once no process reads them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time

from .._files import DIRECTORY, fsync_directory
from .._linux.open_files import in_use, sees_all_processes
from .paths import AdapterPaths, unused_path

_TRASH = "trash-"
# Where readers cannot be seen: seconds in which a process that has just opened a directory opens
# all files in it.
_GRACE = 600


def move_to_trash(paths: AdapterPaths, path: str) -> None:
    """Rename a directory or link into the trash; ``empty_trash`` deletes it."""
    os.rename(path, unused_path(os.path.join(paths.root, _TRASH + os.path.basename(path))))
    fsync_directory(os.path.dirname(path))


def list_trash(paths: AdapterPaths) -> list[str]:
    return [entry.path for entry in os.scandir(paths.root) if entry.name.startswith(_TRASH)]


def empty_trash(paths: AdapterPaths) -> None:
    """Delete the trash.

    What a process reads, or may have just begun to read, is left for the next run. So is what
    cannot be deleted: its owner may have mounted something there.
    """
    trash = list_trash(paths)
    if not sees_all_processes():
        # The ctime is the time of the move to the trash. One in the future, after the clock was set
        # back, is ignored.
        trash = [path for path in trash if not 0 <= time.time() - os.lstat(path).st_ctime < _GRACE]
    for path in set(trash) - in_use(trash):
        with contextlib.suppress(OSError, RecursionError):
            remove(path)


def discard(paths: AdapterPaths, path: str) -> None:
    """Delete a directory or link in the store, or move it to the trash if that is not possible."""
    try:
        remove(path)
    except (OSError, RecursionError):
        move_to_trash(paths, path)


def remove(path: str) -> None:
    """Delete a directory with all of its contents, or a single file or link."""
    if os.path.isdir(path) and not os.path.islink(path):
        _flatten(path)
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _flatten(path: str) -> None:
    """Move all directories below subdirectories up into ``path``.

    Whoever owned it may have nested thousands, for each of which ``rmtree`` needs a call and a
    descriptor.
    """
    top = os.open(path, DIRECTORY)
    try:
        pending = _directories(top)
        while pending:
            inner = os.open(pending.pop(), DIRECTORY, dir_fd=top)
            try:
                for name in _directories(inner):
                    pending.append(secrets.token_hex(16))
                    os.rename(name, pending[-1], src_dir_fd=inner, dst_dir_fd=top)
            finally:
                os.close(inner)
    finally:
        os.close(top)


def _directories(descriptor: int) -> list[str]:
    return [entry.name for entry in os.scandir(descriptor) if entry.is_dir(follow_symlinks=False)]
