# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The models directory and the store of a node: whether they fit together, and the store's own directories."""

from __future__ import annotations

import os

from .._errors import DeliveryError
from .._linux.mounts import is_mount_point, mount_of


def check_places(models_dir: str, store: str) -> None:
    """Raise DeliveryError unless releases can go from C(store) to C(models_dir) by rename. Writes nothing."""
    if not os.path.isdir(models_dir):
        raise DeliveryError.of(models_dir, "is not a directory.", "Create the models directory on this node first.")
    _check_writable(models_dir, models_dir)
    anchor = store if os.path.lexists(store) else os.path.dirname(store)
    if not os.path.lexists(anchor):
        raise DeliveryError.of(
            store,
            "cannot be made, since the directory it belongs into does not exist.",
            "Create that on this node, or correct agent_store in the inventory.",
        )
    if not os.path.isdir(anchor):
        raise DeliveryError.of(store, f"cannot be made: {anchor} is not a directory.", "Correct agent_store in the inventory.")
    _check_writable(anchor, store)
    models, inner = os.path.realpath(models_dir), os.path.realpath(store)
    if os.path.commonpath([models, inner]) == inner:
        raise DeliveryError.of(store, f"contains {models_dir}.", "Set the store to a directory beside it.")
    if os.path.commonpath([models, inner]) == models and not is_mount_point(models):
        raise DeliveryError.of(
            store,
            f"is inside {models_dir}, where staged bytes could be served and a hand-made copy could wipe them.",
            f"Set the store to a directory beside it, such as {os.path.join(os.path.dirname(models), '.lorafleet')}.",
        )
    if os.stat(models).st_dev != os.stat(anchor).st_dev or mount_of(models) != mount_of(anchor):
        raise DeliveryError.of(
            store,
            f"is not on the file system of {models_dir}, so nothing can be put in place in one step.",
            f"Set the store to a directory below {mount_of(models)}"
            + (" (inside the models directory, which is a mount point)." if is_mount_point(models) else "."),
        )


def _check_writable(directory: str, place: str) -> None:
    if os.access(directory, os.W_OK | os.X_OK):
        return
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise DeliveryError.of(place, "is on a read-only file system.", "Mount it writable on this node, or look why it is not.")
    raise DeliveryError.of(
        place,
        f"cannot be written by user {os.geteuid()}.",
        "Run with become, or give that user the right to write there.",
    )
