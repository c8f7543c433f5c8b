# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Plan the activation of a release. Reads only: check mode runs the same code."""

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
from .displaced import QUARANTINE, adopted_path, disposition_of, known_manifests
from .paths import AdapterPaths
from .permissions import Permissions, check_link_readable
from .receipt import read_receipt
from .recovery import recovered
from .retention import expired_releases
from .served import ABSENT, DIRECTORY, LINK, Served, inspect_served
from .state import ROLL_BACK, State, read_state

# Where an intact copy of the release is.
IN_STORE = "store"
IN_STAGING = "staging"
SERVED = "served"
# Check mode only: adapter_sync would have staged it.
NOT_STAGED = "not staged"

ACTIVATED = "activated"
ROLLED_BACK = "rolled_back"
REPAIRED = "repaired"
UNCHANGED = "unchanged"


@dataclasses.dataclass(frozen=True)
class ActivationOptions:
    """The options that apply to all adapters of a transaction.

    ``required_level`` is the level that a receipt must reach. ``in_engines`` returns the releases
    of an adapter that engines use, or None if that is not known: then none of its releases expires.
    ``before_swap`` gets each plan that was prepared, before the served path changes.
    Raises DeliveryError unless ``keep`` is positive.
    """

    required_level: str
    activation: str
    keep: int
    permissions: Permissions
    run: str = ""
    lock_timeout: float = 0
    in_engines: t.Callable[[str], frozenset[str] | None] = lambda _name: frozenset()
    before_swap: t.Callable[[Plan], None] = lambda _plan: None

    def __post_init__(self) -> None:
        check_keep(self.keep)


def check_keep(keep: int) -> None:
    """Raise DeliveryError unless at least one release is kept."""
    if keep < 1:
        raise DeliveryError.of("keep", f"is {keep}.", "Keep at least one release.")


@dataclasses.dataclass(frozen=True)
class Request:
    """A request to activate ``manifest`` or, without one, to roll back.

    The target of a rollback is ``release``, by default the previous one. ``refused`` is whether an
    engine has refused the active release, so that no rollback must lead back to it.
    """

    paths: AdapterPaths
    manifest: Manifest | None = None
    release: str | None = None
    refused: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """The changes that a transaction makes for one adapter."""

    request: Request
    manifest: Manifest
    before: State
    before_manifest: Manifest | None
    receipt: dict[str, t.Any] | None
    # The activation method.
    method: str
    action: str
    source: str
    # The state to record.
    after: State
    # The manifest is new, or now has a golden, a base or versions.
    save_manifest: bool
    # Set modes or owners in place, of the release and of the served directory.
    set_release_permissions: bool
    set_served_permissions: bool
    # Replace whatever is at the served path.
    replace_served: bool
    served: Served
    drift: tuple[Difference, ...]
    # Where displaced content will be quarantined, if there is any.
    adopted: str | None
    # The releases to prune.
    expired: tuple[str, ...]

    @property
    def release(self) -> str:
        return self.manifest.release


