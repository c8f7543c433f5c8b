# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The trash of an adapter in the store: directories to delete once no process reads them."""

from __future__ import annotations

import os
import shutil
import time

from .._files import fsync_directory
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

    What a process reads, or may have just begun to read, is left for the next run.
    """
    trash = list_trash(paths)
    if not sees_all_processes():
        # The ctime is the time of the move to the trash. One in the future, after the clock was set
        # back, is ignored.
        trash = [path for path in trash if not 0 <= time.time() - os.lstat(path).st_ctime < _GRACE]
    for path in set(trash) - in_use(trash):
        remove(path)


def remove(path: str) -> None:
    """Delete a directory with all of its contents, or a single file or link."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
