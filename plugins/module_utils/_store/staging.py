# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Staging on a node: what has to be brought there, from where on the node itself, and whether it arrived whole."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import shutil
import stat
import typing as t

from .._adapter.manifest import FileEntry, Manifest
from .._errors import DeliveryError, Problem
from .._files import copy_file, fsync_directory
from .._hashing import sha256_of
from .compare import differences
from .lock import is_received_into
from .paths import AdapterPaths, make_store

# Left free on the file system of the store, whatever is brought.
_RESERVE_BYTES = 64 << 20
_RESERVE_FILES = 32


@dataclasses.dataclass
class Plan:
    """What one adapter needs on this node.

    C(stored) is true when the release is in the store already, whole. Otherwise C(lacking) are the files that staging has
    not yet got; of these C(local) are on the node under some other path (name -> that path), and C(missing) must come from
    the source for this adapter.
    """

    manifest: Manifest
    paths: AdapterPaths
    stored: bool = False
    lacking: list[FileEntry] = dataclasses.field(default_factory=list)
    local: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: list[FileEntry] = dataclasses.field(default_factory=list)

    @property
    def staging(self) -> str:
        return self.paths.staged(self.manifest.release)

    @property
    def staged_bytes(self) -> int:
        """How much of C(missing) an interrupted transfer has left in the staging directory, to be gone on from."""
        found = 0
        for entry in self.missing:
            with contextlib.suppress(OSError):
                found += min(os.lstat(os.path.join(self.staging, entry.path)).st_size, entry.size)
        return found


def plan_all(manifests: t.Iterable[Manifest], models_dir: str, store: str, arrived: bool = False) -> list[Plan]:
    """Look at the store and the staging directories and return one Plan for each manifest; changes nothing.

    Raises DeliveryError where they may not be read.

    With C(arrived), what is staged in its full length counts as there: C(settle) is going to hash it, and once is enough.

    A file that two of the adapters have in common (a tokenizer, mostly) is missing from the first alone: the others take it
    from there once it has come.
    """
    targets = [(manifest, AdapterPaths(models_dir, store, manifest.name)) for manifest in manifests]
    coming: set[str] = set()
    try:
        seeds = _seeds(targets, store)
        return [_plan(manifest, paths, seeds, coming, arrived) for manifest, paths in targets]
    except OSError as exc:
        raise DeliveryError.of(
            exc.filename or store, f"cannot be looked at: {exc.strerror}.", "Run with become, as whoever deployed to it first."
        ) from exc


def _plan(manifest: Manifest, paths: AdapterPaths, seeds: dict[str, list[str]], coming: set[str], arrived: bool) -> Plan:
    release = manifest.release
    result = Plan(manifest, paths)
    if os.path.isdir(paths.release(release)) and not differences(paths.release(release), manifest):
        result.stored = True
        return result
    for entry in manifest.files:
        target = os.path.join(result.staging, entry.path)
        if (_has_length if arrived else _is)(target, entry) and _is_ours(os.lstat(target)):
            continue
        result.lacking.append(entry)
        seed = next((path for path in seeds[entry.sha256] if path != target and _is(path, entry)), None)
        if seed is not None:
            result.local[entry.path] = seed
        elif entry.sha256 not in coming:
            coming.add(entry.sha256)
            result.missing.append(entry)
    return result


def _seeds(targets: t.Iterable[tuple[Manifest, AdapterPaths]], store: str) -> dict[str, list[str]]:
    """Return sha256 -> paths on this node that may hold bytes with it; whoever uses one has to hash it first.

    These are the files of every release in the store, those that are served or staged under the name of an adapter that is
    to be brought: nobody recorded what a hand-copied directory holds, but most often it is what is wanted.
    """
    seeds: dict[str, list[str]] = collections.defaultdict(list)
    for manifest, paths in targets:
        for entry in manifest.files:
            seeds[entry.sha256] += [
                os.path.join(paths.live, entry.path),
                os.path.join(paths.staged(manifest.release), entry.path),
            ]
    for paths in _adapters_in(store):
        for release in paths.release_names():
            try:
                recorded = paths.read_manifest(release)
            except DeliveryError:
                # A release whose manifest is damaged serves nobody here; the audit of its own adapter says so.
                continue
            for entry in recorded.files if recorded else ():
                seeds[entry.sha256].append(os.path.join(paths.release(release), entry.path))
    return seeds


def _adapters_in(store: str) -> list[AdapterPaths]:
    """The paths of every adapter that has something in the store; other names there are passed over."""
    found = []
    for name in sorted(os.listdir(store)) if os.path.isdir(store) else ():
        try:
            found.append(AdapterPaths("", store, name))
        except DeliveryError:
            continue
    return found


