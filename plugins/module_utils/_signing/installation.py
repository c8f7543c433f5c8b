# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Brings trust to a node: the only code that writes /etc/lorafleet/trust."""

from __future__ import annotations

import dataclasses
import datetime
import os
import typing as t

from .. import _trust_place
from .._errors import DeliveryError
from .._files import fsync_directory, open_regular
from .roots import check_roots
from .trust import OPTIONAL_FILES, POLICY_FILE, ROOTS_FILE, SIGNERS_FILE, Policy, Trust, read_trust, trust_of

# The policy comes last: until it is there, an interrupted run has not raised the version.
_ORDER = (*OPTIONAL_FILES, SIGNERS_FILE, POLICY_FILE)


@dataclasses.dataclass(frozen=True)
class Installation:
    """What a run changes: the files before and after it, by name, and what the node trusts then."""

    before: dict[str, bytes]
    after: dict[str, bytes]
    trust: Trust

    @property
    def changed(self) -> bool:
        return self.before != self.after

    @property
    def policy(self) -> Policy:
        return self.trust.policy


def plan_installation(files: t.Mapping[str, bytes], signatures: t.Mapping[str, bytes], now: datetime.datetime) -> Installation:
    """Return what would change on this node.

    ``signatures`` are those of roots, by the name of their file. Raises DeliveryError for files
    that no node would read, for a lower version than the node has, for other content of the same
    version, and for a version that not enough roots have signed.
    """
    trust = trust_of(files)
    before = _installed()
    if before != files:
        found = _trust_of_node(before)
        if found is not None:
            _check_version(found.policy, trust.policy)
        check_roots(found, trust, files, signatures, now)
    return Installation(before, dict(files), trust)


def install(installation: Installation) -> None:
    """Write the files durably. Raises DeliveryError unless this is the user that they belong to."""
    place = _trust_place.PLACE
    if os.geteuid() != place.owner:
        raise DeliveryError.of(place.directory, "can be written by root only.", "Run with become.")
    umask = os.umask(0o022)
    try:
        for directory in (os.path.dirname(place.directory), place.directory):
            if not os.path.isdir(directory):
                os.mkdir(directory)
                fsync_directory(os.path.dirname(directory))
    finally:
        os.umask(umask)
    paths = {name: os.path.join(place.directory, name) for name in _ORDER}
    # All are on the disk before the first one is replaced: nodes refuse some mixtures of versions.
    for name, data in installation.after.items():
        _write(_temporary(paths[name]), data)
    for name, path in paths.items():
        if name in installation.after:
            os.rename(_temporary(path), path)
        elif name in installation.before:
            os.unlink(path)
    fsync_directory(place.directory)


def _check_version(old: Policy, new: Policy) -> None:
    if new.version > old.version:
        return
    what = f"is {new.version}; this node has {old.version}"
    if new.version == old.version:
        what = f"is {new.version}, which this node has with other content"
    remedy = f"Find out which is right. To bring this one to the nodes, set version to {old.version + 1}."
    raise DeliveryError.of("version of the policy", f"{what}.", remedy)


def _trust_of_node(files: t.Mapping[str, bytes]) -> Trust | None:
    """Return what the node trusts now, None if that is damaged: then it is replaced.

    Raises DeliveryError if it had roots: without them, anyone's version would be a first one.
    """
    try:
        return read_trust(_trust_place.PLACE)
    except DeliveryError as exc:
        if ROOTS_FILE not in files and b"root_threshold" not in files.get(POLICY_FILE, b""):
            return None
        directory, first = _trust_place.PLACE.directory, exc.problems[0]
        problem = f"had roots, who have to sign a change, but is damaged ({first.subject}: {first.problem.rstrip('.')})."
        remedy = (
            f"Restore it from a node that has the same version. If you move {directory} aside, the next version is a"
            " first one, and until then the node accepts unsigned releases."
        )
        raise DeliveryError.of(directory, problem, remedy) from exc


def _installed() -> dict[str, bytes]:
    found = {}
    for name in _ORDER:
        path = os.path.join(_trust_place.PLACE.directory, name)
        if os.path.lexists(path):
            with open_regular(path) as stream:
                found[name] = stream.read()
    return found


def _temporary(path: str) -> str:
    return f"{path}.new"


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)
        os.fsync(stream.fileno())
