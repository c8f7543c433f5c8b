# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Add the facts that only the training server knows to a manifest: golden, base and versions."""

from __future__ import annotations

import dataclasses
import typing as t

from .._adapter.manifest import Manifest
from .._errors import Problem
from .golden import other_releases, read_golden

RECORDED = "recorded"
STALE = "stale"
NONE = "none"


def attach_golden(manifest: Manifest, golden_dir: str, identity: dict[str, t.Any] | None) -> tuple[Manifest, str, Problem | None]:
    """Return the manifest with its golden, the state of the golden, and the problem if it has none.

    ``identity`` is the identity of the base at its path on this host. The golden has one too, for a
    host without a path. Raises DeliveryError for a damaged golden.
    """
    golden = read_golden(golden_dir, manifest)
    if golden is not None:
        versions = {**golden.recorded["versions"], **manifest.versions}
        attached = dataclasses.replace(manifest, golden=golden.to_json(), base=identity or golden.base, versions=versions)
        return attached, RECORDED, None
    others = other_releases(golden_dir, manifest)
    state, text = NONE, "has no golden."
    if others:
        state = STALE
        text = f"has a stale golden: it belongs to release {', '.join(others)}, not to {manifest.release}."
    problem = Problem("", text, "Record one on the training server with adapter_golden.", manifest.name)
    return dataclasses.replace(manifest, base=identity), state, problem
