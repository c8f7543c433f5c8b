# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Safe opening of plain files, JSON files that survive a power cut, and copies by reflink."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import stat
import typing as t

from ._errors import DeliveryError

# Bytes read or written at a time.
CHUNK = 1 << 20
# Opens a directory, and nothing that a link leads to.
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_regular(path: str, directory: int | None = None) -> t.BinaryIO:
    """Open a plain file for unbuffered reading without following a link in the last component.

    With ``directory``, the descriptor of an open directory, the file is opened in that one.
    Raises DeliveryError when ``path`` is anything else, such as a link, a FIFO or a device.
    """
    name = path if directory is None else os.path.basename(path)
    try:
        # O_NONBLOCK, so that a FIFO in an adapter directory is rejected below without waiting.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as exc:
        raise DeliveryError.of(path, f"cannot be read: {exc.strerror}.", "It must be a plain, readable file.") from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DeliveryError.of(path, "is not a plain file.", "Remove it: links, FIFOs and devices are never delivered.")
    return os.fdopen(descriptor, "rb", buffering=0)


_UNFINISHED = ".new"


def read_json(path: str, remedy: str = "Move it aside and deploy again: it will be written again.") -> t.Any:
    """Return the parsed JSON, or None if the file does not exist.

    Raises DeliveryError with ``remedy`` when it cannot be read or parsed. The default remedy is the
    one for files that the store has written itself.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise DeliveryError.of(path, f"cannot be read: {exc}.", remedy) from exc


def write_json(path: str, data: t.Any, mode: int = 0o644) -> None:
    """Replace a JSON file atomically and durably."""
    temporary = f"{path}{_UNFINISHED}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), mode)
        json.dump(data, stream, indent=1, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, path)
    fsync_directory(os.path.dirname(path))


def unfinished(directory: str) -> list[str]:
    """Return the temporary files left by killed ``write_json`` calls. The caller holds the lock."""
    # A directory or link of such a name is not from write_json.
    return [
        entry.path
        for entry in os.scandir(directory)
        if entry.name.endswith(f".json{_UNFINISHED}") and entry.is_file(follow_symlinks=False)
    ]


def fsync_directory(path: str) -> None:
    """Make the names in a directory durable. Raises OSError when that fails."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# _IOW(0x94, 9, int), which powerpc encodes differently.
_FICLONE = 0x80049409 if platform.machine().startswith("ppc") else 0x40049409


def copy_file(source: str, target: str) -> None:
    """Copy a plain file to ``target``, which must not exist, with mode 0600. Follows no links.

    Raises OSError, and DeliveryError when ``source`` is not a plain file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open_regular(source) as original, os.fdopen(os.open(target, flags, 0o600), "wb") as copy:
        with contextlib.suppress(OSError):
            fcntl.ioctl(copy.fileno(), _FICLONE, original.fileno())
            return
        shutil.copyfileobj(original, copy, CHUNK)
