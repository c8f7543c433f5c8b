# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Checks of a node's models directory and store before anything is written to them."""

from __future__ import annotations

import os

from .._errors import DeliveryError
from .._linux.mounts import is_mount_point, mount_of
from .owners import check_owned, check_way_to_models_dir, check_way_to_store


def check_directories(models_dir: str, store: str) -> None:
    """Raise DeliveryError unless directories can be renamed from the store to the models directory.

    Writes nothing.
    """
    check_models_dir(models_dir)
    check_store(store)
    check_same_file_system(models_dir, store)


def check_models_dir(models_dir: str) -> None:
    """Raise DeliveryError unless the models directory exists and can be written.

    Nor may another user be able to exchange it.
    """
    if not os.path.isdir(models_dir):
        raise DeliveryError.of(models_dir, "is not a directory.", "Create the models directory on this node first.")
    _check_writable(models_dir, models_dir)
    check_way_to_models_dir(models_dir)


def check_store(store: str) -> None:
    """Raise DeliveryError unless the store can be written, or created, by this user alone."""
    anchor = store_anchor(store)
    if not os.path.lexists(anchor):
        raise DeliveryError.of(
            store,
            f"cannot be created: {anchor} does not exist.",
            "Create that directory on this node, or correct the option store.",
        )
    if not os.path.isdir(anchor):
        raise DeliveryError.of(store, f"cannot be created: {anchor} is not a directory.", "Correct the option store.")
    _check_writable(anchor, store)
    check_way_to_store(store)
    check_owned(os.path.realpath(store))


def check_same_file_system(models_dir: str, store: str) -> None:
    """Raise DeliveryError unless the store is beside the models directory, on its file system.

    Both are known to exist, or the directory that the store will be created in.
    """
    anchor = store_anchor(store)
    models, inner = os.path.realpath(models_dir), os.path.realpath(store)
    if os.path.commonpath([models, inner]) == inner:
        raise DeliveryError.of(store, f"contains {models_dir}.", "Set the option store to a directory beside it.")
    if os.path.commonpath([models, inner]) == models and not is_mount_point(models):
        raise DeliveryError.of(
            store,
            f"is inside {models_dir}, where staged files could be served, or deleted by a manual copy.",
            f"Set the option store to a directory beside it, such as {os.path.join(os.path.dirname(models), '.lorafleet')}.",
        )
    if os.stat(models).st_dev != os.stat(anchor).st_dev or mount_of(models) != mount_of(anchor):
        raise DeliveryError.of(
            store,
            f"is not on the file system of {models_dir}, so releases cannot be activated atomically.",
            f"Set the option store to a directory below {mount_of(models)}"
            + (" (inside the models directory, which is a mount point)." if is_mount_point(models) else "."),
        )


def store_anchor(store: str) -> str:
    """Return the store, or the directory that it will be created in if it does not exist."""
    return store if os.path.lexists(store) else os.path.dirname(store)


def _check_writable(directory: str, path: str) -> None:
    if os.access(directory, os.W_OK | os.X_OK):
        return
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise DeliveryError.of(
            path, "is on a read-only file system.", "Mount it writable on this node, or find out why it is read-only."
        )
    raise DeliveryError.of(
        path,
        f"cannot be written by user {os.geteuid()}.",
        "Run with become, or give that user write permission.",
    )
