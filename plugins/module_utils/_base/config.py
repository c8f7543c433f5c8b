# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The option ``bases``: what the inventory and this host know about the base models."""

from __future__ import annotations

import hashlib
import os
import typing as t

from .._errors import DeliveryError
from .._files import open_linked, read_json
from .._formats.file_kinds import FETCH_LFS, is_lfs_pointer
from .._text import shown
from .weights import base_weights

PROVIDE_BASE = "Copy the complete base to this host, make it readable, or correct its path in bases."


_MOST_CONFIG = 1 << 28


def read_base_json(path: str, name: str) -> t.Any:
    """Return the parsed file ``name`` of the base at ``path``, or None if it does not exist."""
    file = os.path.join(path, name)
    # A snapshot in the Hub's cache consists of links.
    if os.path.isfile(file) and is_lfs_pointer(os.path.realpath(file)):
        raise DeliveryError.of(file, "is a Git LFS pointer, not the file itself.", FETCH_LFS)
    return read_json(file, PROVIDE_BASE)


def base_fingerprint(base: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return values that distinguish a base from others, without reading its weights.

    ``base`` may have ``path`` and ``config``. Raises DeliveryError when its files cannot be read.
    """
    path = base.get("path")
    if not path:
        return {"config": base.get("config")}
    try:
        with open_linked(os.path.join(path, "config.json")) as stream:
            config = hashlib.sha256(stream.read(_MOST_CONFIG)).hexdigest()
        stats = [(os.path.basename(weights), os.stat(weights)) for weights in base_weights(path)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DeliveryError.of(f"base {path}", f"is incomplete: {exc}.", PROVIDE_BASE) from exc
    return {"config": config, "weights": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}


def with_config(bases: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """Return ``bases``, and for each base with a ``path`` but no ``config``, its config.json.

    Raises DeliveryError for a path without config.json and for an invalid entry.
    """
    # A key without a value is None in YAML: a base about which nothing is known.
    known = {name: _checked(name, base or {}) for name, base in bases.items()}
    return {name: {**base, "config": base.get("config") or _config_at(name, base.get("path"))} for name, base in known.items()}


def _checked(name: str, base: t.Any) -> dict[str, t.Any]:
    """Return the entry of a base. Raises DeliveryError when it does not have the right form."""
    expected = "a dictionary of path, config and aliases"
    if isinstance(base, dict):
        aliases = base.get("aliases") or []
        forms = {
            "path as a string": isinstance(base.get("path") or "", str),
            "config as the content of a config.json": isinstance(base.get("config") or {}, dict),
            "aliases as a list of names": isinstance(aliases, list) and all(isinstance(alias, str) for alias in aliases),
        }
        expected = next((form for form, correct in forms.items() if not correct), "")
    if expected:
        raise DeliveryError.of(f"base {name}", f"is {shown(base)} in bases; expected {expected}.", "Correct the entry in bases.")
    return t.cast("dict[str, t.Any]", base)


def _config_at(name: str, path: str | None) -> dict[str, t.Any] | None:
    if not path:
        return None
    config = read_base_json(path, "config.json")
    if not isinstance(config, dict):
        raise DeliveryError.of(
            f"base {name}",
            f"has the path {path}, which contains no config.json.",
            "Correct the path of this base in bases, or copy the base there.",
        )
    return config
