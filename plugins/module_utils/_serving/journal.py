# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What a run is doing with an engine, for the next one if it is killed.

STORE/.serving/ENGINE/lock           held by the run that tells the engine something
STORE/.serving/ENGINE/journal.json   the adapter whose release is being changed; absent otherwise
STORE/.serving/ENGINE/desired.json   what the engine has to serve, and how that was proved
STORE/.serving/ENGINE/options        the options that load it when the engine starts

No adapter has such a name: their names begin with a letter or digit.
"""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from .._errors import DeliveryError
from .._files import fsync_directory, read_json, write_json
from .._store.owners import check_owned

SCHEMA = 1
_REMEDY = "Move it aside and serve again: it will be written again."


class EnginePaths:
    """The paths of one engine in the store."""

    def __init__(self, store: str, engine: str, url: str) -> None:
        self.store = store
        self.all = os.path.join(store, ".serving")
        place = re.sub(r"[^A-Za-z0-9.]+", "-", url.partition("://")[2]).strip("-")
        self.root = os.path.join(self.all, f"{engine}-{place}")
        self.lock = os.path.join(self.root, "lock")
        self.journal = os.path.join(self.root, "journal.json")
        self.desired = os.path.join(self.root, "desired.json")
        self.options = os.path.join(self.root, "options")

    def make(self) -> None:
        """Create the missing directories.

        Raises DeliveryError if another user could change what is in them.
        """
        umask = os.umask(0)
        try:
            for path in (self.store, self.all, self.root):
                # The unit of the engine reads the options there, as any user.
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o711)
                    fsync_directory(os.path.dirname(path))
                check_owned(os.path.realpath(path) if path == self.store else path)
        finally:
            os.umask(umask)


class Pending(t.NamedTuple):
    """A change of one adapter that has begun.

    ``old_root`` is what the public name led to before, None if the engine did not have that name.
    ``new_root`` is the release that is being loaded.
    """

    name: str
    old_root: str | None
    new_root: str


def read_pending(paths: EnginePaths) -> Pending | None:
    """Return the change that a killed run left. Raises DeliveryError for a damaged journal."""
    data = read_json(paths.journal, _REMEDY)
    if data is None:
        return None
    try:
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        old, new = data["old_root"], data["new_root"]
        if not isinstance(new, str) or not isinstance(old, (str, type(None))):
            raise TypeError("a path is no text")
        return Pending(str(data["name"]), old, new)
    except (KeyError, TypeError, ValueError) as exc:
        problem = f"does not follow schema {SCHEMA}: {type(exc).__name__} {exc}."
        raise DeliveryError.of(paths.journal, problem, _REMEDY) from exc


def write_pending(paths: EnginePaths, pending: Pending) -> None:
    """Record durably what is about to change."""
    write_json(paths.journal, {"schema": SCHEMA, **pending._asdict()})


def clear_pending(paths: EnginePaths) -> None:
    """Forget a change that is complete or reverted."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(paths.journal)
        fsync_directory(paths.root)
