# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The cache of what one adapter directory's files contain, so that unchanged files are not read again.

An entry is valid while device, inode, size, mtime_ns and ctime_ns of every file stay the same. It has no lock: an entry is
replaced atomically, and it names the files that it was made from. Two processes that describe the same new adapter at once
both read it, and either entry is right. That is rare, because ``plugins/action/adapter_info.py`` already runs the module once
for all nodes of a play that send the same request. That lock is the one that stays: it saves the module runs as well as
the hashing, and it also works in check mode, where nothing is cached.
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

# The form of an entry. An entry of another form is made again.
_SCHEMA = 2
# Two writes within one tick of a file system's clock leave the same times. A tick is 10 ms at most; this adds a margin.
_CLOCK_TICK_NS = 20_000_000

# Name, device, inode, size, mtime_ns and ctime_ns of each file: equal as long as no file was written to.
Signature = t.List[t.List[t.Any]]


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """What was read from an adapter's files: their sizes and hashes, the tensors, and the parsed adapter_config.json."""

    files: tuple[FileEntry, ...]
    tensors: tuple[TensorScan, ...]
    config: dict[str, t.Any]


def cache_path(cache_dir: str, directory: str) -> str:
    """The path of a directory's cache entry; it differs between directories of the same name."""
    return os.path.join(cache_dir, hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:32] + ".json")


def signature_of(directory: str, names: t.Iterable[str]) -> Signature:
    """The signature of the files ``names`` in ``directory``, without those that do not exist."""
    signature: Signature = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(os.path.join(directory, name))
            signature.append([name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns])
    return signature


def is_older(signature: Signature, started: int) -> bool:
    """Whether all files last changed so long before ``started`` (ns) that a later change gives another signature."""
    return all(ctime < started - _CLOCK_TICK_NS for *_rest, ctime in signature)


def read_entry(path: str, signature: Signature) -> CacheEntry | None:
    """The entry at ``path`` if it is valid for files of this ``signature``; None for any other, damaged or missing entry."""
    try:
        entry = read_json(path)
        if entry["schema"] != _SCHEMA or entry["signature"] != signature:
            return None
        return CacheEntry(
            files=tuple(FileEntry(**item) for item in entry["files"]),
            tensors=tuple(TensorScan(**{**item, "shape": tuple(item["shape"])}) for item in entry["tensors"]),
            config=entry["config"],
        )
    except (DeliveryError, KeyError, TypeError):
        return None


def write_entry(path: str, signature: Signature, entry: CacheEntry) -> None:
    """Replace the entry at ``path``. A failure is ignored: without an entry the files are read again."""
    data = {
        "schema": _SCHEMA,
        "signature": signature,
        "files": [dataclasses.asdict(file) for file in entry.files],
        "tensors": [dataclasses.asdict(tensor) for tensor in entry.tensors],
        "config": entry.config,
    }
    directory = os.path.dirname(path)
    with contextlib.suppress(OSError):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        # A name of its own (and mode 0600): another process may be writing the same entry.
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".new", dir=directory)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(data, stream, indent=1, sort_keys=True)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
