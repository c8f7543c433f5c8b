# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What a node has accepted of an adapter: STORE/NAME/accepted.json.

The highest serial is written before a release is served, so that no older statement is accepted
afterwards, whatever happens to the run. A rollback leaves it as it is.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._errors import DeliveryError
from .._files import read_json, write_json
from .._hashing import SHORT
from .statement import Statement, read_statement, time_of, time_text

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A statement that was accepted on this node, when, and the signature of each signer.

    ``snapshot`` is the time of the snapshot that named it, if one was needed.
    """

    statement: Statement
    signatures: dict[str, str]
    at: datetime.datetime
    snapshot: datetime.datetime | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """The highest serial that was accepted, its digest, and the statements of the stored releases.

    ``newest`` is the time of the newest statement: no clock that is right shows an earlier time.
    ``snapshot`` is that of the newest snapshot under which one was accepted.
    """

    serial: int
    digest: str
    newest: datetime.datetime
    accepted: tuple[Accepted, ...]
    snapshot: datetime.datetime | None = None

    def of(self, digest: str) -> Accepted | None:
        """Return what was accepted of a release last."""
        return next((one for one in self.accepted if one.statement.digest == digest), None)

    @property
    def releases(self) -> list[str]:
        return [one.statement.release for one in self.accepted]


def with_accepted(record: Record | None, new: Accepted, stored: t.Collection[str]) -> Record:
    """Return the record after a release was accepted. It keeps the statements of ``stored``."""
    statement = new.statement
    others = () if record is None else record.accepted
    kept = tuple(one for one in others if one.statement.release in stored and one.statement.digest != statement.digest)
    highest, newest, snapshot = (statement.serial, statement.digest), statement.issued, new.snapshot
    if record is not None:
        highest, newest = max(highest, (record.serial, record.digest)), max(newest, record.newest)
        snapshot = max(filter(None, (snapshot, record.snapshot)), default=None)
    return Record(*highest, newest, (*kept, new), snapshot)


def read_record(path: str) -> Record | None:
    """Return what the file says, or None if nothing was ever accepted.

    Raises DeliveryError when it is damaged: then nothing can be said about older statements.
    """
    remedy = "Restore it. If it is lost: move it aside, and inspect what is offered before you deploy."
    data = read_json(path, remedy)
    if data is None:
        return None
    try:
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        return Record(
            serial=int(data["serial"]),
            digest=str(data["digest"]),
            newest=time_of(data["newest"]),
            accepted=tuple(
                Accepted(
                    read_statement(one["statement"].encode()),
                    {str(signer): str(text) for signer, text in one["signatures"].items()},
                    time_of(one["at"]),
                )
                for one in data["accepted"]
            ),
            snapshot=time_of(data["snapshot"]) if "snapshot" in data else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, DeliveryError) as exc:
        raise DeliveryError.of(path, f"does not follow schema {SCHEMA}: {type(exc).__name__} {exc}.", remedy) from exc


def write_record(path: str, record: Record) -> None:
    """Write the record atomically and durably."""
    accepted = [
        {
            "release": one.statement.digest[:SHORT],
            "statement": one.statement.to_bytes().decode(),
            "signatures": one.signatures,
            "at": time_text(one.at),
        }
        for one in record.accepted
    ]
    data = {"schema": SCHEMA, "serial": record.serial, "digest": record.digest, "newest": time_text(record.newest)}
    if record.snapshot is not None:
        data["snapshot"] = time_text(record.snapshot)
    write_json(path, {**data, "accepted": accepted})
