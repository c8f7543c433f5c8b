# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Carry out a plan in a crash-safe order.

First the releases of all adapters enter the store, and their served copies are prepared. Then, for
each adapter, the served path and the recorded state follow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import typing as t

from .._activation import EXCHANGE, SYMLINK
from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._files import copy_file, fsync_directory, opened, write_json
from .._linux.rename import exchange, is_unsupported, rename_noreplace
from .displaced import dispose
from .paths import AdapterPaths
from .permissions import Permissions, set_permissions
from .plan import (
    ACTIVATED,
    IN_STAGING,
    ROLLED_BACK,
    SERVED,
    ActivationOptions,
    Plan,
    not_exchangeable,
)
from .recovery import finish_swap, inode_of, pending_path
from .retention import drop_staging, forget_absent, prune
from .served import ABSENT, LINK, link_target
from .state import ACTIVATE, PROMOTE, RETURN, ROLL_BACK, Intent, State, write_state
from .trash import empty_trash, remove


def prepare(plan: Plan, state: State, options: ActivationOptions) -> str | None:
    """Bring the release into the store and prepare what will replace the served path.

    What is served stays as it is. ``state`` is the state after recovery. The caller holds the lock.
    Returns the path of what was quarantined, if anything was. After an OSError or DeliveryError,
    ``recover`` makes the adapter consistent again.
    """
    paths = plan.request.paths
    # First, so that a later run can recognize a displaced copy of this release.
    if plan.save_manifest:
        write_json(paths.manifest(plan.release), plan.manifest.to_json())
    adopted = None
    if plan.source in (IN_STAGING, SERVED):
        adopted = _promote(plan, state, options)
    elif plan.set_release_permissions:
        _set_verified(paths.release(plan.release), plan, options)
    _take_over_others(plan, options)
    if plan.replace_served:
        _prepare_served(plan, options)
    return adopted


def activate(plan: Plan, state: State, options: ActivationOptions) -> str | None:
    """Serve the release of a plan that was prepared, and record that.

    ``state``, the lock and the result are those of ``prepare``. After an OSError or DeliveryError,
    ``recover`` makes the adapter consistent again, with the old or the new release served.
    """
    paths, adopted = plan.request.paths, None
    options.before_swap(plan)
    if plan.set_served_permissions:
        set_permissions(paths.served, plan.manifest, options.permissions)
    if plan.replace_served:
        adopted = _replace_served(plan, state)
    after = plan.after.without(plan.expired)
    # A replaced served path has left an intent in the recorded state, which must be cleared even if
    # nothing else changes.
    if plan.replace_served or after != state:
        write_state(paths, after)
    _tidy(plan, after)
    return adopted


def _promote(plan: Plan, state: State, options: ActivationOptions) -> str | None:
    """Make the staged or served files the stored release."""
    paths, release = plan.request.paths, plan.release
    staged, target = paths.staged(release), paths.release(release)
    if plan.source == SERVED:
        if os.path.lexists(staged):
            remove(staged)
        copy_release(paths.served, staged, plan.manifest, options.permissions.of_store())
    _set_verified(staged, plan, options)
    adopted = None
    if os.path.lexists(target):
        adopted = _replace_release(paths, release, state)
    else:
        os.rename(staged, target)
    fsync_directory(paths.releases)
    fsync_directory(paths.staging)
    return adopted


def _set_verified(directory: str, plan: Plan, options: ActivationOptions) -> None:
    """Set owners and modes of a release, then read back every byte: no other owner writes now."""
    stored = options.permissions.of_store()
    # This also flushes every file to disk.
    set_permissions(directory, plan.manifest, stored)
    found = stored.differences(directory, plan.manifest)
    if found:
        raise DeliveryError.of(
            f"release {plan.release}",
            f"does not match its manifest in {directory}: {found[0].line()}.",
            "Deploy it again from the training server.",
        )


def _take_over_others(plan: Plan, options: ActivationOptions) -> None:
    """Take over the other releases in the store that belong to the owner of served files.

    Earlier versions of the collection gave them away. What that user did to them until now is
    found by the hashes when one of them is activated.
    """
    paths, stored = plan.request.paths, options.permissions.of_store()
    for release in paths.release_names() if stored.uid is not None else ():
        directory = paths.release(release)
        if release == plan.release or os.lstat(directory).st_uid == stored.uid:
            continue
        # A damaged one stays as it is: nothing is activated from it.
        with contextlib.suppress(DeliveryError, OSError):
            manifest = paths.read_manifest(release)
            if manifest is not None:
                set_permissions(directory, manifest, stored)


