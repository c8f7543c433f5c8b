# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What a node trusts: /etc/lorafleet/trust, which belongs to root.

POLICY_FILE           the name of the fleet, and what is required
SIGNERS_FILE          the keys of signers
REVOKED_FILE          revoked keys; need not exist
ROOTS_FILE            the keys of those who sign each version of this content; need not exist
SNAPSHOT_SIGNERS_FILE the keys of those who sign snapshots of the fleet; need not exist

A node without this directory requires no signatures. No variable of the inventory names the
directory or overrides what is in it.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import stat
import typing as t

from .._errors import DeliveryError
from .._files import DIRECTORY, open_regular
from .._formats.strict_json import is_integer, parse_object
from .._names import check_name
from .._trust_place import Place
from .allowed_signers import ROOT_NAMESPACE, SNAPSHOT_NAMESPACE, Signer, check_revoked_keys, read_allowed_signers

POLICY_FILE = "policy.json"
SIGNERS_FILE = "allowed_signers"
REVOKED_FILE = "revoked_keys"
ROOTS_FILE = "roots"
SNAPSHOT_SIGNERS_FILE = "snapshot_signers"
OPTIONAL_FILES = (REVOKED_FILE, ROOTS_FILE, SNAPSHOT_SIGNERS_FILE)
# A certificate revocation list of a large fleet has a few kB.
_MOST_BYTES = 1 << 20
MOST_SIGNATURES = 16
# The integers in a policy, and the highest value of each.
_NUMBERS = {
    "threshold": MOST_SIGNATURES,
    "version": 1 << 53,
    "root_threshold": MOST_SIGNATURES,
    "certificate_days": 3650,
    "snapshot_hours": 24 * 365,
}
_OPTIONAL_KEYS = ("certificate_days", "root_threshold", "snapshot_hours")
_REMEDY = "Run playbooks/trust.yml."


@dataclasses.dataclass(frozen=True)
class Policy:
    """What a node requires of a release, and of a new version of this policy.

    ``required`` is whether an unsigned release is refused. ``threshold`` is the number of different
    signers that a statement needs. ``version`` is a number that people raise with each change.
    ``root_threshold`` is the number of different roots that have to sign that, where there are any.
    ``certificate_days`` is for how long a statement counts that somebody with a certificate has
    signed; without it, that is until the certificate ends. ``snapshot_hours`` is how old the
    snapshot of the fleet may be that names a release; without it, no snapshot is needed.
    """

    fleet: str
    required: bool
    threshold: int
    version: int
    root_threshold: int | None = None
    certificate_days: int | None = None
    snapshot_hours: int | None = None

    def certified_since(self, issued: datetime.datetime, at: datetime.datetime) -> datetime.datetime:
        """Return since when, until ``at``, a certificate must have been in force at any time.

        It has not expired when the statement was issued, as far as its signer says the truth about
        that time. ``certificate_days`` bounds what the key of an expired certificate is good for.
        """
        days = self.certificate_days
        return issued if days is not None and at - issued <= datetime.timedelta(days=days) else at


@dataclasses.dataclass(frozen=True)
class Trust:
    """The content of the directory. ``revoked`` is empty if no key is revoked."""

    policy: Policy
    signers: tuple[Signer, ...]
    revoked: bytes
    roots: tuple[Signer, ...] = ()
    snapshot_signers: tuple[Signer, ...] = ()


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
        _check_owner(directory, os.stat(os.path.dirname(os.path.abspath(directory))), place.owner)
        _check_owner(directory, os.fstat(descriptor), place.owner)
        found = os.listdir(descriptor)
        names = [POLICY_FILE, SIGNERS_FILE, *(name for name in OPTIONAL_FILES if name in found)]
        files = {name: _read(place, name, descriptor) for name in names}
    finally:
        os.close(descriptor)
    return trust_of(files, directory)


def trust_of(files: t.Mapping[str, bytes], directory: str = "") -> Trust:
    """Return what files in a directory say. Raises DeliveryError if a node would not read them."""
    policy_path, signers_path, revoked_path = (
        os.path.join(directory, name) for name in (POLICY_FILE, SIGNERS_FILE, REVOKED_FILE)
    )
    policy = _read_policy(files[POLICY_FILE], policy_path)
    signers = read_allowed_signers(files[SIGNERS_FILE].decode("utf-8", "replace"), signers_path)
    _check_threshold(policy.threshold, signers, signers_path, "signers", "release")
    revoked = files.get(REVOKED_FILE, b"")
    check_revoked_keys(revoked, revoked_path)
    roots = _other_signers(files, directory, ROOTS_FILE, "root_threshold", policy.root_threshold, ROOT_NAMESPACE)
    if policy.root_threshold is not None:
        _check_threshold(policy.root_threshold, roots, os.path.join(directory, ROOTS_FILE), "roots", "version")
    snapshot_signers = _other_signers(
        files, directory, SNAPSHOT_SIGNERS_FILE, "snapshot_hours", policy.snapshot_hours, SNAPSHOT_NAMESPACE
    )
    if policy.snapshot_hours is not None:
        if not policy.required:
            problem = "has snapshot_hours, but unsigned releases are accepted, which no snapshot names."
            raise DeliveryError.of(policy_path, problem, "Set required to true, or remove snapshot_hours.")
        _check_threshold(1, snapshot_signers, os.path.join(directory, SNAPSHOT_SIGNERS_FILE), "signers", "snapshot")
    return Trust(policy, signers, revoked, roots, snapshot_signers)


def _other_signers(
    files: t.Mapping[str, bytes], directory: str, name: str, key: str, value: int | None, namespace: str
) -> tuple[Signer, ...]:
    """Return the signers in a file that is there if a key of the policy is.

    Raises DeliveryError.
    """
    if (name in files) != (value is not None):
        missing = f"file {name}" if value is not None else f"key {key}"
        raise DeliveryError.of(os.path.join(directory, POLICY_FILE), f"lacks the {missing}: one needs the other.", _REMEDY)
    if name not in files:
        return ()
    return read_allowed_signers(files[name].decode("utf-8", "replace"), os.path.join(directory, name), namespace)


def _read_policy(data: bytes, path: str) -> Policy:
    found = parse_object(data, path, _REMEDY)
    names = {field.name for field in dataclasses.fields(Policy)}
    missing = names - set(_OPTIONAL_KEYS) - set(found)
    if missing or set(found) - names:
        other = ", ".join(sorted({*missing, *(set(found) - names)})[:5])
        keys = ", ".join(sorted(names - set(_OPTIONAL_KEYS)))
        problem = f"must have the keys {keys} and may have {', '.join(_OPTIONAL_KEYS)}; differs in {other}."
        raise DeliveryError.of(path, problem, _REMEDY)
    if not isinstance(found["required"], bool):
        raise DeliveryError.of(path, "has a value for required that is neither true nor false.", _REMEDY)
    for name, most in _NUMBERS.items():
        if name in found and (not is_integer(found[name]) or not 1 <= found[name] <= most):
            raise DeliveryError.of(path, f"has a value for {name} that is not a number from 1 to {most}.", _REMEDY)
    return Policy(**{**found, "fleet": check_name(found["fleet"], f"{path}: fleet")})


def _check_threshold(least: int, signers: t.Iterable[Signer], path: str, who: str, what: str) -> None:
    """Raise DeliveryError for a threshold that the signers could never reach."""
    names = {signer.name for signer in signers}
    if len(names) < least:
        problem = f"names {len(names)} {who}, but {least} have to sign each {what}."
        raise DeliveryError.of(path, problem, f"Add {who}, or lower the threshold.")


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
