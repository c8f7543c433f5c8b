# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Owner, group and modes of the files that are served, set without following links and independent of the umask."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._digest import open_regular
from ansible_collections.lorafleet.delivery.plugins.module_utils._manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._verify import Difference, differences


@dataclasses.dataclass(frozen=True)
class Permissions:
    """What a release and its served copy shall have; owner and group are left alone where they are None."""

    file_mode: int
    directory_mode: int
    uid: t.Optional[int] = None
    gid: t.Optional[int] = None

    def differences(self, directory: str, manifest: Manifest, fsync: bool = False) -> list[Difference]:
        """C(_verify.differences) with these."""
        return differences(directory, manifest, self.file_mode, self.directory_mode, self.uid, self.gid, fsync)


def set_permissions(directory: str, manifest: Manifest, permissions: Permissions) -> None:
    """Give a directory and the files of C(manifest) in it their owner and modes, where they differ.

    Raises OSError, and DeliveryError for a file that is none (links are never followed).
    """
    for entry in manifest.files:
        with open_regular(os.path.join(directory, entry.path)) as stream:
            _set(stream.fileno(), permissions.file_mode, permissions)
            os.fsync(stream.fileno())
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _set(descriptor, permissions.directory_mode, permissions)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set(descriptor: int, mode: int, permissions: Permissions) -> None:
    # The owner first: chown clears bits that chmod sets.
    if permissions.uid is not None or permissions.gid is not None:
        status = os.fstat(descriptor)
        uid = status.st_uid if permissions.uid is None else permissions.uid
        gid = status.st_gid if permissions.gid is None else permissions.gid
        if (uid, gid) != (status.st_uid, status.st_gid):
            os.fchown(descriptor, uid, gid)
    os.fchmod(descriptor, mode)
