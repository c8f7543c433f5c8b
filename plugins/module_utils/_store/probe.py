# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Try on a node's file system what an activation does, and leave nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import typing as t

from .._adapter.manifest import FileEntry, Manifest
from .._errors import DeliveryError
from .._hashing import sha256_of
from .._linux.rename import can_exchange
from .activate import copy_release
from .permissions import Permissions
from .preflight import store_anchor
from .trash import remove

# No adapter can have this name, which begins with a dot.
_NAME = ".lorafleet-preflight"
_FILE = "probe"
_POLL_SECONDS = 0.05
_LOCK_SECONDS = 10


@contextlib.contextmanager
def probe_directory(models_dir: str, store: str) -> t.Iterator[str]:
    """Yield an empty directory in the store, or where the store will be created.

    Only one probe of a models directory runs at a time, so a directory that is already there was
    left by a killed one. Raises OSError, and DeliveryError if another probe does not end.
    """
    with _only_probe(models_dir):
        directory = os.path.join(store_anchor(store), _NAME)
        if os.path.lexists(directory):
            remove(directory)
        os.mkdir(directory, 0o700)
        try:
            yield directory
        finally:
            remove(directory)


def check_permissions(directory: str, permissions: Permissions) -> None:
    """Make a copy with these permissions, as an activation makes that of a release.

    Raises OSError, and DeliveryError where they cannot be set.
    """
    source = os.path.join(directory, "source")
    os.mkdir(source, 0o700)
    path = os.path.join(source, _FILE)
    with open(path, "wb") as stream:
        stream.write(b"probe")
    manifest = Manifest(_FILE, (FileEntry(_FILE, *sha256_of(path)),), (), {}, {})
    copy = os.path.join(directory, "copy")
    try:
        copy_release(source, copy, manifest, permissions)
    except PermissionError as exc:
        problem = f"cannot be set by user {os.geteuid()} on the file system of {os.path.dirname(directory)}: {exc.strerror}."
        raise DeliveryError.of(
            "", problem, "Run with become. On NFS, export it with no_root_squash, or unset the owner."
        ) from exc
    finally:
        # Whatever the mode, its content can be removed.
        if os.path.isdir(copy):
            os.chmod(copy, 0o700)


def supports_exchange(directory: str, models_dir: str) -> bool:
    """Return whether a directory of the store can be exchanged with one of the models directory.

    Raises OSError.
    """
    return can_exchange(directory, models_dir, "preflight")


@contextlib.contextmanager
def _only_probe(models_dir: str) -> t.Iterator[None]:
    # The lock of the directory itself, which is not written to.
    descriptor = os.open(models_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _lock(descriptor):
            if time.monotonic() >= deadline:
                raise DeliveryError.of(models_dir, "is locked by another process.", "End that process (fuser -v shows it).")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Without locks on this file system, ``check_locks`` reports it.
        return True
    return True
