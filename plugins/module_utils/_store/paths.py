# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Where things lie on a node: the paths of the models directory and the store, and JSON that survives a power cut.

MODELS/NAME/                          what people and servers open
STORE/NAME/releases/DIGEST12/         the immutable release
STORE/NAME/manifests/DIGEST12.json    what that release consists of
STORE/NAME/receipts/DIGEST12.json     what was verified of it
STORE/NAME/staging/DIGEST12/          being filled, never served
STORE/NAME/adopted-TIME/              what stood at NAME and was no release; never pruned
STORE/NAME/state.json                 active and previous release
STORE/NAME/lock                       flock, never unlinked
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._adapter.manifest import Manifest
from .._files import fsync_directory, read_json
from .._names import check_name, is_release_name


class AdapterPaths:
    """All paths of one adapter on a node. Raises DeliveryError for a name that is no safe path component."""

    def __init__(self, models_dir: str, store: str, name: str) -> None:
        self.name = check_name(name)
        self.models_dir = models_dir
        self.live = os.path.join(models_dir, name)
        self.root = os.path.join(store, name)
        self.releases = os.path.join(self.root, "releases")
        self.manifests = os.path.join(self.root, "manifests")
        self.receipts = os.path.join(self.root, "receipts")
        self.staging = os.path.join(self.root, "staging")
        self.state = os.path.join(self.root, "state.json")
        self.lock = os.path.join(self.root, "lock")

    def release(self, release: str) -> str:
        return os.path.join(self.releases, release)

    def staged(self, release: str) -> str:
        return os.path.join(self.staging, release)

    def manifest(self, release: str) -> str:
        return os.path.join(self.manifests, f"{release}.json")

    def receipt(self, release: str) -> str:
        return os.path.join(self.receipts, f"{release}.json")

    def release_names(self) -> list[str]:
        """Names of the releases in the store, sorted; other names in that directory are not ours and not listed."""
        try:
            return sorted(name for name in os.listdir(self.releases) if is_release_name(name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read_manifest(self, release: str) -> t.Optional[Manifest]:
        """The recorded manifest of a release, or None when there is none. Raises DeliveryError when it is damaged."""
        data = read_json(self.manifest(release))
        return None if data is None else Manifest.from_json(data)


def make_store(paths: AdapterPaths) -> None:
    """Create the directories of one adapter in the store where they are missing, whatever the umask."""
    # No chmod afterwards: a crash before it would leave a directory that nobody may pass through, for good.
    umask = os.umask(0)
    try:
        # Root and staging may be passed through but not listed: an unprivileged transfer user needs its own directory only.
        for path, mode in (
            (os.path.dirname(paths.root), 0o711),
            (paths.root, 0o711),
            (paths.releases, 0o755),
            (paths.manifests, 0o755),
            (paths.receipts, 0o755),
            (paths.staging, 0o711),
        ):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, mode)
                fsync_directory(os.path.dirname(path))
    finally:
        os.umask(umask)
