# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Releases as files of the form that llama-server reads, made by a command of the site.

STORE/.serving/converted/NAME@DIGEST12.gguf       the file, which never changes
STORE/.serving/converted/NAME@DIGEST12.gguf.new   while it is made
"""

from __future__ import annotations

import hashlib
import os
import typing as t

from .._errors import DeliveryError
from .._files import fsync_directory, open_regular
from .commands import run
from .contract import Refused
from .names import release_directory, versioned

_SUFFIX = ".gguf"
_BLOCK = 1 << 20
_REMEDY = "Correct convert of this engine in engines."


def converted(directory: str, command: t.Sequence[str], seconds: float) -> str:
    """Return the file of the release in ``directory``, converted now if it is not there yet.

    The command gets the directory and the path of the file as further arguments. Raises Refused.
    """
    path = file_of(directory)
    if os.path.exists(path):
        return path
    temporary = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(path), 0o711, exist_ok=True)
        _remove_useless(os.path.dirname(path))
        run([*command, directory, temporary], seconds, "convert")
        with open_regular(temporary) as stream:
            if stream.read(4) != b"GGUF":
                raise Refused(f"cannot read what {command[0]} has written: it is no GGUF file", _REMEDY)
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
        fsync_directory(os.path.dirname(path))
    except DeliveryError as exc:
        raise Refused(f"cannot read what {command[0]} has written: {exc.problems[0].problem.rstrip('.')}", _REMEDY) from exc
    except OSError as exc:
        raise Refused(f"cannot get {path}: {exc.strerror}") from exc
    return path


def _remove_useless(folder: str) -> None:
    """Remove the files of releases that are gone, and what a killed run left.

    llama-server reads a file at its start only.
    """
    for name in os.listdir(folder):
        found = release_of(os.path.join(folder, name))
        if found is None or not os.path.isdir(found[1]):
            os.unlink(os.path.join(folder, name))


def file_of(directory: str) -> str:
    """Return the path of a release as a file."""
    adapter, release = os.path.dirname(os.path.dirname(directory)), os.path.basename(directory)
    name = versioned(os.path.basename(adapter), release)
    return os.path.join(os.path.dirname(adapter), ".serving", "converted", name + _SUFFIX)


def release_of(path: str) -> tuple[str, str] | None:
    """Return the name and the directory of the release that a file is made from.

    None for a file that ``converted`` has not made.
    """
    folder, file = os.path.split(path)
    name, _at, release = file[: -len(_SUFFIX)].rpartition("@")
    if not file.endswith(_SUFFIX) or not name or os.path.basename(folder) != "converted":
        return None
    directory = release_directory(os.path.dirname(os.path.dirname(folder)), name, release)
    return (name, directory) if file_of(directory) == os.path.normpath(path) else None


def digest_of(path: str) -> str | None:
    """Return the SHA-256 of a file, None if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open_regular(path) as stream:
            for block in iter(lambda: stream.read(_BLOCK), b""):
                digest.update(block)
    except (OSError, DeliveryError):
        return None
    return digest.hexdigest()
