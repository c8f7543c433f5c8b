# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What stands at NAME in the models directory."""

from __future__ import annotations

import dataclasses
import os
import stat
import typing as t

from .._errors import DeliveryError
from .._linux.mounts import is_mount_point
from .._names import is_release_name
from .paths import AdapterPaths

ABSENT = "nothing"
DIRECTORY = "a directory"
LINK = "a link"


@dataclasses.dataclass(frozen=True)
class Live:
    """C(release) is set for a link: the release in our store that it leads to."""

    kind: str
    release: t.Optional[str] = None


def look_at_live(paths: AdapterPaths) -> Live:
    """See what stands at NAME. Raises DeliveryError for what must not be replaced: a foreign link, a mount point, a file."""
    try:
        mode = os.lstat(paths.live).st_mode
    except FileNotFoundError:
        return Live(ABSENT)
    if stat.S_ISLNK(mode):
        release = linked_release(paths, paths.live)
        if release is None:
            raise DeliveryError.of(
                f"{paths.name}: {paths.live}",
                f"is a link to {os.readlink(paths.live)}, which is not in this store.",
                "Remove the link, or rename it, if it is no longer needed; it is never replaced.",
            )
        return Live(LINK, release)
    if not stat.S_ISDIR(mode):
        raise DeliveryError.of(f"{paths.name}: {paths.live}", "is not a directory.", "Move it aside; it is never replaced.")
    if is_mount_point(paths.live):
        raise DeliveryError.of(
            f"{paths.name}: {paths.live}",
            "is a mount point, which cannot be replaced.",
            "Unmount it, and mount the models directory instead of single adapters.",
        )
    return Live(DIRECTORY)


def linked_release(paths: AdapterPaths, link: str) -> t.Optional[str]:
    """The release that the text of a link leads to when it stands in the models directory; None when it leads elsewhere."""
    target = os.path.join(os.path.realpath(paths.models_dir), os.readlink(link))
    directory, name = os.path.split(os.path.normpath(target))
    ours = os.path.realpath(directory) == os.path.realpath(paths.releases)
    return name if ours and is_release_name(name) else None


def link_text(paths: AdapterPaths, release: str) -> str:
    """The relative target that leads from the models directory to a release, so that both can be mounted elsewhere."""
    return os.path.relpath(os.path.realpath(paths.release(release)), os.path.realpath(paths.models_dir))
