# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Staging directories: preparation for a transfer, and verification of the received files."""

from __future__ import annotations

import contextlib
import os
import stat

from .._errors import DeliveryError, Problem
from .._files import DIRECTORY, copy_file, fsync_directory
from .compare import differences, entries_of
from .fetch import Fetch, is_exclusive
from .lock import has_receiver
from .paths import check_owners, make_store
from .trash import remove


def prepare(fetch: Fetch) -> None:
    """Prepare the staging directory for the transfer.

    The directory belongs to the current user, who also receives the files. Files that other users
    may write to are removed, and those that are neither wanted nor a partial copy of a wanted file.
    Raises DeliveryError when the store cannot be written, or another run is transferring this
    release.
    """
    wanted = {entry.path: entry for entry in fetch.manifest.files}
    try:
        make_store(fetch.paths)
        with contextlib.suppress(FileExistsError):
            os.mkdir(fetch.staging, 0o700)
        _check_no_receiver(fetch)
        _make_private(fetch)
        for name, status in entries_of(fetch.staging, fetch.manifest).items():
            path = os.path.join(fetch.staging, name)
            if name in fetch.manifest.directories:
                continue
            if not is_exclusive(status) or name not in wanted:
                remove(path)
            elif status.st_size >= wanted[name].size and wanted[name] in fetch.missing:
                # A missing file of full size has the wrong content: a transfer must not resume from
                # it.
                os.unlink(path)
    except OSError as exc:
        raise _staging_error(fetch, exc) from exc


def drop_other_offers(fetch: Fetch) -> None:
    """Delete what earlier offers of this adapter have left in staging.

    They were refused, by a load test for instance, or interrupted. Those that another run is
    receiving stay. Raises DeliveryError.
    """
    check_owners(fetch.paths)
    staging = fetch.paths.staging
    try:
        for name in os.listdir(staging) if os.path.isdir(staging) else ():
            path = os.path.join(staging, name)
            if name == fetch.manifest.release or (stat.S_ISDIR(os.lstat(path).st_mode) and has_receiver(path)):
                continue
            # Another run may delete it too.
            with contextlib.suppress(FileNotFoundError):
                remove(path)
    except OSError as exc:
        raise _staging_error(fetch, exc) from exc


def drop_excess(fetch: Fetch) -> None:
    """Delete staged files that are longer than described, which a hostile source has sent.

    Raises DeliveryError.
    """
    sizes = {entry.path: entry.size for entry in fetch.manifest.files}
    try:
        if not os.path.isdir(fetch.staging) or has_receiver(fetch.staging):
            return
        for name, status in entries_of(fetch.staging, fetch.manifest).items():
            if name in sizes and stat.S_ISREG(status.st_mode) and status.st_size > sizes[name]:
                os.unlink(os.path.join(fetch.staging, name))
    except OSError as exc:
        raise _staging_error(fetch, exc) from exc


def verify_staged(fetch: Fetch) -> list[Problem]:
    """Copy the reusable files, compare every staged byte with the manifest, and flush all to disk.

    Returns the differences. Nothing is removed, so that a later run can resume the transfer.
    """
    try:
        _make_private(fetch)
        for name, status in entries_of(fetch.staging, fetch.manifest).items():
            path = os.path.join(fetch.staging, name)
            # Never change a file that has a second name elsewhere; the comparison below reports it.
            if is_exclusive(status):
                os.chmod(path, 0o600)
        for name, seed in sorted(fetch.reusable.items()):
            target = os.path.join(fetch.staging, name)
            if os.path.lexists(target):
                # Removed, not overwritten: it may be a link, or have a second name elsewhere.
                remove(target)
            copy_file(seed, target)
        found = differences(fetch.staging, fetch.manifest, fsync=True)
        for subdirectory in (*fetch.manifest.directories, ""):
            fsync_directory(os.path.join(fetch.staging, subdirectory))
    except OSError as exc:
        raise _staging_error(fetch, exc) from exc
    return [
        Problem(
            "",
            f"the received files do not match the manifest: {difference.line()}.",
            "They changed at the source after they were described, in transit, or on the node: run again."
            " The served files were not changed.",
            fetch.manifest.name,
        )
        for difference in found
    ]


def _make_private(fetch: Fetch) -> None:
    """Take over the staging directory, and create the missing subdirectories in it.

    From then on, nobody else can exchange what is in it, so paths below it can be used.
    """
    staging = os.open(fetch.staging, DIRECTORY)
    try:
        _take(staging)
        for subdirectory in fetch.manifest.directories:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(subdirectory, dir_fd=staging, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    os.unlink(subdirectory, dir_fd=staging)
            with contextlib.suppress(FileExistsError):
                os.mkdir(subdirectory, 0o700, dir_fd=staging)
            descriptor = os.open(subdirectory, DIRECTORY, dir_fd=staging)
            try:
                _take(descriptor)
            finally:
                os.close(descriptor)
    finally:
        os.close(staging)


def _take(directory: int) -> None:
    if os.geteuid() == 0:
        # An earlier run may have been another user's.
        os.fchown(directory, 0, 0)
    os.fchmod(directory, 0o700)


def _check_no_receiver(fetch: Fetch) -> None:
    if has_receiver(fetch.staging):
        raise DeliveryError.of(
            "",
            f"is being transferred to this node by another run: an rsync writes to {fetch.staging}.",
            "Wait for it to finish, or end that process (fuser -v shows it), and run again.",
            fetch.manifest.name,
        )


def _staging_error(fetch: Fetch, exc: OSError) -> DeliveryError:
    return DeliveryError.of(
        "",
        f"cannot be staged in {exc.filename or fetch.staging}: {exc.strerror}.",
        "Check the space, the permissions and the mount of this file system on the node, then run again."
        " The served files were not changed.",
        fetch.manifest.name,
    )
