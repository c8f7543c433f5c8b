# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What a node trusts: /etc/lorafleet/trust, which belongs to root.

POLICY_FILE           the name of the fleet, and what is required
SIGNERS_FILE          the keys of signers
REVOKED_FILE          revoked keys; need not exist

A node without this directory requires no signatures. No variable of the inventory names the
directory or overrides what is in it.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import typing as t

from .._errors import DeliveryError
from .._files import DIRECTORY, open_regular
from .._formats.strict_json import is_integer, parse_object
from .._names import check_name
from .._trust_place import Place
from .allowed_signers import Signer, check_revoked_keys, read_allowed_signers

POLICY_FILE = "policy.json"
SIGNERS_FILE = "allowed_signers"
REVOKED_FILE = "revoked_keys"
# A certificate revocation list of a large fleet has a few kB.
_MOST_BYTES = 1 << 20
_MOST_SIGNATURES = 16
_REMEDY = "Run playbooks/trust.yml."


@dataclasses.dataclass(frozen=True)
class Policy:
    """What a node requires of a release.

    ``required`` is whether an unsigned release is refused. ``threshold`` is the number of different
    signers that a statement needs. ``version`` is a number that people raise with each change.
    """

    fleet: str
    required: bool
    threshold: int
    version: int

    def to_json(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Trust:
    """The content of the directory. ``revoked`` is empty if no key is revoked."""

    policy: Policy
    signers: tuple[Signer, ...]
    revoked: bytes


def read_trust(place: Place) -> Trust | None:
    """Return what a node trusts, or None where nothing was ever set up.

    Raises DeliveryError if a part is missing or malformed, or if another user could change it.
    """
    directory = place.directory
    try:
        # Most nodes have none.
        descriptor = os.open(directory, DIRECTORY)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise DeliveryError.of(directory, f"cannot be opened: {exc.strerror}.", "It must be a directory of root.") from exc
    try:
        _check_owner(directory, os.stat(os.path.dirname(directory)), place.owner)
        _check_owner(directory, os.fstat(descriptor), place.owner)
        policy = read_policy(_read(place, POLICY_FILE, descriptor), os.path.join(directory, POLICY_FILE))
        signers_path = os.path.join(directory, SIGNERS_FILE)
        text = _read(place, SIGNERS_FILE, descriptor).decode("utf-8", "replace")
        signers = read_allowed_signers(text, signers_path)
        revoked = b""
        if REVOKED_FILE in os.listdir(descriptor):
            revoked = _read(place, REVOKED_FILE, descriptor)
            check_revoked_keys(revoked, os.path.join(directory, REVOKED_FILE))
    finally:
        os.close(descriptor)
    check_threshold(policy, signers, signers_path)
    return Trust(policy, signers, revoked)


def read_policy(data: bytes, path: str) -> Policy:
    """Return the policy in a file. Raises DeliveryError about the path."""
    found = parse_object(data, path, _REMEDY)
    names = {field.name for field in dataclasses.fields(Policy)}
    if set(found) != names:
        other = ", ".join(sorted(set(found) ^ names)[:5])
        raise DeliveryError.of(path, f"must have the keys {', '.join(sorted(names))}; differs in {other}.", _REMEDY)
    if not isinstance(found["required"], bool):
        raise DeliveryError.of(path, "has a value for required that is neither true nor false.", _REMEDY)
    for name, most in (("threshold", _MOST_SIGNATURES), ("version", 1 << 53)):
        if not is_integer(found[name]) or not 1 <= found[name] <= most:
            raise DeliveryError.of(path, f"has a value for {name} that is not a number from 1 to {most}.", _REMEDY)
    return Policy(check_name(found["fleet"], f"{path}: fleet"), found["required"], found["threshold"], found["version"])


def check_threshold(policy: Policy, signers: t.Iterable[Signer], path: str) -> None:
    """Raise DeliveryError for a threshold that the signers could never reach."""
    names = {signer.name for signer in signers}
    if len(names) < policy.threshold:
        problem = f"names {len(names)} signers, but {policy.threshold} have to sign each release."
        raise DeliveryError.of(path, problem, "Add signers, or lower the threshold.")


def _read(place: Place, name: str, directory: int) -> bytes:
    path = os.path.join(place.directory, name)
    with open_regular(path, directory) as stream:
        _check_owner(path, os.fstat(stream.fileno()), place.owner)
        data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise DeliveryError.of(path, f"has more than {_MOST_BYTES} bytes.", _REMEDY)
    return data


def _check_owner(path: str, status: os.stat_result, owner: int | None) -> None:
    if owner is None:
        return
    if status.st_uid != owner or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise DeliveryError.of(
            path,
            f"can be changed by others than root: it belongs to user {status.st_uid} and has mode"
            f" {stat.S_IMODE(status.st_mode):04o}.",
            f"Compare it with what you trust, then: chown root {path} && chmod go-w {path}.",
        )
