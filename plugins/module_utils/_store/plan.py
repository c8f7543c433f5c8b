# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Deciding what has to be done to make a release the active one. Reads only, so that check mode is the same code."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._activation import AUTO, EXCHANGE, SYMLINK
from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._levels import reaches
from .compare import (
    CHANGED,
    MISSING,
    Difference,
    differences,
    in_content,
)
from .displaced import ADOPT, adopted_path, fate_of, known_manifests
from .paths import AdapterPaths
from .permissions import Permissions
from .receipt import read_receipt
from .recovery import settled
from .retention import prunable
from .served import ABSENT, DIRECTORY, LINK, Live, look_at_live
from .state import ROLL_BACK, State, read_state

# Where whole bytes of the release are.
IN_STORE = "store"
IN_STAGING = "staging"
AT_NAME = "live"
# Check mode only: adapter_sync would have brought them.
NOT_YET = "not yet"

ACTIVATED = "activated"
ROLLED_BACK = "rolled_back"
REPAIRED = "repaired"
UNCHANGED = "unchanged"


@dataclasses.dataclass(frozen=True)
class Options:
    """What holds for all adapters of a call. C(level) is the least level that a receipt must show.

    Raises DeliveryError when it would keep nothing.
    """

    level: str
    activation: str
    keep: int
    permissions: Permissions
    run: str = ""
    lock_timeout: float = 0

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise DeliveryError.of("keep", f"is {self.keep}.", "Keep at least one release.")