def _replace_release(paths: AdapterPaths, release: str, state: State) -> str | None:
    """Replace a damaged release in the store with the staged one."""
    staged, target, prepared = paths.staged(release), paths.release(release), pending_path(paths, release)
    intent = _begin(paths, state, PROMOTE, release, staged, EXCHANGE)
    os.rename(staged, prepared)
    try:
        exchange(prepared, target)
    except OSError as exc:
        if not is_unsupported(exc):
            raise
        # The store lacks the release for a moment; the one that was there is damaged.
        adopted = dispose(paths, target)
        os.rename(prepared, target)
    else:
        adopted = finish_swap(paths, intent)
    write_state(paths, state)
    return adopted


def _prepare_served(plan: Plan, options: ActivationOptions) -> None:
    """Create the copy of the release, or the link to it. ``recover`` deletes it if it is unused."""
    paths, release = plan.request.paths, plan.release
    prepared = pending_path(paths, release)
    if plan.method == SYMLINK:
        os.symlink(link_target(paths, release), prepared)
    else:
        copy_release(paths.release(release), prepared, plan.manifest, options.permissions)
    fsync_directory(paths.root)


def _replace_served(plan: Plan, state: State) -> str | None:
    """Make the served path hold or lead to the release.

    Returns the path of what was quarantined, if anything was.
    """
    paths, release = plan.request.paths, plan.release
    prepared = pending_path(paths, release)
    step = RETURN if plan.request.refused else ROLL_BACK if plan.action == ROLLED_BACK else ACTIVATE
    intent = _begin(paths, state, step, release, prepared, plan.method)
    if plan.served.kind == ABSENT:
        _rename_to_free(prepared, paths.served)
    elif plan.served.kind == LINK and plan.method == SYMLINK:
        os.rename(prepared, paths.served)
    else:
        _exchange_with_served(paths, prepared)
    return finish_swap(paths, intent)


def _exchange_with_served(paths: AdapterPaths, prepared: str) -> None:
    try:
        exchange(prepared, paths.served)
    except OSError as exc:
        # Planning has checked that both are on one file system, and that it supports the exchange.
        if exc.errno == errno.EXDEV:
            reason = (
                "can be neither exchanged nor renamed: it is part of a container image (a lower layer of an overlay),"
                " or has another project quota than the store."
            )
            raise not_exchangeable(paths, reason) from exc
        raise


def _begin(paths: AdapterPaths, state: State, step: str, release: str, new: str, method: str) -> Intent:
    intent = Intent(step=step, release=release, inode=t.cast(int, inode_of(new)), method=method)
    write_state(paths, dataclasses.replace(state, intent=intent))
    return intent


def _rename_to_free(source: str, target: str) -> None:
    try:
        rename_noreplace(source, target)
    except OSError as exc:
        if not is_unsupported(exc) or not os.path.islink(source):
            raise
        os.rename(source, target)


def _tidy(plan: Plan, state: State) -> None:
    paths = plan.request.paths
    if plan.action == ACTIVATED:
        drop_staging(paths)
    if plan.expired:
        prune(paths, plan.expired)
    if plan.action == ACTIVATED or plan.expired:
        forget_absent(paths, state)
    empty_trash(paths)


def copy_release(source: str, target: str, manifest: Manifest, permissions: Permissions) -> None:
    """Create ``target`` as a complete, verified and durable copy, without hard links.

    Raises OSError (also if ``target`` exists), and DeliveryError when the copy does not match the
    manifest.
    """
    os.mkdir(target, 0o700)
    for subdirectory in manifest.directories:
        os.mkdir(os.path.join(target, subdirectory), 0o700)
    # What is served may belong to another user, who could lead root elsewhere.
    with opened(source, manifest.directories) as directories:
        for entry in manifest.files:
            path = os.path.join(source, entry.path)
            copy_file(path, os.path.join(target, entry.path), directories[os.path.dirname(entry.path)])
    set_permissions(target, manifest, permissions)
    found = permissions.differences(target, manifest)
    if found:
        raise DeliveryError.of(
            f"release {manifest.release}",
            f"the copy of {source} does not match the manifest: {found[0].line()}.",
            "Check the disk of this node.",
        )
