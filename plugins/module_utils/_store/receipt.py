# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Receipts: the result of the load test of a release on this node."""

from __future__ import annotations

import typing as t

from .._files import read_json, write_json
from .._levels import LEVELS
from .._time import now
from .paths import AdapterPaths

SCHEMA = 1

# The key of ``limited_by`` in the file.
_LIMITED_BY = "why_not_more"


def read_receipt(paths: AdapterPaths, release: str) -> dict[str, t.Any] | None:
    """Return the receipt of a release, or None if there is no receipt of this schema."""
    receipt = read_json(paths.receipt(release))
    if not isinstance(receipt, dict) or receipt.get("schema") != SCHEMA or receipt.get("level") not in LEVELS:
        return None
    if not isinstance(receipt.get("versions"), dict):
        return None
    if _LIMITED_BY in receipt:
        receipt["limited_by"] = receipt.pop(_LIMITED_BY)
    return t.cast("dict[str, t.Any]", receipt)


def write_receipt(paths: AdapterPaths, release: str, receipt: dict[str, t.Any]) -> None:
    """Record a passed load test.

    ``receipt`` has at least level, device, versions and environment.
    """
    facts = {_LIMITED_BY if key == "limited_by" else key: value for key, value in receipt.items()}
    write_json(paths.receipt(release), {"schema": SCHEMA, "name": paths.name, "release": release, "at": now(), **facts})
