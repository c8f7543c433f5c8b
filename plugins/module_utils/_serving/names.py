# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Names of adapters in an engine: the public one, and one for each release."""

from __future__ import annotations

import os

from .._names import is_release_name


def versioned(name: str, release: str) -> str:
    """Return the name of a release in an engine, which never stands for other bytes."""
    return f"{name}@{release}"


def release_in(name: str, listed: str) -> str | None:
    """Return the release that a listed name of an adapter stands for, None for another name."""
    start, _at, release = listed.rpartition("@")
    return release if start == name and is_release_name(release) else None


def public_name(listed: str) -> str:
    """Return the name of the adapter that a listed name is a release of, else the name itself."""
    name, _at, release = listed.rpartition("@")
    return name if is_release_name(release) else listed


def release_directory(store: str, name: str, release: str) -> str:
    """Return the path that an engine gets: that of the release in the store, without links.

    ``MODELS_DIR/NAME`` becomes another release with each activation, so no engine ever gets it.
    """
    return os.path.join(os.path.realpath(store), name, "releases", release)


def release_at(store: str, name: str, root: str | None) -> str | None:
    """Return the release of an adapter that a path leads to, None for any other path."""
    if root is None:
        return None
    directory, release = os.path.split(os.path.realpath(root))
    below = os.path.join(os.path.realpath(store), name, "releases")
    return release if directory == below and is_release_name(release) else None