def check_space(store: str, plans: t.Iterable[Plan]) -> None:
    """Raise DeliveryError when the store's file system has too little room for what the plans bring.

    An adapter needs its bytes twice: as the release in the store and as the copy that is served. What an interrupted transfer
    has left takes its room already.
    """
    plans = list(plans)
    moved = [entry for item in plans for entry in item.lacking]
    needed = 2 * sum(entry.size for entry in moved) - sum(item.staged_bytes for item in plans)
    existing = os.path.abspath(store)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    room = os.statvfs(existing)
    free = room.f_bavail * room.f_frsize
    if moved and free < needed + _RESERVE_BYTES:
        raise DeliveryError.of(
            store,
            f"has too little space: {_mib(needed)} are needed and {_mib(_RESERVE_BYTES)} kept free, {_mib(free)} are there.",
            "Free some space on this file system, or lower agent_keep so that fewer old releases are kept.",
        )
    if moved and room.f_files and room.f_favail < 2 * len(moved) + _RESERVE_FILES:
        raise DeliveryError.of(
            store,
            f"has too few free inodes: {room.f_favail} for {2 * len(moved)} new files.",
            "Remove small files from this file system.",
        )


def prepare(item: Plan) -> None:
    """Make the staging directory ready for what is to come.

    It is this user's, as whom the files are received as well. What is in it and is not ours, or neither wanted nor a beginning
    of what is wanted, is removed. Raises DeliveryError when the store cannot be written.
    """
    wanted = {entry.path: entry for entry in item.manifest.files}
    try:
        make_store(item.paths)
        with contextlib.suppress(FileExistsError):
            os.mkdir(item.staging, 0o700)
        _refuse_while_busy(item)
        if os.geteuid() == 0:
            # An earlier run may have been somebody else.
            os.chown(item.staging, 0, 0)
        for name in os.listdir(item.staging):
            path = os.path.join(item.staging, name)
            found = os.lstat(path)
            if not _is_ours(found) or name not in wanted:
                _remove(path)
            elif found.st_size >= wanted[name].size and wanted[name] in item.lacking:
                # As long as it should be and yet lacking: its bytes are wrong, so it is no beginning to go on from.
                os.unlink(path)
    except OSError as exc:
        raise _unwritable(item, exc) from exc


def settle(item: Plan) -> list[Problem]:
    """Add to the staging directory what the node has itself, compare every byte with the manifest; fsync all.

    Returns what differs from the manifest; nothing of it is removed, so that a later run can go on from there.
    """
    try:
        os.chmod(item.staging, 0o700)
        for name in os.listdir(item.staging):
            path = os.path.join(item.staging, name)
            # What has another name elsewhere is somebody's file, and refused below.
            if _is_ours(os.lstat(path)):
                os.chmod(path, 0o600)
        for name, seed in sorted(item.local.items()):
            target = os.path.join(item.staging, name)
            if os.path.lexists(target):
                # Never written through: it may be a link, or have another name elsewhere.
                _remove(target)
            copy_file(seed, target)
        differing = differences(item.staging, item.manifest, fsync=True)
        fsync_directory(item.staging)
    except OSError as exc:
        raise _unwritable(item, exc) from exc
    return [
        Problem(
            item.manifest.name,
            f"what arrived is not what was described: {difference.line()}.",
            "It changed at the source after it was described, or on the way, or on the node: run again."
            " What is served was not touched.",
        )
        for difference in differing
    ]


def _refuse_while_busy(item: Plan) -> None:
    """Raise DeliveryError while a receiver of another run lives."""
    if is_received_into(item.staging):
        raise DeliveryError.of(
            item.manifest.name,
            f"is being brought to this node by another run: an rsync writes to {item.staging}.",
            "Let it finish, or end that process (fuser -v shows it), and run again.",
        )


def _is_ours(found: os.stat_result) -> bool:
    """True for a plain file that no other user can write to: it has no name elsewhere, and is root's own where this is root."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and (os.geteuid() != 0 or found.st_uid == 0)


def _has_length(path: str, entry: FileEntry) -> bool:
    """True when C(path) is a plain file of exactly the size of C(entry)."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == entry.size


def _is(path: str, entry: FileEntry) -> bool:
    """True when C(path) is a plain file with exactly the size and bytes of C(entry)."""
    try:
        return _has_length(path, entry) and sha256_of(path) == (entry.size, entry.sha256)
    except DeliveryError:
        return False


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _unwritable(item: Plan, exc: OSError) -> DeliveryError:
    return DeliveryError.of(
        item.manifest.name,
        f"cannot be staged in {exc.filename or item.staging}: {exc.strerror}.",
        "Look at the space, the permissions and the mount of this file system on the node, then run again."
        " What is served was not touched.",
    )


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
