# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Doing what a plan says: a release into the store, NAME in place, bookkeeping, in an order that a crash cannot break."""

from __future__ import annotations

import dataclasses
import errno
import os
import typing as t

from .._activation import EXCHANGE, SYMLINK
from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._files import copy_file, fsync_directory, write_json
from .._linux.rename import exchange, is_unsupported, rename_noreplace
from .displaced import empty_trash, put_away, remove
from .paths import AdapterPaths
from .permissions import Permissions, set_permissions
from .plan import (
    ACTIVATED,
    AT_NAME,
    IN_STAGING,
    ROLLED_BACK,
    Options,
    Plan,
    not_exchangeable,
)
from .recovery import finish_swap, incoming, inode_of
from .retention import drop_staging, forget_absent, prune
from .served import ABSENT, LINK, link_text
from .state import ACTIVATE, PROMOTE, ROLL_BACK, Intent, State, write_state


def apply_plan(plan: Plan, state: State, options: Options) -> t.Optional[str]:
    """Carry out a plan; return where something was set aside, if it was.

    C(state) is the settled state. The caller holds the lock. Raises OSError and DeliveryError; then C(settle) brings the
    adapter in order, with the old or the new release at NAME.
    """
    paths = plan.request.paths
    # First, so that whatever comes out of its place later is known for what it is.
    if plan.record_manifest:
        write_json(paths.manifest(plan.release), plan.manifest.to_json())
    adopted = None
    if plan.source in (IN_STAGING, AT_NAME):
        adopted = _promote(plan, state, options)
    elif plan.release_permissions:
        set_permissions(paths.release(plan.release), plan.manifest, options.permissions)
    if plan.live_permissions:
        set_permissions(paths.live, plan.manifest, options.permissions)
    if plan.place:
        adopted = _put_in_place(plan, state, options) or adopted
    after = plan.after.without(plan.prune)
    # What was put in place left its intent recorded, also where nothing else changes.
    if plan.place or after != state:
        write_state(paths, after)
    _tidy(plan, after)
    return adopted


def _promote(plan: Plan, state: State, options: Options) -> t.Optional[str]:
    """Make the store's release from what is staged, or from NAME where that has the right bytes."""
    paths, release = plan.request.paths, plan.release
    staged, target = paths.staged(release), paths.release(release)
    if plan.source == AT_NAME:
        if os.path.lexists(staged):
            remove(staged)
        copy_release(paths.live, staged, plan.manifest, options.permissions)
    # This also brings every byte to the disk; then it is read back.
    set_permissions(staged, plan.manifest, options.permissions)
    found = options.permissions.differences(staged, plan.manifest)
    if found:
        raise DeliveryError.of(
            f"{paths.name}, release {release}",
            f"changed in {staged} since it was looked at: {found[0].line()}.",
            "Deploy it again from the training server.",
        )
    adopted = None
    if os.path.lexists(target):
        adopted = _replace_release(paths, release, state)
    else:
        os.rename(staged, target)
    fsync_directory(paths.releases)
    fsync_directory(paths.staging)
    return adopted


def _replace_release(paths: AdapterPaths, release: str, state: State) -> t.Optional[str]:
    """Put what is staged in the place of a damaged release."""
    staged, target, prepared = paths.staged(release), paths.release(release), incoming(paths, release)
    intent = _begin(paths, state, PROMOTE, release, staged, EXCHANGE)
    os.rename(staged, prepared)
    try:
        exchange(prepared, target)
    except OSError as exc:
        if not is_unsupported(exc):
            raise
        # For a moment there is no release here; what was here is damaged.
        adopted = put_away(paths, target)
        os.rename(prepared, target)
    else:
        adopted = finish_swap(paths, intent)
    write_state(paths, state)
    return adopted


def _put_in_place(plan: Plan, state: State, options: Options) -> t.Optional[str]:
    """Let NAME lead to the release; return where what stood there was set aside, if it was."""
    paths, release = plan.request.paths, plan.release
    prepared = incoming(paths, release)
    if plan.way == SYMLINK:
        os.symlink(link_text(paths, release), prepared)
    else:
        copy_release(paths.release(release), prepared, plan.manifest, options.permissions)
    fsync_directory(paths.root)
    step = ROLL_BACK if plan.action == ROLLED_BACK else ACTIVATE
    intent = _begin(paths, state, step, release, prepared, plan.way)
    if plan.live.kind == ABSENT:
        _rename_to_free(prepared, paths.live)
    elif plan.live.kind == LINK and plan.way == SYMLINK:
        os.rename(prepared, paths.live)
    else:
        _exchange_for_live(paths, prepared)
    return finish_swap(paths, intent)


def _exchange_for_live(paths: AdapterPaths, prepared: str) -> None:
    try:
        exchange(prepared, paths.live)
    except OSError as exc:
        # The plan has seen to it that both are on one file system, which can exchange directories.
        if exc.errno == errno.EXDEV:
            why = (
                "can be neither exchanged nor renamed: it came with a container's image, so that it lies in a lower layer of an "
                "overlay, or belongs to another project quota than the store."
            )
            raise not_exchangeable(paths, why) from exc
        raise


def _begin(paths: AdapterPaths, state: State, step: str, release: str, new: str, way: str) -> Intent:
    intent = Intent(step=step, release=release, inode=t.cast(int, inode_of(new)), way=way)
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
    if plan.prune:
        prune(paths, plan.prune)
    if plan.action == ACTIVATED or plan.prune:
        forget_absent(paths, state)
    empty_trash(paths)


def copy_release(source: str, target: str, manifest: Manifest, permissions: Permissions) -> None:
    """Make C(target), which must not exist, a complete, verified and durable copy; never by hard links.

    Raises OSError, and DeliveryError when what was written does not read back as C(manifest).
    """
    os.mkdir(target, 0o700)
    for entry in manifest.files:
        copy_file(os.path.join(source, entry.path), os.path.join(target, entry.path))
    set_permissions(target, manifest, permissions)
    found = permissions.differences(target, manifest)
    if found:
        raise DeliveryError.of(
            f"{manifest.name}, release {manifest.release}",
            f"was copied from {source} and does not read back right: {found[0].line()}.",
            "Check the disk of this node.",
        )
