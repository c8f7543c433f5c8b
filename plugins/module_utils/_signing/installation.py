# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Brings trust to a node: the only code that writes /etc/lorafleet/trust."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .. import _trust_place
from .._errors import DeliveryError
from .._files import fsync_directory, open_regular
from .allowed_signers import check_revoked_keys, read_allowed_signers
from .trust import POLICY_FILE, REVOKED_FILE, SIGNERS_FILE, Policy, Trust, check_threshold, read_policy, read_trust

# The policy comes last: until it is there, an interrupted run has not raised the version.
_ORDER = (REVOKED_FILE, SIGNERS_FILE, POLICY_FILE)


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


def plan_installation(files: t.Mapping[str, bytes]) -> Installation:
    """Return what would change on this node.

    Raises DeliveryError for files that no node would read, for a lower version than the node has,
    and for other content of the same version.
    """
    trust = _parsed(files)
    before = _installed()
    found = _readable_trust()
    if found is not None and before != files:
        old, new = found.policy.version, trust.policy.version
        if new <= old:
            what = f"is {new}; this node has {old}" if new < old else f"is {new}, which this node has with other content"
            remedy = f"Find out which is right. To bring this one to the nodes, set version to {old + 1}."
            raise DeliveryError.of("version of the policy", f"{what}.", remedy)
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
    for name in _ORDER:
        path = os.path.join(place.directory, name)
        if name in installation.after:
            _replace(path, installation.after[name])
        elif name in installation.before:
            os.unlink(path)
    fsync_directory(place.directory)


def _parsed(files: t.Mapping[str, bytes]) -> Trust:
    policy = read_policy(files[POLICY_FILE], POLICY_FILE)
    signers = read_allowed_signers(files[SIGNERS_FILE].decode("utf-8", "replace"), SIGNERS_FILE)
    check_threshold(policy, signers, SIGNERS_FILE)
    revoked = files.get(REVOKED_FILE, b"")
    check_revoked_keys(revoked, REVOKED_FILE)
    return Trust(policy, signers, revoked)


def _readable_trust() -> Trust | None:
    """Return what the node trusts now, None if that is damaged: then it is replaced."""
    try:
        return read_trust(_trust_place.PLACE)
    except DeliveryError:
        return None


def _installed() -> dict[str, bytes]:
    found = {}
    for name in _ORDER:
        path = os.path.join(_trust_place.PLACE.directory, name)
        if os.path.lexists(path):
            with open_regular(path) as stream:
                found[name] = stream.read()
    return found


def _replace(path: str, data: bytes) -> None:
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)
        os.fsync(stream.fileno())
    os.rename(temporary, path)
