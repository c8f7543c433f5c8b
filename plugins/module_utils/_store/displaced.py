# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Dispose of displaced directories: discard copies of stored releases, quarantine unknown content.

No byte is deleted unless it is also in a complete release of the store.
"""

from __future__ import annotations

import datetime
import os
import stat
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._files import fsync_directory
from .compare import MISSING, differences, entries_of, in_content
from .paths import AdapterPaths, unused_path
from .served import linked_release
from .trash import move_to_trash

# The content is in the store already.
DISCARD = "discard"
# The content is a known release of which the store has no intact copy.
RESTORE = "restore"
# The content is unknown.
QUARANTINE = "quarantine"


def disposition_of(
    paths: AdapterPaths, path: str, manifests: t.Iterable[Manifest], intact: t.Collection[str] = ()
) -> tuple[str, Manifest | None]:
    """Return what to do with a displaced directory or link, and the manifest that decided it.

    Reads only. ``intact`` names releases that are known to be intact in the store, or will be.
    """
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return (QUARANTINE if linked_release(paths, path) is None else DISCARD), None
    if not stat.S_ISDIR(mode):
        return QUARANTINE, None
    if not os.listdir(path):
        return DISCARD, None
    for manifest in manifests:
        if not _may_match(path, manifest):
            continue
        found = in_content(differences(path, manifest))
        if any(difference.kind != MISSING for difference in found):
            continue
        release = manifest.release
        if release in intact or not in_content(differences(paths.release(release), manifest)):
            return DISCARD, manifest
        if not found:
            return RESTORE, manifest
    return QUARANTINE, None


def _may_match(directory: str, manifest: Manifest) -> bool:
    """Compare names and sizes only: a cheap check before files are hashed."""
    sizes = {entry.path: entry.size for entry in manifest.files}
    return all(
        path in manifest.directories or sizes.get(path) == status.st_size
        for path, status in entries_of(directory, manifest).items()
    )


def known_manifests(paths: AdapterPaths) -> list[Manifest]:
    """Return all readable manifests of this adapter on this node."""
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


def dispose(paths: AdapterPaths, path: str) -> str | None:
    """Dispose of a directory or link in the adapter's part of the store.

    Returns the path of what was quarantined, if anything was. Nothing in quarantine is ever
    deleted.
    """
    disposition, manifest = disposition_of(paths, path, known_manifests(paths))
    if disposition == DISCARD:
        move_to_trash(paths, path)
        return None
    if manifest is None:
        return _quarantine(paths, path)
    differences(path, manifest, fsync=True)
    release = paths.release(manifest.release)
    adopted = _quarantine(paths, release) if os.path.lexists(release) else None
    os.rename(path, release)
    fsync_directory(paths.releases)
    fsync_directory(paths.root)
    return adopted


def _quarantine(paths: AdapterPaths, path: str) -> str:
    adopted = adopted_path(paths)
    os.rename(path, adopted)
    fsync_directory(paths.root)
    return adopted


def adopted_path(paths: AdapterPaths) -> str:
    """Return an unused path, named after the current time, for what is quarantined now."""
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    return unused_path(os.path.join(paths.root, f"adopted-{now:%Y%m%dT%H%M%SZ}"))
