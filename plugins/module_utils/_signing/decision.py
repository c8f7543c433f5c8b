# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Decides whether a node may begin to serve a release. Pure: reads no file and no clock.

The controller asks the same questions before it asks a node, as far as they have the same answer on
all nodes with its policy.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._hashing import SHORT
from .refusal import (
    ADAPTER,
    CERTIFICATE,
    CLOCK,
    COUNTS,
    DIGEST,
    EXPIRED,
    FLEET,
    KEY_NOT_IN_FORCE,
    MANIFEST,
    NEVER_ACCEPTED,
    REVOKED,
    SERIAL_LOWER,
    SERIAL_REUSED,
    THRESHOLD,
    UNSIGNED,
    UNSIGNED_AFTER_SIGNED,
    Refusal,
)
from .serials import Record
from .ssh_signatures import Verified
from .statement import Statement, time_text
from .trust import Policy

# The clocks of a signer and of a node may differ by this.
TOLERANCE = datetime.timedelta(minutes=10)

_SIGN = "Sign it with playbooks/sign.yml."
_SIGN_AGAIN = "If it is to be served: sign it again with playbooks/sign.yml."


@dataclasses.dataclass(frozen=True)
class Described:
    """The release that is to be served, as its manifest describes it.

    ``manifest`` is the sha256 of the whole manifest. ``active`` is whether the node serves this
    release already: then it is repaired, not activated.
    """

    adapter: str
    digest: str
    manifest: str
    files: int
    size: int
    tensors: int
    active: bool

    @property
    def subject(self) -> str:
        return f"release {self.digest[:SHORT]}"


@dataclasses.dataclass(frozen=True)
class Offer:
    """A statement, and for each of its signatures, who has signed or why it does not count."""

    statement: Statement
    outcomes: tuple[t.Union[Verified, Refusal], ...]

    @property
    def signers(self) -> tuple[str, ...]:
        """Who has signed, each once, whatever the number of their keys and signatures."""
        return tuple(sorted({one.signer for one in self.outcomes if isinstance(one, Verified)}))

    @property
    def late(self) -> int:
        """How many signatures may count on a node that has accepted them before, only there."""
        return sum(isinstance(one, Refusal) and one.code in (KEY_NOT_IN_FORCE, CERTIFICATE) for one in self.outcomes)


def why_refused(
    described: Described, offer: Offer | None, policy: Policy, record: Record | None, now: datetime.datetime
) -> Refusal | None:
    """Return why a release must not be served, or None. ``offer`` is None for an unsigned release.

    ``record`` is what the node has accepted of the adapter.
    """
    if offer is None:
        return _why_unsigned(described, policy, record)
    # First the signatures: nothing is said about a statement that nobody has signed.
    return (
        _why_not_signed(described, offer, policy)
        or _why_about_another(described, offer.statement, policy)
        or _why_at_another_time(described, offer.statement, record, now)
    )


def why_refused_everywhere(described: Described, offer: Offer | None, policy: Policy) -> Refusal | None:
    """Return why every node with this policy refuses a release, or None.

    What only a node knows has no part in it: its serials, its clock, what it has accepted before,
    and whether it serves the release, whose expiry does not count then.
    """
    if offer is None:
        return _why_unsigned(described, policy, None)
    refusal = _why_not_signed(described, offer, policy)
    if refusal is None:
        return _why_about_another(described, offer.statement, policy)
    return refusal if len(offer.signers) + offer.late < policy.threshold else None


def why_no_return(described: Described, policy: Policy, record: Record | None, revoked: t.Collection[str] = ()) -> Refusal | None:
    """Return why a rollback to a release is refused, or None.

    It was accepted on this node before, so neither its serial nor its expiry counts. ``revoked``
    are the signers whose key of then is revoked now.
    """
    accepted = None if record is None else record.of(described.digest)
    if accepted is None:
        if not policy.required:
            return None
        known = ", ".join(record.releases) if record is not None and record.accepted else "none"
        problem = f"was never accepted as signed on this node (accepted: {known})."
        return _refusal(NEVER_ACCEPTED, described, problem, "Roll back to an accepted release, or sign this one and deploy it.")
    if len(accepted.signatures) - len(revoked) < min(policy.threshold, len(accepted.signatures)):
        problem = f"was signed with a key of {_names(sorted(revoked))} that is revoked now."
        return _refusal(REVOKED, described, problem, "Roll back to another release, or sign this one again and deploy it.")
    return None


