# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The snapshot of a fleet: which release of each adapter is the current one.

A statement says that a release is meant to be served, but not that no later one is. Somebody who
offers older statements, or those of some adapters only, is noticed by the snapshot. A node whose
policy has ``snapshot_hours`` begins to serve what a snapshot names that is not older than that.
Its exact bytes are signed, by keys of their own, which are online and worth less than others.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import typing as t

from .._errors import DeliveryError
from .._formats.strict_json import is_integer, parse_object
from .._hashing import SHORT
from .._names import check_name
from .decision import TOLERANCE, Described
from .refusal import CLOCK, NOT_IN_SNAPSHOT, SNAPSHOT, SNAPSHOT_EXPIRED, SNAPSHOT_OLDER, Refusal
from .statement import Statement, time_of, time_text
from .trust import Policy

TYPE = "lorafleet.delivery/snapshot/1"
# That of 5000 adapters has less.
MAX_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
REMEDY = "Sign a new one with playbooks/snapshot.yml."


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The serial and the digest of the current release of each adapter, by its name."""

    fleet: str
    issued: datetime.datetime
    adapters: dict[str, tuple[int, str]]

    def to_bytes(self) -> bytes:
        """Return the text that is signed."""
        adapters = {name: {"serial": serial, "digest": digest} for name, (serial, digest) in sorted(self.adapters.items())}
        data = {"_type": TYPE, "fleet": self.fleet, "issued": time_text(self.issued), "adapters": adapters}
        return json.dumps(data, indent=1).encode() + b"\n"


def read_snapshot(data: bytes) -> Snapshot:
    """Return the snapshot that has exactly this text. Raises DeliveryError for anything else."""
    if len(data) > MAX_BYTES:
        raise DeliveryError.of("snapshot", f"has more than {MAX_BYTES} bytes.", REMEDY)
    found = parse_object(data, "snapshot", REMEDY)
    try:
        adapters = {name: _entry(name, one) for name, one in found["adapters"].items()}
        snapshot = Snapshot(check_name(found["fleet"], "snapshot: fleet"), time_of(found["issued"]), adapters)
        text = snapshot.to_bytes()
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise DeliveryError.of("snapshot", f"does not follow {TYPE}: {type(exc).__name__} {exc}.", REMEDY) from exc
    if text != data:
        raise DeliveryError.of("snapshot", f"is another text than one of {TYPE} that is signed.", REMEDY)
    return snapshot


def why_not_in_snapshot(
    described: Described,
    statement: Statement,
    snapshot: Snapshot,
    policy: Policy,
    seen: datetime.datetime | None,
    now: datetime.datetime,
) -> Refusal | None:
    """Return why a release must not be activated under a signed snapshot, or None.

    ``seen`` is the time of the newest snapshot under which the node has accepted the adapter.
    """
    issued = time_text(snapshot.issued)
    if snapshot.fleet != policy.fleet:
        problem = f"comes with a snapshot of the fleet {snapshot.fleet}; expected {policy.fleet}."
        return _refusal(SNAPSHOT, described, problem, "Restore the snapshot from git.")
    if now + TOLERANCE < snapshot.issued:
        problem = f"comes with a snapshot of {issued}, but the clock of this node shows {time_text(now)}."
        return _refusal(CLOCK, described, problem, "Set the clock of the node, or that of the signer if it was wrong.")
    if seen is not None and snapshot.issued < seen:
        problem = f"comes with a snapshot of {issued}, but this node has seen one of {time_text(seen)}."
        return _refusal(SNAPSHOT_OLDER, described, problem, "Update the directory of the signatures from git.")
    hours = policy.snapshot_hours
    if hours is not None and now - snapshot.issued > datetime.timedelta(hours=hours):
        problem = f"comes with a snapshot of {issued}, which is more than {hours} hours old."
        return _refusal(SNAPSHOT_EXPIRED, described, problem, REMEDY)
    current = snapshot.adapters.get(described.adapter)
    if current != (statement.serial, statement.digest):
        named = "names no release of the adapter" if current is None else f"names {current[1][:SHORT]} with serial {current[0]}"
        problem = f"with serial {statement.serial} is not the current one: the snapshot of {issued} {named}."
        return _refusal(NOT_IN_SNAPSHOT, described, problem, f"Deliver the current release. If this is it: {REMEDY}")
    return None


def _entry(name: str, found: dict[str, t.Any]) -> tuple[int, str]:
    check_name(name, "snapshot: adapter")
    serial, digest = found["serial"], found["digest"]
    if not is_integer(serial) or not _SHA256.fullmatch(digest):
        raise ValueError(f"{name} has no serial and digest")
    return serial, digest


def _refusal(code: str, described: Described, problem: str, remedy: str) -> Refusal:
    return Refusal(described.subject, problem, remedy, described.adapter, code)
