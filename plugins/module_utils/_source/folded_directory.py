# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Where the folded adapters of a training server are kept, and what they were made of.

CACHE/folded/NAME/DIGEST12/         a folded adapter, named by the digest of the original
CACHE/folded/NAME/DIGEST12.json     its record, written last: without it, the directory is remade
CACHE/folded/NAME/.new-.../         a folded adapter in the making
CACHE/folded/NAME/lock              locked with flock while one is made, never unlinked

With form folded_same_dtype, the name of a directory ends in -same-dtype.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
import typing as t

from .._adapter.hash_cache import cache_path
from .._adapter.manifest import MadeOf
from .._errors import DeliveryError
from .._files import fsync_directory, read_json, write_json
from .._forms import FOLDED
from .._names import check_name
from .._store.lock import locked

# Another one is made if the folding itself has changed.
_SCHEMA = 1
# The newest, and one that a run may still be reading.
_KEEP = 2
_NEW = ".new-"
# Folding takes seconds.
_LOCK_SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class Record:
    """What a folded adapter was made of, its own ``digest``, and why it was not compared."""

    made_of: MadeOf
    digest: str
    not_compared: str | None = None


class FoldedDirectory:
    """The place of one folded adapter."""

    def __init__(self, cache_dir: str, name: str, release: str, form: str) -> None:
        self._cache_dir = cache_dir
        self._root = os.path.join(cache_dir, "folded", check_name(name))
        self.path = os.path.join(self._root, release if form == FOLDED else f"{release}-same-dtype")
        self._record = f"{self.path}.json"

    def read(self, digest: str, form: str) -> Record | None:
        """Return the record of what was made of the adapter with this digest, if there is one."""
        try:
            data = read_json(self._record)
            record = Record(MadeOf.from_json(data["made_of"]), data["digest"], data["not_compared"])
            valid = data["schema"] == _SCHEMA and (record.made_of.digest, record.made_of.form) == (digest, form)
        except (DeliveryError, KeyError, TypeError, ValueError):
            return None
        return record if valid and os.path.isdir(self.path) else None

    def write(self, record: Record) -> None:
        """Write the record, after which the directory counts. Raises OSError."""
        data = {"made_of": record.made_of.to_json(), "digest": record.digest, "not_compared": record.not_compared}
        write_json(self._record, {"schema": _SCHEMA, **data})

    @contextlib.contextmanager
    def making(self) -> t.Iterator[None]:
        """Hold the lock of the adapter, without what a killed run has left. Raises OSError."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        with locked(os.path.join(self._root, "lock"), "folding", _LOCK_SECONDS):
            for entry in os.listdir(self._root):
                if entry.startswith(_NEW):
                    shutil.rmtree(os.path.join(self._root, entry))
            yield

    @contextlib.contextmanager
    def replaced(self) -> t.Iterator[str]:
        """Yield an empty directory, which takes the place of this one at the end.

        The caller holds the lock. Raises OSError.
        """
        directory = tempfile.mkdtemp(prefix=_NEW, dir=self._root)
        try:
            yield directory
            os.chmod(directory, 0o755)  # noqa: S103  # as PEFT's directories
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._record)
            if os.path.lexists(self.path):
                # Renamed first, so that no half of it is left under the name.
                os.rename(self.path, tempfile.mkdtemp(prefix=_NEW, dir=self._root))
            os.rename(directory, self.path)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        fsync_directory(self._root)

    def remove_old(self) -> None:
        """Remove all but the newest folded adapters of this name, with their hashes.

        The caller holds the lock.
        """
        records = [os.path.join(self._root, entry) for entry in os.listdir(self._root) if entry.endswith(".json")]
        records.sort(key=lambda path: (path == self._record, os.stat(path).st_mtime_ns))
        for record in records[:-_KEEP]:
            os.unlink(record)
        kept = {record[: -len(".json")] for record in records[-_KEEP:]}
        for entry in os.scandir(self._root):
            if entry.is_dir(follow_symlinks=False) and entry.path not in kept:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(cache_path(self._cache_dir, entry.path))
                shutil.rmtree(entry.path)