def make_plan(
    request: Request, options: ActivationOptions, before: State, can_exchange: t.Callable[[], bool], check_mode: bool = False
) -> Plan:
    """Plan what to do for one adapter. Raises DeliveryError when it must not or cannot be done.

    ``before`` is the recorded state before recovery: what an interrupted run did without reporting
    it counts as done by this one.
    """
    paths = request.paths
    state = recovered(paths, read_state(paths))
    manifest = request.manifest or _rollback_manifest(request, before, state)
    release = manifest.release
    # A load test in check mode writes no receipt, so a missing one means nothing then.
    receipt = _receipt(paths, release, options.required_level, lenient=check_mode and request.manifest is not None)
    served = inspect_served(paths)
    method = activation_method(paths, options.activation, state.method, served, can_exchange)

    if method == SYMLINK:
        check_link_readable(options.permissions)

    in_store = options.permissions.of_store().differences(paths.release(release), manifest)
    in_served = options.permissions.differences(paths.served, manifest) if served.kind == DIRECTORY else []
    if method == SYMLINK:
        replace_served = served != Served(LINK, release)
    else:
        replace_served = served.kind != DIRECTORY or bool(in_content(in_served))
    drift = _drift(paths, release, in_store, in_served, served, replace_served, method) if before.active == release else ()

    if before.active != release:
        action = ACTIVATED if request.manifest is not None else ROLLED_BACK
    else:
        action = REPAIRED if drift else UNCHANGED
    after = state.activated(release, method, request.refused)
    return Plan(
        request=request,
        manifest=manifest,
        before=before,
        before_manifest=_manifest_before(paths, before, manifest),
        receipt=receipt,
        method=method,
        action=action,
        source=_source(request, manifest, in_store, served, in_served, check_mode),
        after=after,
        save_manifest=_recorded_manifest(paths, release) != manifest,
        set_release_permissions=bool(in_store) and not in_content(in_store),
        set_served_permissions=bool(in_served) and not replace_served,
        replace_served=replace_served,
        served=served,
        drift=drift,
        adopted=_adopted(paths, manifest, in_store, served, replace_served),
        expired=_expired(paths, after, options, served.release, release),
    )


def _expired(paths: AdapterPaths, after: State, options: ActivationOptions, linked: str | None, target: str) -> tuple[str, ...]:
    """Return the releases to prune: none that an engine uses, whatever the store's state says."""
    used = options.in_engines(paths.name)
    if used is None:
        return ()
    return tuple(name for name in expired_releases(paths, after, options.keep, linked, target) if name not in used)


def _recorded_manifest(paths: AdapterPaths, release: str) -> Manifest | None:
    """Return the stored manifest of a release, or None if there is none or it is damaged."""
    try:
        return paths.read_manifest(release)
    except DeliveryError:
        return None


def _rollback_manifest(request: Request, before: State, state: State) -> Manifest:
    paths = request.paths
    wanted = request.release
    if wanted is None:
        interrupted = before.intent is not None and before.intent.step == ROLL_BACK and state.active != before.active
        # Finish an interrupted rollback: a second one would return to the release that was left.
        wanted = state.active if interrupted else before.previous
    if wanted is None:
        # The releases are still there when the recorded state was lost.
        others = ", ".join(name for name in paths.release_names() if name != state.active)
        remedy = f"Name one of those in the store: {others}." if others else "Deploy the release that you want instead."
        raise DeliveryError.of("", "has no previous release on this node to roll back to.", remedy)
    manifest = paths.read_manifest(wanted)
    if manifest is None or manifest.release != wanted:
        known = ", ".join(paths.release_names()) or "none"
        raise DeliveryError.of(
            f"release {wanted}",
            f"is not in the store of this node (available: {known}).",
            "Roll back to an available release, or deploy this one from the training server.",
        )
    return manifest


def _receipt(paths: AdapterPaths, release: str, level: str, lenient: bool) -> dict[str, t.Any] | None:
    receipt = read_receipt(paths, release)
    if lenient or (receipt is not None and reaches(receipt["level"], level)):
        return receipt
    found = "was not verified" if receipt is None else f"was verified at level {receipt['level']} only"
    raise DeliveryError.of(
        f"release {release}",
        f"{found} on this node, level {level} is required.",
        "Run the load test at that level first; nothing was activated.",
    )


def not_exchangeable(paths: AdapterPaths, reason: str) -> DeliveryError:
    """Return the error for a served directory that cannot be replaced atomically."""
    remedy = f"In a maintenance window, move it aside (mv {paths.served} {paths.served}.old) and run again."
    return DeliveryError.of(paths.served, reason, remedy)


