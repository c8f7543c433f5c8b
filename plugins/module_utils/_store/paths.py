# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The paths of one adapter on a node, in the models directory and in the store.

MODELS/NAME/                          the served directory, or a link to the active release
STORE/NAME/releases/DIGEST12/         an immutable release
STORE/NAME/manifests/DIGEST12.json    its manifest
STORE/NAME/receipts/DIGEST12.json     its load test on this node
STORE/NAME/staging/DIGEST12/          a release in transfer, never served
STORE/NAME/adopted-TIME/              quarantined content of MODELS/NAME, never deleted
STORE/NAME/incoming-DIGEST12/         swapped in next; after the swap, what was swapped out
STORE/NAME/trash-.../                 a replaced directory that a process may still read
STORE/NAME/state.json                 active and previous release
STORE/NAME/accepted.json              signed releases that were accepted
STORE/NAME/lock                       locked with flock, never unlinked
"""

from __future__ import annotations

import contextlib
import os

from .._adapter.manifest import Manifest
from .._files import fsync_directory, read_json
from .._names import check_name, is_release_name
from .owners import check_owned

STATE_FILE = "state.json"


class AdapterPaths:
    """All paths of one adapter on a node. Raises DeliveryError for an unsafe name."""

    def __init__(self, models_dir: str, store: str, name: str) -> None:
        self.name = check_name(name)
        self.models_dir = models_dir
        self.store = store
        self.served = os.path.join(models_dir, name)
        self.root = os.path.join(store, name)
        self.releases = os.path.join(self.root, "releases")
        self.manifests = os.path.join(self.root, "manifests")
        self.receipts = os.path.join(self.root, "receipts")
        self.staging = os.path.join(self.root, "staging")
        self.state = os.path.join(self.root, STATE_FILE)
        self.accepted = os.path.join(self.root, "accepted.json")
        self.lock = os.path.join(self.root, "lock")
        # With their modes. Root and staging can be traversed but not listed: an unprivileged
        # transfer user needs only its own directory.
        self.directories = (
            (store, 0o711),
            (self.root, 0o711),
            (self.releases, 0o755),
            (self.manifests, 0o755),
            (self.receipts, 0o755),
            (self.staging, 0o711),
        )

    def release(self, release: str) -> str:
        return os.path.join(self.releases, release)

    def staged(self, release: str) -> str:
        return os.path.join(self.staging, release)

    def manifest(self, release: str) -> str:
        return os.path.join(self.manifests, f"{release}.json")

    def receipt(self, release: str) -> str:
        return os.path.join(self.receipts, f"{release}.json")

    def release_names(self) -> list[str]:
        """Return the names of the releases in the store, sorted. Other names there are ignored."""
        try:
            return sorted(name for name in os.listdir(self.releases) if is_release_name(name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read_manifest(self, release: str) -> Manifest | None:
        """Return the stored manifest of a release, or None.

        Raises DeliveryError when it is damaged.
        """
        data = read_json(self.manifest(release))
        return None if data is None else Manifest.from_json(data)


def make_store(paths: AdapterPaths) -> None:
    """Create the missing directories of one adapter in the store, independent of the umask.

    Raises DeliveryError if another user made one of them, or may write to it.
    """
    # Without a chmod afterwards: a crash before it would leave a directory with the wrong mode for
    # good.
    umask = os.umask(0)
    try:
        for path, mode in paths.directories:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, mode)
                fsync_directory(os.path.dirname(path))
            check_owned(os.path.realpath(path) if path == paths.store else path)
    finally:
        os.umask(umask)


def check_owners(paths: AdapterPaths) -> None:
    """Raise DeliveryError if another user could change what an adapter has in the store."""
    check_owned(os.path.realpath(paths.store))
    for path, _mode in paths.directories[1:]:
        check_owned(path)


def unused_path(path: str) -> str:
    """Return ``path``, with a number appended if it exists."""
    candidate, number = path, 1
    while os.path.lexists(candidate):
        candidate, number = f"{path}-{number}", number + 1
    return candidate