def _why_unsigned(described: Described, policy: Policy, record: Record | None) -> Refusal | None:
    if policy.required:
        return _refusal(UNSIGNED, described, "is not signed; this node serves signed releases only.", _SIGN)
    if record is not None:
        problem = f"is not signed, but the release with serial {record.serial} was. The signatures have been removed."
        return _refusal(UNSIGNED_AFTER_SIGNED, described, problem, _SIGN)
    return None


def _why_not_signed(described: Described, offer: Offer, policy: Policy) -> Refusal | None:
    if len(offer.signers) >= policy.threshold:
        return None
    refusals = [one for one in offer.outcomes if isinstance(one, Refusal)]
    if refusals:
        # Several signatures can be bad, but the first one says what to do.
        return dataclasses.replace(refusals[0], adapter=described.adapter)
    if not offer.outcomes:
        return _refusal(UNSIGNED, described, "has a statement without a signature.", _SIGN)
    problem = f"is signed by {_names(offer.signers)} only; this node requires {policy.threshold} different signers."
    return _refusal(THRESHOLD, described, problem, "Let others sign the same statement with playbooks/sign.yml.")


def _why_about_another(described: Described, statement: Statement, policy: Policy) -> Refusal | None:
    found: list[tuple[str, str, t.Any, t.Any]] = [
        (FLEET, "the fleet", statement.fleet, policy.fleet),
        (ADAPTER, "the adapter", statement.adapter, described.adapter),
        (DIGEST, "the release", statement.digest, described.digest),
    ]
    for code, what, signed, expected in found:
        if signed != expected:
            problem = f"has a statement about {what} {_short(signed)}; expected {_short(expected)}."
            remedy = "It may be a copy that was put in the place of the right one. Restore the signatures from git."
            return _refusal(code, described, problem, remedy)
    if statement.manifest != described.manifest:
        problem = (
            "has the signed files, but another manifest than the signed one: its golden, base, tensors or versions have changed."
        )
        return _refusal(MANIFEST, described, problem, f"Compare the manifests (playbooks/describe.yml). {_SIGN_AGAIN}")
    counts = (statement.files, statement.size, statement.tensors)
    if counts != (described.files, described.size, described.tensors):
        problem = "has a statement with other numbers of files, bytes or tensors than its manifest."
        return _refusal(COUNTS, described, problem, _SIGN_AGAIN)
    return None


def _why_at_another_time(
    described: Described, statement: Statement, record: Record | None, now: datetime.datetime
) -> Refusal | None:
    newest = statement.issued if record is None else max(statement.issued, record.newest)
    if now + TOLERANCE < newest:
        problem = f"the newest statement is of {time_text(newest)}, but the clock of this node shows {time_text(now)}."
        return _refusal(CLOCK, described, problem, "Set the clock of the node, or that of the signer if it was wrong.")
    if record is not None:
        if statement.serial == record.serial and statement.digest != record.digest:
            problem = (
                f"has the serial {record.serial}, under which another release was signed before:"
                f" {record.digest[:SHORT]}. A signer's key may be in the wrong hands."
            )
            remedy = "Find out who has signed them. Then sign the right one again, with a higher serial."
            return _refusal(SERIAL_REUSED, described, problem, remedy)
        known = record.of(described.digest)
        repaired = described.active and known is not None
        if statement.serial < record.serial and not repaired:
            problem = f"has the serial {statement.serial}; this node has accepted {record.serial}. It is an older release."
            return _refusal(SERIAL_LOWER, described, problem, _SIGN_AGAIN)
    if now > statement.expires and not described.active:
        problem = f"was to be served until {time_text(statement.expires)}."
        return _refusal(EXPIRED, described, problem, _SIGN_AGAIN)
    return None


def _refusal(code: str, described: Described, problem: str, remedy: str) -> Refusal:
    return Refusal(described.subject, problem, remedy, described.adapter, code)


def _names(signers: t.Sequence[str]) -> str:
    return ", ".join(signers) or "nobody"


def _short(value: str) -> str:
    return value[:SHORT] if len(value) == 64 else value
