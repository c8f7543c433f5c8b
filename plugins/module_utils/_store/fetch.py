# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Plan the downloads to a node: missing files, files that it can reuse, and the space needed."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import stat
import typing as t

from .._adapter.manifest import FileEntry, Manifest
from .._errors import DeliveryError
from .._hashing import sha256_of
from .._text import count, human_bytes
from .compare import differences
from .paths import AdapterPaths

# Left free on the file system of the store.
_RESERVE_BYTES = 64 << 20
_RESERVE_FILES = 32


@dataclasses.dataclass
class Fetch:
    """The files that one adapter needs on this node.

    ``stored`` is true when the store has an intact copy of the release. Otherwise ``missing`` lists
    the files that are not staged yet: ``reusable`` maps the names of those that exist elsewhere on
    this node to their paths, and ``to_download`` lists those that the source must send for this
    adapter.
    """

    manifest: Manifest
    paths: AdapterPaths
    stored: bool = False
    missing: list[FileEntry] = dataclasses.field(default_factory=list)
    reusable: dict[str, str] = dataclasses.field(default_factory=dict)
    to_download: list[FileEntry] = dataclasses.field(default_factory=list)

    @property
    def staging(self) -> str:
        return self.paths.staged(self.manifest.release)

    @property
    def staged_bytes(self) -> int:
        """The bytes of ``to_download`` that an interrupted transfer has staged already."""
        found = 0
        for entry in self.to_download:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(self.staging, entry.path))
                # A swarm leaves holes.
                found += min(status.st_size, 512 * status.st_blocks, entry.size)
        return found

    def to_json(self) -> dict[str, t.Any]:
        """As adapter_sync returns it in ``adapters``."""
        return {
            "name": self.manifest.name,
            "release": self.manifest.release,
            "stored": self.stored,
            "downloaded": [entry.path for entry in self.to_download],
            "downloaded_bytes": sum(entry.size for entry in self.to_download),
            "reused": self.reusable,
            "reused_bytes": sum(entry.size for entry in self.missing if entry.path in self.reusable),
            # For the action plugin, which removes them from the result.
            "staging": self.staging,
            "staged_bytes": self.staged_bytes,
        }


def diff_of(fetches: t.Iterable[Fetch]) -> dict[str, str]:
    """The files to stage, as Ansible shows a difference."""

    def line(fetch: Fetch) -> str:
        download = f"{sum(entry.size for entry in fetch.to_download)} bytes to download"
        download += f" ({', '.join(entry.path for entry in fetch.to_download)})" if fetch.to_download else ""
        reusable = len(fetch.missing) - len(fetch.to_download)
        return f"{fetch.manifest.name} {fetch.manifest.release}: {download}, {count(reusable, 'file')} from this node\n"

    header = "releases to stage"
    after = "".join(line(fetch) for fetch in fetches if fetch.missing)
    return {"before_header": header, "after_header": header, "before": "", "after": after}


def plan_fetches(manifests: t.Iterable[Manifest], models_dir: str, store: str, transferred: bool = False) -> list[Fetch]:
    """Inspect the store and the staging directories, and return a Fetch for each manifest.

    Reads only. A file that several adapters have in common, such as a tokenizer, is downloaded for
    the first one only. The others reuse it after the transfer. With ``transferred``, a staged file
    of the right size counts as present: ``verify_staged`` hashes it next, and once is enough.

    Raises DeliveryError where the user may not read.
    """
    targets = [(manifest, AdapterPaths(models_dir, store, manifest.name)) for manifest in manifests]
    downloads: set[str] = set()
    try:
        seeds = _seeds(targets, store)
        return [_plan_fetch(manifest, paths, seeds, downloads, transferred) for manifest, paths in targets]
    except OSError as exc:
        raise DeliveryError.of(
            exc.filename or store,
            f"cannot be inspected: {exc.strerror}.",
            "Run with become, as the user that first deployed to this store.",
        ) from exc


def _plan_fetch(
    manifest: Manifest, paths: AdapterPaths, seeds: dict[str, list[str]], downloads: set[str], transferred: bool
) -> Fetch:
    release = manifest.release
    fetch = Fetch(manifest, paths)
    if os.path.isdir(paths.release(release)) and not differences(paths.release(release), manifest):
        fetch.stored = True
        return fetch
    matches = _has_size if transferred else _has_content
    for entry in manifest.files:
        target = os.path.join(fetch.staging, entry.path)
        if matches(target, entry) and is_exclusive(os.lstat(target)):
            continue
        fetch.missing.append(entry)
        seed = next((path for path in seeds[entry.sha256] if path != target and _has_content(path, entry)), None)
        if seed is not None:
            fetch.reusable[entry.path] = seed
        elif entry.sha256 not in downloads:
            downloads.add(entry.sha256)
            fetch.to_download.append(entry)
    return fetch


