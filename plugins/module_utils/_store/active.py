# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What is active of one adapter on this node, as far as can be told without opening any of its files."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .paths import AdapterPaths
from .receipt import read_receipt
from .recovery import settled
from .served import ABSENT, LINK, look_at_live
from .state import Activation, read_state


@dataclasses.dataclass(frozen=True)
class Active:
    """The active and the previous release, since when, how NAME leads to it, and its receipt; None where there is none.

    C(history) is what was active up to now, as the state records it.

    C(directories) are those that must hold exactly what C(manifest) says: what people open and the release, or the release
    alone where NAME is a link to it. C(wrong) is what is wrong already, one line each.
    """

    release: t.Optional[str] = None
    previous: t.Optional[str] = None
    since: t.Optional[str] = None
    activation: t.Optional[str] = None
    history: tuple[Activation, ...] = ()
    receipt: t.Optional[dict[str, t.Any]] = None
    manifest: t.Optional[Manifest] = None
    directories: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    def to_json(self) -> dict[str, t.Any]:
        """All but C(directories) and C(wrong), as adapter_release_info returns it."""
        return {
            "release": self.release,
            **(self.manifest.content() if self.manifest else {"digest": None, "size": None, "files": []}),
            "previous": self.previous,
            "since": self.since,
            "activation": self.activation,
            "history": [dataclasses.asdict(entry) for entry in self.history],
            "receipt": self.receipt,
        }


def look_at_active(paths: AdapterPaths) -> Active:
    """Look at what is active of an adapter. Reads only. Raises DeliveryError for a state or a receipt that is damaged."""
    recorded = read_state(paths)
    state = settled(paths, recorded)
    if state.active is None:
        by_hand = f", {paths.live} was not delivered" if os.path.lexists(paths.live) else ""
        return Active(wrong=(f"missing  no release of it is active on this node{by_hand}",))
    wrong = []
    receipt = read_receipt(paths, state.active)
    if receipt is None:
        wrong.append(f"missing  {paths.receipt(state.active)}  nothing says that this release was tested here")
    active = Active(
        release=state.active,
        previous=state.previous,
        # Of a step that a crash left, nobody knows when it was done.
        since=next((entry.at for entry in recorded.history if entry.release == state.active == recorded.active), None),
        activation=state.way,
        history=state.history,
        receipt=receipt,
        wrong=tuple(wrong),
    )
    try:
        live = look_at_live(paths)
        manifest = paths.read_manifest(state.active)
    except DeliveryError as exc:
        return dataclasses.replace(active, wrong=(*wrong, f"changed  {exc}"))
    if manifest is None:
        wrong.append(f"missing  {paths.manifest(state.active)}  what is served cannot be compared with anything")
        return dataclasses.replace(active, wrong=tuple(wrong))
    directories = [paths.release(state.active)]
    if live.kind == ABSENT:
        wrong.append(f"missing  {paths.live}  nothing is served under this name")
    elif live.kind != LINK:
        directories.insert(0, paths.live)
    elif live.release != state.active:
        wrong.append(f"changed  {paths.live}  leads to release {live.release} instead of {state.active}")
    return dataclasses.replace(active, manifest=manifest, directories=tuple(directories), wrong=tuple(wrong))
