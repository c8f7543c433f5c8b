# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Copy the files of a manifest from one directory to a new one, sharing blocks where the file system can (reflinks)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._hashing import CHUNK, open_regular
from .permissions import Permissions, set_permissions

# _IOW(0x94, 9, int); powerpc encodes the direction the other way round.
_FICLONE = 0x80049409 if platform.machine().startswith("ppc") else 0x40049409


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


def copy_file(source: str, target: str) -> None:
    """Copy a plain file to C(target), which must not exist; for its owner alone. Follows no links.

    Raises OSError, and DeliveryError when C(source) is no plain file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open_regular(source) as original, os.fdopen(os.open(target, flags, 0o600), "wb") as copy:
        with contextlib.suppress(OSError):
            fcntl.ioctl(copy.fileno(), _FICLONE, original.fileno())
            return
        shutil.copyfileobj(original, copy, CHUNK)