def _seeds(targets: t.Iterable[tuple[Manifest, AdapterPaths]], store: str) -> dict[str, list[str]]:
    """Return sha256 -> paths on this node that may have that content.

    Each must be hashed before use. These are the files of all stored releases, and the served and
    staged files of the adapters to fetch: a directory that was copied manually has no recorded
    hashes, but usually the wanted content.
    """
    seeds: dict[str, list[str]] = collections.defaultdict(list)
    for manifest, paths in targets:
        for entry in manifest.files:
            seeds[entry.sha256] += [
                os.path.join(paths.served, entry.path),
                os.path.join(paths.staged(manifest.release), entry.path),
            ]
    for paths in _adapters_in(store):
        for release in paths.release_names():
            try:
                recorded = paths.read_manifest(release)
            except DeliveryError:
                # Its release cannot be reused; the audit of that adapter reports the damaged
                # manifest.
                continue
            for entry in recorded.files if recorded else ():
                seeds[entry.sha256].append(os.path.join(paths.release(release), entry.path))
    return seeds


def _adapters_in(store: str) -> list[AdapterPaths]:
    """Return the paths of every adapter in the store.

    Names that no adapter can have are ignored.
    """
    found = []
    for name in sorted(os.listdir(store)) if os.path.isdir(store) else ():
        try:
            found.append(AdapterPaths("", store, name))
        except DeliveryError:
            continue
    return found


@dataclasses.dataclass(frozen=True)
class Space:
    """The free space of the store's file system, and the need of the fetches.

    Each adapter needs its size twice: for the release in the store and for the served copy. The
    bytes that an interrupted transfer has staged already have their space. ``free_files`` is None
    for a file system without a limit of inodes.
    """

    free: int
    free_files: int | None
    needed: int
    needed_files: int


def space_for(store: str, fetches: t.Iterable[Fetch]) -> Space:
    """Return the space of the store, which need not exist yet. Raises OSError."""
    fetches = list(fetches)
    missing = [entry for fetch in fetches for entry in fetch.missing]
    existing = os.path.abspath(store)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    file_system = os.statvfs(existing)
    return Space(
        free=file_system.f_bavail * file_system.f_frsize,
        free_files=file_system.f_favail if file_system.f_files else None,
        needed=2 * sum(entry.size for entry in missing) - sum(fetch.staged_bytes for fetch in fetches),
        needed_files=2 * len(missing),
    )


def check_space(store: str, fetches: t.Iterable[Fetch]) -> Space:
    """Return the space of the store.

    Raises DeliveryError when it has too little free space or inodes.
    """
    space = space_for(store, fetches)
    if space.needed_files and space.free < space.needed + _RESERVE_BYTES:
        raise DeliveryError.of(
            store,
            f"has too little space: {human_bytes(space.needed)} and a reserve of {human_bytes(_RESERVE_BYTES)} are needed,"
            f" {human_bytes(space.free)} are free.",
            "Free some space on this file system, or lower the option keep to retain fewer old releases.",
        )
    if space.needed_files and space.free_files is not None and space.free_files < space.needed_files + _RESERVE_FILES:
        raise DeliveryError.of(
            store,
            f"has too few free inodes: {space.free_files} for {space.needed_files} new files.",
            "Remove small files from this file system.",
        )
    return space


def is_exclusive(status: os.stat_result) -> bool:
    """Return whether a plain file has no second hard link and, when this is root, is owned by root.

    No other user can write to such a file through another name.
    """
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and (os.geteuid() != 0 or status.st_uid == 0)


def _has_size(path: str, entry: FileEntry) -> bool:
    """Return whether ``path`` is a plain file of the entry's size."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == entry.size


def _has_content(path: str, entry: FileEntry) -> bool:
    """Return whether ``path`` is a plain file with the entry's size and hash."""
    try:
        return _has_size(path, entry) and sha256_of(path) == (entry.size, entry.sha256)
    except DeliveryError:
        return False
