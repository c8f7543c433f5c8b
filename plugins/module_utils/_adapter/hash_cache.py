# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The cache of file hashes and tensor scans: files of an unchanged adapter are not read again.

An entry is valid while device, inode, size, mtime_ns and ctime_ns of every file stay the same.

The cache has no lock. An entry is replaced atomically and contains the signature of the files that
it was made from, so any writer's entry is correct. Two processes that describe the same new adapter
at the same time both read it, which costs time and nothing else. It is also rare:
``plugins/action/adapter_info.py`` runs the module once for all nodes that send the same request.
That lock cannot be replaced by one here, because it also saves the module runs, and works in check
mode, where nothing is cached.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import typing as t

from .._errors import DeliveryError
from .._files import read_json
from .._formats.tensor_scan import TensorScan
from .manifest import FileEntry
from .vocabulary import Vocabulary

# The version of the format. An entry in any other version is created again.
_SCHEMA = 3
# Two writes within one tick of a file system's clock leave the same times. A tick is at most 10 ms;
# the rest is a margin.
_CLOCK_TICK_NS = 20_000_000

# Name, device, inode, size, mtime_ns and ctime_ns of each file: equal until a file is written to.
Signature = t.List[t.List[t.Any]]


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """The data read from an adapter's files, all of which can be parsed.

    ``config`` is the parsed adapter_config.json.
    """

    files: tuple[FileEntry, ...]
    tensors: tuple[TensorScan, ...]
    config: dict[str, t.Any]
    vocabulary: Vocabulary | None = None


def cache_path(cache_dir: str, directory: str) -> str:
    """Return the path of a directory's cache entry, which depends on the directory's full path."""
    return os.path.join(cache_dir, hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:32] + ".json")


def signature_of(paths: t.Mapping[str, str]) -> Signature:
    """Return the signature of files, given their paths by name. Missing files are left out."""
    signature: Signature = []
    for name, path in paths.items():
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(path)
            signature.append([name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns])
    return signature


def is_older(signature: Signature, started: int) -> bool:
    """Return whether all files changed long enough before ``started`` (in ns).

    Then every change after ``started`` gives another signature.
    """
    return all(ctime < started - _CLOCK_TICK_NS for *_rest, ctime in signature)


def read_entry(path: str, signature: Signature) -> CacheEntry | None:
    """Return the entry at ``path``; None if it is missing, damaged or of another ``signature``."""
    try:
        entry = read_json(path)
        if entry["schema"] != _SCHEMA or entry["signature"] != signature:
            return None
        return CacheEntry(
            files=tuple(FileEntry(**item) for item in entry["files"]),
            tensors=tuple(TensorScan(**{**item, "shape": tuple(item["shape"])}) for item in entry["tensors"]),
            config=entry["config"],
            vocabulary=Vocabulary.from_json(entry["vocabulary"]),
        )
    except (DeliveryError, KeyError, TypeError, ValueError):
        return None


def write_entry(path: str, signature: Signature, entry: CacheEntry) -> None:
    """Replace the entry at ``path``. Ignores errors: without an entry, the files are read again."""
    data = {
        "schema": _SCHEMA,
        "signature": signature,
        "files": [dataclasses.asdict(file) for file in entry.files],
        "tensors": [dataclasses.asdict(tensor) for tensor in entry.tensors],
        "config": entry.config,
        "vocabulary": entry.vocabulary and entry.vocabulary.to_json(),
    }
    directory = os.path.dirname(path)
    with contextlib.suppress(OSError):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        # A unique name (and mode 0600), because another process may be writing the same entry.
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".new", dir=directory)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(data, stream, indent=1, sort_keys=True)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
