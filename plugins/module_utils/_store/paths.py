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

import json
import os
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._names import check_name, is_release_name

_UNFINISHED = ".new"


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


def read_json(path: str, remedy: str = "Move it aside and deploy again: it is written anew.") -> t.Any:
    """Parsed JSON, or None when the file does not exist. Raises DeliveryError when it cannot be read or parsed.

    The C(remedy) that is given is the one for what the store itself has written.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise DeliveryError.of(path, f"cannot be read: {exc}.", remedy) from exc


def write_json(path: str, data: t.Any, mode: int = 0o644) -> None:
    """Replace a file by JSON atomically and durably: temporary file, fsync, rename, fsync of the directory."""
    temporary = f"{path}{_UNFINISHED}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), mode)
        json.dump(data, stream, indent=1, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, path)
    fsync_directory(os.path.dirname(path))


def unfinished(directory: str) -> list[str]:
    """What a C(write_json) in this directory left that was killed, if none is under way."""
    # Anything else of that name is somebody else's.
    return [
        entry.path
        for entry in os.scandir(directory)
        if entry.name.endswith(f".json{_UNFINISHED}") and entry.is_file(follow_symlinks=False)
    ]


def fsync_directory(path: str) -> None:
    """Make the names in a directory durable. Raises OSError: a failed fsync is never a success."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
