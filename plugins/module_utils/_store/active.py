# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The active release of an adapter on this node, read without opening the release's files."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .compare import CHANGED, MISSING, Difference
from .paths import AdapterPaths
from .receipt import read_receipt
from .recovery import recovered
from .served import ABSENT, LINK, inspect_served
from .state import Activation, read_state


@dataclasses.dataclass(frozen=True)
class Active:
    """The active release of one adapter; fields are None where nothing is recorded.

    ``directories`` must match ``manifest`` exactly: the release, and the served directory unless
    that is a link to the release. ``wrong`` holds the differences that were found without reading
    these directories.
    """

    release: str | None = None
    previous: str | None = None
    since: str | None = None
    # The activation method.
    activation: str | None = None
    history: tuple[Activation, ...] = ()
    receipt: dict[str, t.Any] | None = None
    manifest: Manifest | None = None
    directories: tuple[str, ...] = ()
    wrong: tuple[Difference, ...] = ()

    def to_json(self) -> dict[str, t.Any]:
        """Return the part of a result of adapter_release_info that describes the active release."""
        return {
            "release": self.release,
            **(self.manifest.content() if self.manifest else {"digest": None, "size": None, "files": [], "made_of": None}),
            "previous": self.previous,
            "since": self.since,
            "activation": self.activation,
            "history": [dataclasses.asdict(entry) for entry in self.history],
            "receipt": self.receipt,
        }


def inspect_active(paths: AdapterPaths) -> Active:
    """Inspect the active release of an adapter. Reads only.

    Raises DeliveryError for a damaged state or receipt.
    """
    recorded = read_state(paths)
    state = recovered(paths, recorded)
    if state.active is None:
        unmanaged = f"; {paths.served} was not deployed by this collection" if os.path.lexists(paths.served) else ""
        return Active(wrong=(Difference(MISSING, "", f"no active release on this node{unmanaged}"),))
    wrong = []
    receipt = read_receipt(paths, state.active)
    if receipt is None:
        wrong.append(Difference(MISSING, paths.receipt(state.active), "this release has no valid receipt on this node"))
    active = Active(
        release=state.active,
        previous=state.previous,
        # The time of a step that a crash interrupted is unknown.
        since=next((entry.at for entry in recorded.history if entry.release == state.active == recorded.active), None),
        activation=state.method,
        history=state.history,
        receipt=receipt,
        wrong=tuple(wrong),
    )
    try:
        served = inspect_served(paths)
        manifest = paths.read_manifest(state.active)
    except DeliveryError as exc:
        return dataclasses.replace(active, wrong=(*wrong, Difference(CHANGED, "", str(exc))))
    if manifest is None:
        wrong.append(Difference(MISSING, paths.manifest(state.active), "the served files cannot be verified without it"))
        return dataclasses.replace(active, wrong=tuple(wrong))
    directories = [paths.release(state.active)]
    if served.kind == ABSENT:
        wrong.append(Difference(MISSING, paths.served, "the adapter is not served"))
    elif served.kind != LINK:
        directories.insert(0, paths.served)
    elif served.release != state.active:
        wrong.append(Difference(CHANGED, paths.served, f"leads to release {served.release} instead of {state.active}"))
    return dataclasses.replace(active, manifest=manifest, directories=tuple(directories), wrong=tuple(wrong))
