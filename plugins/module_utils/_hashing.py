# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The sha256 of files and of JSON values, and the digest that names a release."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import typing as t

from ._errors import DeliveryError
from ._files import CHUNK, open_regular

# Hexadecimal digits of a digest that name a release.
SHORT = 12


def sha256_of(path: str, fsync: bool = False) -> tuple[int, str]:
    """Return the size in bytes and the hexadecimal sha256 of a plain file.

    With ``fsync``, the file is on disk when this returns. Raises DeliveryError as ``open_regular``
    does and when reading fails, and OSError when fsync fails.
    """
    digest = hashlib.sha256()
    size = 0
    buffer = memoryview(bytearray(CHUNK))
    with open_regular(path) as stream:
        try:
            while count := stream.readinto(buffer):  # type: ignore[attr-defined]
                digest.update(buffer[:count])
                size += count
        except OSError as exc:
            raise DeliveryError.of(path, f"cannot be read: {exc.strerror}.", "Check the disk of this host.") from exc
        if fsync:
            os.fsync(stream.fileno())
    return size, digest.hexdigest()


def sha256_of_all(paths: t.Sequence[str], fsync: bool = False) -> list[tuple[int, str]]:
    """Call ``sha256_of`` for many files, in parallel because hashlib releases the GIL."""
    workers = min(len(paths), os.cpu_count() or 1)
    if workers < 2:
        return [sha256_of(path, fsync) for path in paths]
    with concurrent.futures.ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(lambda path: sha256_of(path, fsync), paths))


def release_digest(files: t.Iterable[tuple[str, int, str]]) -> str:
    """Return the digest that names a release: the sha256 of its files' paths, sizes and sha256s.

    Each file contributes one record ``path NUL size NUL sha256 LF`` in UTF-8, in the order of the
    paths. Times, modes and the host have no influence.
    """
    digest = hashlib.sha256()
    for path, size, sha256 in sorted(files):
        digest.update(f"{path}\0{size}\0{sha256}\n".encode())
    return digest.hexdigest()


def digest_of(value: t.Any) -> str:
    """Return the sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(canonical(value)).hexdigest()


def canonical(value: t.Any) -> bytes:
    """Return the one text of a JSON value that ``digest_of`` hashes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
