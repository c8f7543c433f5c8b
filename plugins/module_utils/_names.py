# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Checks names from an inventory or an adapter directory before they become part of a path."""

from __future__ import annotations

import re

from ._errors import DeliveryError

# One path component of at most 128 characters. It starts with a letter or digit, so it is neither
# an option nor hidden, and does not end with a dot.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_SHORT_DIGEST = re.compile(r"[0-9a-f]{12}")


def check_name(name: object, what: str = "adapter") -> str:
    """Return ``name`` if it is safe as one path component. Raises DeliveryError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DeliveryError.of(
            f"{what} {name!r}",
            "is not a valid name.",
            "Use letters, digits, '.', '_' and '-', at most 128 of them, beginning with a letter or digit"
            " and not ending in a dot.",
        )
    return name


def check_path(path: object, what: str = "file", depth: int = 2) -> str:
    """Return a relative path of at most ``depth`` components if each is a safe name.

    Raises DeliveryError otherwise.
    """
    parts = path.split("/") if isinstance(path, str) else []
    if not 1 < len(parts) <= depth:
        return check_name(path, what)
    for part in parts:
        check_name(part, f"{what} {path!r}:")
    return "/".join(parts)


def is_release_name(name: str) -> bool:
    """Return whether this is the name of a release: 12 hexadecimal digits of its digest."""
    return _SHORT_DIGEST.fullmatch(name) is not None