@dataclasses.dataclass(frozen=True)
class Request:
    """What is wanted of one adapter: C(manifest) active or, without one, back to C(release) or the previous release."""

    paths: AdapterPaths
    manifest: t.Optional[Manifest] = None
    release: t.Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is going to be done for one adapter."""

    request: Request
    manifest: Manifest
    before: State
    before_manifest: t.Optional[Manifest]
    receipt: t.Optional[dict[str, t.Any]]
    way: str
    action: str
    source: str
    # What is going to be recorded.
    after: State
    # The manifest too: for the first time, or with what was learnt since (a golden, the base, versions).
    record_manifest: bool
    # Modes or owners of the release, or of the directory at NAME, are to be set where they are.
    release_permissions: bool
    live_permissions: bool
    # NAME is to be put in place anew, over what stands there.
    place: bool
    live: Live
    drift: tuple[Difference, ...]
    adopted: t.Optional[str]
    prune: tuple[str, ...]

    @property
    def release(self) -> str:
        return self.manifest.release


def make_plan(
    request: Request, options: Options, before: State, can_exchange: t.Callable[[], bool], check_mode: bool = False
) -> Plan:
    """Decide what has to be done for one adapter.

    C(before) is the state as it was recorded before C(settle): what an interrupted run did and nobody was told of counts
    as done by this one. Raises DeliveryError when it must not or cannot be done.
    """
    paths = request.paths
    state = settled(paths, read_state(paths))
    manifest = request.manifest or _manifest_to_go_back_to(request, before, state)
    release = manifest.release
    # A load test in check mode writes no receipt, so the lack of one says nothing then.
    receipt = _receipt(paths, release, options.level, lenient=check_mode and request.manifest is not None)
    live = look_at_live(paths)
    way = _way(paths, options, state, live, can_exchange)

    in_store = options.permissions.differences(paths.release(release), manifest)
    at_name = options.permissions.differences(paths.live, manifest) if live.kind == DIRECTORY else []
    in_place = live == Live(LINK, release) if way == SYMLINK else live.kind == DIRECTORY and not in_content(at_name)
    place = not in_place
    release_permissions = bool(in_store) and not in_content(in_store)
    live_permissions = bool(at_name) and not place
    source = _source(request, manifest, in_store, live, at_name, check_mode)
    drift = _drift(paths, release, in_store, at_name, live, place, way) if before.active == release else ()

    if before.active != release:
        action = ACTIVATED if request.manifest is not None else ROLLED_BACK
    else:
        action = REPAIRED if drift else UNCHANGED
    after = state.activated(release, way)
    return Plan(
        request=request,
        manifest=manifest,
        before=before,
        before_manifest=_manifest_of_active(paths, before, manifest),
        receipt=receipt,
        way=way,
        action=action,
        source=source,
        after=after,
        record_manifest=_recorded(paths, release) != manifest,
        release_permissions=release_permissions,
        live_permissions=live_permissions,
        place=place,
        live=live,
        drift=drift,
        adopted=_adopted(paths, manifest, in_store, live, place),
        prune=tuple(prunable(paths, after, options.keep, live.release, release)),
    )


def _recorded(paths: AdapterPaths, release: str) -> t.Optional[Manifest]:
    """The recorded manifest of a release; one that is damaged is none."""
    try:
        return paths.read_manifest(release)
    except DeliveryError:
        return None


def _manifest_to_go_back_to(request: Request, before: State, state: State) -> Manifest:
    paths = request.paths
    wanted = request.release
    if wanted is None:
        interrupted = before.intent is not None and before.intent.step == ROLL_BACK and state.active != before.active
        # Going back a second time would return: an interrupted one is finished instead.
        wanted = state.active if interrupted else before.previous
    if wanted is None:
        # Where the recorded state was lost, the releases are still there.
        others = ", ".join(name for name in paths.release_names() if name != state.active)
        remedy = f"Name one of those in the store: {others}." if others else "Deploy the release that you want instead."
        raise DeliveryError.of(paths.name, "has no previous release on this node to go back to.", remedy)
    manifest = paths.read_manifest(wanted)
    if manifest is None or manifest.release != wanted:
        known = ", ".join(paths.release_names()) or "none"
        raise DeliveryError.of(
            f"{paths.name}, release {wanted}",
            f"is not in the store of this node (there: {known}).",
            "Go back to one that is there, or deploy it from the training server.",
        )
    return manifest


def _receipt(paths: AdapterPaths, release: str, level: str, lenient: bool) -> t.Optional[dict[str, t.Any]]:
    receipt = read_receipt(paths, release)
    if lenient or (receipt is not None and reaches(receipt["level"], level)):
        return receipt
    found = "was not verified" if receipt is None else f"was verified at level {receipt['level']} only"
    raise DeliveryError.of(
        f"{paths.name}, release {release}",
        f"{found} on this node, level {level} is required.",
        "Run the load test at that level first; nothing was activated.",
    )


def not_exchangeable(paths: AdapterPaths, why: str) -> DeliveryError:
    """What stands at NAME cannot be replaced without a moment in which there is nothing."""
    remedy = f"In a maintenance window, move it aside (mv {paths.live} {paths.live}.old) and run again."
    return DeliveryError.of(f"{paths.name}: {paths.live}", why, remedy)


def _way(paths: AdapterPaths, options: Options, state: State, live: Live, can_exchange: t.Callable[[], bool]) -> str:
    # What auto came to once, or was asked for then, it stays with: a node that has nothing to do is not probed each time.
    if options.activation == AUTO and state.way is not None:
        return _way(paths, dataclasses.replace(options, activation=state.way), state, live, can_exchange)
    if options.activation == SYMLINK:
        if live.kind == DIRECTORY and not can_exchange():
            raise not_exchangeable(paths, "is a plain directory, and this file system cannot exchange it for a link in one step.")
        return SYMLINK
    # Once it worked here it works again: no probe on a run that has nothing to do.
    if state.way == EXCHANGE or can_exchange():
        return EXCHANGE
    if options.activation == EXCHANGE:
        raise DeliveryError.of(
            f"{paths.name}: {paths.live}",
            "cannot be exchanged in one step: the file system or kernel of this node does not support it.",
            "Set activation to auto or symlink.",
        )
    return _way(paths, dataclasses.replace(options, activation=SYMLINK), state, live, lambda: False)


def _source(
    request: Request, manifest: Manifest, in_store: list[Difference], live: Live, at_name: list[Difference], check_mode: bool
) -> str:
    paths, release = request.paths, manifest.release
    if not in_content(in_store):
        return IN_STORE
    staged = in_content(differences(paths.staged(release), manifest))
    if not staged:
        return IN_STAGING
    if live.kind == DIRECTORY and not in_content(at_name):
        return AT_NAME
    if check_mode and request.manifest is not None:
        return NOT_YET
    subject = f"{paths.name}, release {release}"
    remedy = "Deploy it again from the training server."
    if os.path.lexists(paths.release(release)):
        raise DeliveryError.of(
            subject, f"is damaged in the store: {in_content(in_store)[0].line()}. No whole copy is on this node.", remedy
        )
    if os.path.lexists(paths.staged(release)):
        raise DeliveryError.of(subject, f"is not whole in {paths.staged(release)}: {staged[0].line()}.", remedy)
    raise DeliveryError.of(subject, "is neither in the store nor staged on this node.", remedy)


def _drift(
    paths: AdapterPaths,
    release: str,
    in_store: list[Difference],
    at_name: list[Difference],
    live: Live,
    place: bool,
    way: str,
) -> tuple[Difference, ...]:
    found = [
        dataclasses.replace(difference, path=os.path.normpath(os.path.join(directory, difference.path)))
        for directory, differing in ((paths.live, at_name), (paths.release(release), in_store))
        for difference in differing
    ]
    if place and not at_name:
        wanted = f"a link to {release}" if way == SYMLINK else DIRECTORY
        standing = f"{live.kind} to {live.release}" if live.kind == LINK else live.kind
        kind = MISSING if live.kind == ABSENT else CHANGED
        found.insert(0, Difference(kind, paths.live, f"{standing} instead of {wanted}"))
    return tuple(found)


def _adopted(paths: AdapterPaths, manifest: Manifest, in_store: list[Difference], live: Live, place: bool) -> t.Optional[str]:
    going = []
    if place and live.kind == DIRECTORY:
        going.append(paths.live)
    if in_content(in_store) and os.path.lexists(paths.release(manifest.release)):
        going.append(paths.release(manifest.release))
    manifests = [manifest, *known_manifests(paths)]
    unknown = any(fate_of(paths, path, manifests, whole={manifest.release})[0] == ADOPT for path in going)
    return adopted_path(paths) if unknown else None


def _manifest_of_active(paths: AdapterPaths, before: State, manifest: Manifest) -> t.Optional[Manifest]:
    """For the diff only, so a damaged one is none."""
    if before.active is None or before.active == manifest.release:
        return None if before.active is None else manifest
    return next((known for known in known_manifests(paths) if known.release == before.active), None)
