# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What is known of the base models on this host."""

from __future__ import annotations

import hashlib
import os
import typing as t

from .._errors import DeliveryError
from .._files import read_json
from .weights import base_weights

BRING_BASE = "Bring the whole base to this host, let it be read, or correct its path."


def read_base_json(path: str, name: str) -> t.Any:
    """Parsed JSON of a file of the base at C(path), or None when there is no such file. Raises DeliveryError."""
    return read_json(os.path.join(path, name), BRING_BASE)


def base_fingerprint(base: dict[str, t.Any]) -> dict[str, t.Any]:
    """What tells one base from another without reading its weights. C(base) may have C(path) and C(config).

    Raises DeliveryError when the files of the base cannot be looked at.
    """
    path = base.get("path")
    if not path:
        return {"config": base.get("config")}
    try:
        with open(os.path.join(path, "config.json"), "rb") as stream:
            config = hashlib.sha256(stream.read()).hexdigest()
        stats = [(os.path.basename(weights), os.stat(weights)) for weights in base_weights(path)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DeliveryError.of(f"base {path}", f"is not whole: {exc}.", BRING_BASE) from exc
    return {"config": config, "weights": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}


def with_config(bases: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """Return C(bases) with the config.json of each base that has a path on this host and no config in the inventory.

    Raises DeliveryError when a path holds no config.json, or what is said of a base cannot be what was meant.
    """
    # A key without a value in YAML is None: a base of which nothing is known.
    known = {name: _checked(name, base or {}) for name, base in bases.items()}
    return {name: {**base, "config": base.get("config") or _config_at(name, base.get("path"))} for name, base in known.items()}


def _checked(name: str, base: t.Any) -> dict[str, t.Any]:
    """What the inventory says of a base. Raises DeliveryError where it is not of the form that it has to have."""
    form = "a base has keys below its name"
    if isinstance(base, dict):
        aliases = base.get("aliases") or []
        wrong = {
            "path is text": isinstance(base.get("path") or "", str),
            "config is what config.json holds, or nothing": isinstance(base.get("config") or {}, dict),
            "aliases is a list of names": isinstance(aliases, list) and all(isinstance(alias, str) for alias in aliases),
        }
        form = next((words for words, right in wrong.items() if not right), "")
    if form:
        remedy = "Correct it in agent_bases, at the training server in training_bases."
        raise DeliveryError.of(f"base {name}", f"is said to be {base!r}: {form}.", remedy)
    return t.cast("dict[str, t.Any]", base)


def _config_at(name: str, path: t.Optional[str]) -> t.Optional[dict[str, t.Any]]:
    if not path:
        return None
    config = read_base_json(path, "config.json")
    if not isinstance(config, dict):
        raise DeliveryError.of(
            f"base {name}",
            f"is said to lie at {path}, where there is no config.json.",
            "Correct the path of this base in the inventory, or put the base there.",
        )
    return config
