# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""sha256 of files and of what JSON can say, and the digest that names a release."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import typing as t

from ._errors import DeliveryError
from ._files import CHUNK, open_regular

SHORT = 12


def sha256_of(path: str, fsync: bool = False) -> tuple[int, str]:
    """Return (size in bytes, hexadecimal sha256) of a plain file, read as a stream.

    With C(fsync) the bytes are on the disk when this returns. Raises DeliveryError (see C(open_regular)), also for a file
    that turns out unreadable, and OSError when the disk cannot take it.
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
    """C(sha256_of) for many files at once, in their order; hashlib releases the GIL, so threads help."""
    workers = min(len(paths), os.cpu_count() or 1)
    if workers < 2:
        return [sha256_of(path, fsync) for path in paths]
    with concurrent.futures.ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(lambda path: sha256_of(path, fsync), paths))


def release_digest(files: t.Iterable[tuple[str, int, str]]) -> str:
    """Return the digest that names a release: sha256 over its files' paths, sizes and sha256s, sorted by path.

    Each file contributes one record C(path NUL size NUL sha256 LF), UTF-8. Nothing else enters: no times, no modes, no host.
    """
    digest = hashlib.sha256()
    for path, size, sha256 in sorted(files):
        digest.update(f"{path}\0{size}\0{sha256}\n".encode())
    return digest.hexdigest()


def digest_of(what: t.Any) -> str:
    """sha256 of anything that JSON can say, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
