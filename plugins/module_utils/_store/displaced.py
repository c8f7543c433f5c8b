# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Putting away what was taken out of its place, so that no byte is lost that is not in a whole release of the store."""

from __future__ import annotations

import datetime
import os
import shutil
import stat
import time
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._files import fsync_directory
from .._linux.open_files import in_use, sees_all_processes
from .compare import MISSING, differences, in_content
from .paths import AdapterPaths
from .served import linked_release

_TRASH = "trash-"
# Seconds that are enough for whoever has opened a directory to open all files in it. Where it cannot be seen that nobody has.
_GRACE = 600

# What becomes of a directory: the bytes are in the store, or they are a release that the store lacks, or they are unknown.
DISCARD = "discard"
KEEP = "keep"
ADOPT = "adopt"


def fate_of(
    paths: AdapterPaths, path: str, manifests: t.Iterable[Manifest], whole: t.Collection[str] = ()
) -> tuple[str, t.Optional[Manifest]]:
    """What shall become of C(path), and the manifest that decided it. Reads only.

    C(whole) are releases that are known to be in the store, or will be.
    """
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return (ADOPT if linked_release(paths, path) is None else DISCARD), None
    if not stat.S_ISDIR(mode):
        return ADOPT, None
    if not os.listdir(path):
        return DISCARD, None
    for manifest in manifests:
        if not _may_be(path, manifest):
            continue
        found = in_content(differences(path, manifest))
        if any(difference.kind != MISSING for difference in found):
            continue
        release = manifest.release
        if release in whole or not in_content(differences(paths.release(release), manifest)):
            return DISCARD, manifest
        if not found:
            return KEEP, manifest
    return ADOPT, None


def known_manifests(paths: AdapterPaths) -> list[Manifest]:
    """All manifests recorded on this node; a damaged one knows nothing."""
    manifests = []
    for name in sorted(os.listdir(paths.manifests)) if os.path.isdir(paths.manifests) else []:
        release, extension = os.path.splitext(name)
        if extension == ".json":
            try:
                manifest = paths.read_manifest(release)
            except DeliveryError:
                continue
            if manifest is not None and manifest.release == release:
                manifests.append(manifest)
    return manifests


def put_away(paths: AdapterPaths, path: str) -> t.Optional[str]:
    """Take C(path), something in the adapter's part of the store, out of the way; return where it was set aside, if it was.

    Unknown bytes become adopted-TIME, which nothing here ever deletes.
    """
    fate, manifest = fate_of(paths, path, known_manifests(paths))
    if fate == DISCARD:
        to_trash(paths, path)
        return None
    if manifest is None:
        return _set_aside(paths, path)
    # The store lost this release, or what it has of it is damaged.
    differences(path, manifest, fsync=True)
    release = paths.release(manifest.release)
    adopted = _set_aside(paths, release) if os.path.lexists(release) else None
    os.rename(path, release)
    fsync_directory(paths.releases)
    fsync_directory(paths.root)
    return adopted


def _set_aside(paths: AdapterPaths, path: str) -> str:
    adopted = adopted_path(paths)
    os.rename(path, adopted)
    fsync_directory(paths.root)
    return adopted


def adopted_path(paths: AdapterPaths) -> str:
    """A free name for something to be set aside now."""
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    return _free(os.path.join(paths.root, f"adopted-{now:%Y%m%dT%H%M%SZ}"))


def to_trash(paths: AdapterPaths, path: str) -> None:
    """Take something out of its place in one step; C(empty_trash) deletes it."""
    os.rename(path, _free(os.path.join(paths.root, _TRASH + os.path.basename(path))))
    fsync_directory(os.path.dirname(path))


def in_trash(paths: AdapterPaths) -> list[str]:
    """What was taken out of its place and is still there."""
    return [entry.path for entry in os.scandir(paths.root) if entry.name.startswith(_TRASH)]


def empty_trash(paths: AdapterPaths) -> None:
    """Delete what is in the trash, except what a process reads, or may just have begun to read: that goes the next time."""
    trash = in_trash(paths)
    if not sees_all_processes():
        # ctime is when it was taken out of its place; one from the future says nothing.
        trash = [path for path in trash if not 0 <= time.time() - os.lstat(path).st_ctime < _GRACE]
    for path in set(trash) - in_use(trash):
        remove(path)


def remove(path: str) -> None:
    """Delete a directory with all that is in it, or a link."""
    if os.path.islink(path):
        os.unlink(path)
    else:
        shutil.rmtree(path)


def _may_be(directory: str, manifest: Manifest) -> bool:
    """Cheap: names and sizes only, to hash no more than needed."""
    sizes = {entry.path: entry.size for entry in manifest.files}
    return all(sizes.get(entry.name) == entry.stat(follow_symlinks=False).st_size for entry in os.scandir(directory))


def _free(path: str) -> str:
    candidate, number = path, 1
    while os.path.lexists(candidate):
        candidate, number = f"{path}-{number}", number + 1
    return candidate
