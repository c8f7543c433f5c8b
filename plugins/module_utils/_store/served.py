# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Inspect MODELS_DIR/NAME, the path that servers open."""

from __future__ import annotations

import dataclasses
import os
import stat

from .._errors import DeliveryError
from .._linux.mounts import is_mount_point
from .._names import is_release_name
from .paths import AdapterPaths

ABSENT = "nothing"
DIRECTORY = "a directory"
LINK = "a link"


@dataclasses.dataclass(frozen=True)
class Served:
    """``release`` is set for a link: the release of the store that it leads to."""

    kind: str
    release: str | None = None


def inspect_served(paths: AdapterPaths) -> Served:
    """Return what is at the served path.

    Raises DeliveryError for what must not be replaced: a foreign link, a mount point, a file.
    """
    try:
        mode = os.lstat(paths.served).st_mode
    except FileNotFoundError:
        return Served(ABSENT)
    if stat.S_ISLNK(mode):
        release = linked_release(paths, paths.served)
        if release is None:
            raise DeliveryError.of(
                paths.served,
                f"is a link to {os.readlink(paths.served)}, which is not in this store.",
                "Remove or rename the link if it is no longer needed; foreign links are never replaced.",
            )
        return Served(LINK, release)
    if not stat.S_ISDIR(mode):
        raise DeliveryError.of(paths.served, "is not a directory.", "Move it aside; plain files are never replaced.")
    if is_mount_point(paths.served):
        raise DeliveryError.of(
            paths.served,
            "is a mount point, which cannot be replaced.",
            "Unmount it, and mount the models directory instead of single adapters.",
        )
    return Served(DIRECTORY)


def linked_release(paths: AdapterPaths, link: str) -> str | None:
    """Return the release that a link leads to if it is in the models directory.

    Returns None for a target outside of this store.
    """
    target = os.path.join(os.path.realpath(paths.models_dir), os.readlink(link))
    directory, name = os.path.split(os.path.normpath(target))
    ours = os.path.realpath(directory) == os.path.realpath(paths.releases)
    return name if ours and is_release_name(name) else None


def link_target(paths: AdapterPaths, release: str) -> str:
    """Return the target of a served link to a release.

    It is relative, so that both directories can be mounted elsewhere.
    """
    return os.path.relpath(os.path.realpath(paths.release(release)), os.path.realpath(paths.models_dir))
