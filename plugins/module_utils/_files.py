# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Safe opening of plain files, JSON files that survive a power cut, and copies by reflink."""

from __future__ import annotations

import contextlib
import errno
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


def open_linked(path: str) -> t.BinaryIO:
    """Open a plain file for reading, also through links. Raises OSError for anything else.

    A FIFO would block this process, and a device may do anything when it is opened.
    """
    if stat.S_ISREG(os.stat(path).st_mode):
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return stream
        stream.close()
    raise OSError(errno.EINVAL, "is not a plain file", path)


@contextlib.contextmanager
def opened(directory: str, subdirectories: t.Iterable[str]) -> t.Iterator[dict[str, int]]:
    """Yield descriptors of a directory, named "", and of subdirectories. Follows no links.

    Raises OSError. Without links, nobody can lead root elsewhere who owns the directory.
    """
    with contextlib.ExitStack() as held:
        found = {"": os.open(directory, DIRECTORY)}
        held.callback(os.close, found[""])
        for name in subdirectories:
            found[name] = os.open(name, DIRECTORY, dir_fd=found[""])
            held.callback(os.close, found[name])
        yield found


_UNFINISHED = ".new"
_MOST_JSON = 1 << 28


def read_json(path: str, remedy: str = "Move it aside and deploy again: it will be written again.") -> t.Any:
    """Return the parsed JSON, or None if the file does not exist.

    Raises DeliveryError with ``remedy`` when it cannot be read or parsed. The default remedy is the
    one for files that the store has written itself.
    """
    try:
        with open_linked(path) as stream:
            data = stream.read(_MOST_JSON + 1)
        if len(data) > _MOST_JSON:
            raise ValueError(f"it has more than {_MOST_JSON} bytes")
        return json.loads(data.decode("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:
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


def copy_file(source: str, target: str, directory: int | None = None) -> None:
    """Copy a plain file to ``target``, which must not exist, with mode 0600. Follows no links.

    ``directory`` is that of ``open_regular`` for ``source``. Raises OSError, and DeliveryError when
    ``source`` is not a plain file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open_regular(source, directory) as original, os.fdopen(os.open(target, flags, 0o600), "wb") as copy:
        with contextlib.suppress(OSError):
            fcntl.ioctl(copy.fileno(), _FICLONE, original.fileno())
            return
        shutil.copyfileobj(original, copy, CHUNK)