def activation_method(
    paths: AdapterPaths, wanted: str, recorded: str | None, served: Served, can_exchange: t.Callable[[], bool]
) -> str:
    """Return the activation method: exchange or symlink.

    ``wanted`` is the option, ``recorded`` the method in the adapter's state. Raises DeliveryError
    where the file system does not support it.
    """
    # Auto keeps the recorded method, so that a run with nothing to do does not probe the file
    # system.
    if wanted == AUTO and recorded is not None:
        return activation_method(paths, recorded, recorded, served, can_exchange)
    if wanted == SYMLINK:
        if served.kind == DIRECTORY and not can_exchange():
            raise not_exchangeable(paths, "is a plain directory, and this file system cannot exchange it for a link in one step.")
        return SYMLINK
    # No probe either where it has worked before.
    if recorded == EXCHANGE or can_exchange():
        return EXCHANGE
    if wanted == EXCHANGE:
        raise DeliveryError.of(
            paths.served,
            "cannot be exchanged in one step: the file system or kernel of this node does not support it.",
            "Set activation to auto or symlink.",
        )
    return activation_method(paths, SYMLINK, recorded, served, lambda: False)


def _source(
    request: Request,
    manifest: Manifest,
    in_store: list[Difference],
    served: Served,
    in_served: list[Difference],
    check_mode: bool,
) -> str:
    """Return where an intact copy of the release is. Raises DeliveryError when there is none."""
    paths, release = request.paths, manifest.release
    if not in_content(in_store):
        return IN_STORE
    is_served = served.kind == DIRECTORY and not in_content(in_served)
    # The staged files are hashed when they enter the store, before anything served changes. Here
    # only if the served ones could be used instead, and where nothing enters the store.
    staged = in_content(differences(paths.staged(release), manifest, content=is_served or check_mode))
    if not staged:
        return IN_STAGING
    if is_served:
        return SERVED
    if check_mode and request.manifest is not None:
        return NOT_STAGED
    subject = f"release {release}"
    remedy = "Deploy it again from the training server."
    if os.path.lexists(paths.release(release)):
        problem = f"is damaged in the store: {in_content(in_store)[0].line()}. There is no intact copy on this node."
        raise DeliveryError.of(subject, problem, remedy)
    if os.path.lexists(paths.staged(release)):
        raise DeliveryError.of(subject, f"does not match its manifest in {paths.staged(release)}: {staged[0].line()}.", remedy)
    raise DeliveryError.of(subject, "is neither in the store nor staged on this node.", remedy)


def _drift(
    paths: AdapterPaths,
    release: str,
    in_store: list[Difference],
    in_served: list[Difference],
    served: Served,
    replace_served: bool,
    method: str,
) -> tuple[Difference, ...]:
    found = [
        difference.below(directory)
        for directory, differing in ((paths.served, in_served), (paths.release(release), in_store))
        for difference in differing
    ]
    if replace_served and not in_served:
        wanted = f"a link to {release}" if method == SYMLINK else DIRECTORY
        actual = f"{served.kind} to {served.release}" if served.kind == LINK else served.kind
        kind = MISSING if served.kind == ABSENT else CHANGED
        found.insert(0, Difference(kind, paths.served, f"{actual} instead of {wanted}"))
    return tuple(found)


def _adopted(
    paths: AdapterPaths, manifest: Manifest, in_store: list[Difference], served: Served, replace_served: bool
) -> str | None:
    displaced = []
    if replace_served and served.kind == DIRECTORY:
        displaced.append(paths.served)
    if in_content(in_store) and os.path.lexists(paths.release(manifest.release)):
        displaced.append(paths.release(manifest.release))
    manifests = [manifest, *known_manifests(paths)]
    intact = {manifest.release}
    unknown = any(disposition_of(paths, path, manifests, intact)[0] == QUARANTINE for path in displaced)
    return adopted_path(paths) if unknown else None


def _manifest_before(paths: AdapterPaths, before: State, manifest: Manifest) -> Manifest | None:
    """Return the manifest of the release that was active.

    For the diff only, so a damaged one counts as none.
    """
    if before.active is None or before.active == manifest.release:
        return None if before.active is None else manifest
    return next((known for known in known_manifests(paths) if known.release == before.active), None)
