# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Why a signed release is refused. The codes are for programs, the problems for people."""

from __future__ import annotations

import dataclasses

from .._errors import Problem

# What is offered is no statement, or no signature, of this collection.
MALFORMED = "malformed"
DAMAGED = "damaged"
# What a signature is worth.
NAMESPACE = "namespace"
CHANGED = "changed"
NO_TOUCH = "no_touch"
OTHER_KEY = "other_key"
KEY_NOT_IN_FORCE = "key_not_in_force"
CERTIFICATE = "certificate"
REVOKED = "revoked"
THRESHOLD = "threshold"
# What the statement is about.
FLEET = "fleet"
ADAPTER = "adapter"
DIGEST = "digest"
MANIFEST = "manifest"
COUNTS = "counts"
# When it was made.
CLOCK = "clock"
SERIAL_LOWER = "serial_lower"
SERIAL_REUSED = "serial_reused"
EXPIRED = "expired"
# What is missing.
UNSIGNED = "unsigned"
UNSIGNED_AFTER_SIGNED = "unsigned_after_signed"
NEVER_ACCEPTED = "never_accepted"
NO_TRUST = "no_trust"
# What is current.
NO_SNAPSHOT = "no_snapshot"
SNAPSHOT = "snapshot"
SNAPSHOT_OLDER = "snapshot_older"
SNAPSHOT_EXPIRED = "snapshot_expired"
NOT_IN_SNAPSHOT = "not_in_snapshot"
# What nodes are to trust.
ROOTS = "roots"

CODES = (
    MALFORMED,
    DAMAGED,
    NAMESPACE,
    CHANGED,
    NO_TOUCH,
    OTHER_KEY,
    KEY_NOT_IN_FORCE,
    CERTIFICATE,
    REVOKED,
    THRESHOLD,
    FLEET,
    ADAPTER,
    DIGEST,
    MANIFEST,
    COUNTS,
    CLOCK,
    SERIAL_LOWER,
    SERIAL_REUSED,
    EXPIRED,
    UNSIGNED,
    UNSIGNED_AFTER_SIGNED,
    NEVER_ACCEPTED,
    NO_TRUST,
    NO_SNAPSHOT,
    SNAPSHOT,
    SNAPSHOT_OLDER,
    SNAPSHOT_EXPIRED,
    NOT_IN_SNAPSHOT,
    ROOTS,
)


@dataclasses.dataclass(frozen=True)
class Refusal(Problem):
    """A problem with one of the codes above."""

    code: str = MALFORMED
