# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What an engine has to serve, with the evidence, and the options that bring it back.

It is recorded when a release has passed its probe, and before the old one is unloaded. After a
restart the engine has lost what was loaded at run time: the next run, or the options in its unit,
load what is recorded here.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import typing as t

from .._errors import DeliveryError
from .._files import fsync_directory, read_json, write_json
from .journal import SCHEMA, EnginePaths
from .names import versioned

_REMEDY = "Move it aside and serve again: it will be written again."
# The evidence for a release in an engine: proved with its golden, or only that it has an effect.
SERVED, UNPROVED = "served", "unproved"


@dataclasses.dataclass(frozen=True)
class Served:
    """A release that an engine serves.

    ``names`` are those that the engine has for it, the public one first. ``proof`` is SERVED or
    UNPROVED, ``why_unproved`` a sentence. ``figures`` are those of the probe (``probe.Figures``).
    ``converted`` is the SHA-256 of the file that the engine reads instead of the release, if any.
    ``previous`` is the release that was served before. It stays loaded under its own name for a
    gateway that still leads to it. None if there is none, or no gateway.
    """

    release: str
    digest: str
    root: str
    names: tuple[str, ...]
    engine: str
    version: str | None
    proof: str
    at: str
    why_unproved: str | None = None
    figures: dict[str, t.Any] | None = None
    converted: str | None = None
    previous: str | None = None

    def rows(self, adapter: str) -> list[tuple[str, str]]:
        """Return the names that the engine has for an adapter, with their directories."""
        before = [] if self.previous is None else [self.previous]
        releases = os.path.dirname(self.root)
        return [
            *((name, self.root) for name in self.names),
            *((versioned(adapter, release), os.path.join(releases, release)) for release in before),
        ]

    def same_as(self, recorded: Served | None) -> bool:
        """Return whether this is recorded already, but for the figures and the time."""
        if recorded is None:
            return False
        return (self.root, self.names, self.proof) == (recorded.root, recorded.names, recorded.proof)

    def to_json(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "names": list(self.names)}

    @classmethod
    def from_json(cls, data: t.Any) -> Served:
        """Read it back. Raises KeyError, TypeError or ValueError for another form."""
        found = cls(**{**data, "names": tuple(data["names"])})
        texts = (found.release, found.digest, found.root, found.engine, found.at, *found.names)
        if found.proof not in (SERVED, UNPROVED) or not all(isinstance(text, str) for text in texts):
            raise ValueError("a value has another form")
        return found


class Refusal(t.NamedTuple):
    """Why a release of an adapter is not served, as a sentence, and since when."""

    release: str
    at: str
    why: str


@dataclasses.dataclass
class Desired:
    """All that one engine has to serve, by the names of the adapters.

    ``lingering`` are names that were unloaded while their answers may still have been in work, with
    their directories: the engine may read these again. ``refused`` are the releases that an engine
    refused when a run last tried.
    """

    adapters: dict[str, Served] = dataclasses.field(default_factory=dict)
    lingering: dict[str, str] = dataclasses.field(default_factory=dict)
    refused: dict[str, Refusal] = dataclasses.field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """Return all names with their directories."""
        return [row for name, served in self.adapters.items() for row in served.rows(name)]


def read_desired(paths: EnginePaths) -> Desired:
    """Return what is recorded. Raises DeliveryError if it is damaged."""
    data = read_json(paths.desired, _REMEDY)
    if data is None:
        return Desired()
    try:
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        lingering = {str(name): str(root) for name, root in data["lingering"].items()}
        adapters = {str(name): Served.from_json(one) for name, one in data["adapters"].items()}
        refused = {str(name): Refusal(**one) for name, one in data["refused"].items()}
        return Desired(adapters, lingering, refused)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        problem = f"does not follow schema {SCHEMA}: {type(exc).__name__} {exc}."
        raise DeliveryError.of(paths.desired, problem, _REMEDY) from exc


def write_desired(paths: EnginePaths, desired: Desired, options: t.Sequence[str]) -> None:
    """Record it durably, first for the unit of the engine, then for later runs.

    A kill in between leaves options with a release that was proved but is not recorded: after a
    restart the engine has it, and the next run records it.
    """
    write_options(paths, options)
    adapters = {name: served.to_json() for name, served in desired.adapters.items()}
    refused = {name: one._asdict() for name, one in desired.refused.items()}
    write_json(paths.desired, {"schema": SCHEMA, "adapters": adapters, "lingering": desired.lingering, "refused": refused})


def write_options(paths: EnginePaths, options: t.Sequence[str]) -> None:
    """Write a file for EnvironmentFile of systemd, and for the shell."""
    path = paths.options
    line = f"LORAFLEET_OPTIONS={shlex.quote(' '.join(options))}\n"
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o644)
        stream.write(line)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, path)
    fsync_directory(os.path.dirname(path))
