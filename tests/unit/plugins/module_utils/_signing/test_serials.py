# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of what a node has accepted."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.serials import (
    Accepted,
    Record,
    read_record,
    with_accepted,
    write_record,
)

from tests.support.releases import manifest_of, release_of
from tests.support.signing import DAY, NOW, statement_about


def accepted(version: int, serial: int, **times: t.Any) -> Accepted:
    return Accepted(statement_about(manifest_of(version), serial, **times), {"alice": "signature"}, NOW)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "accepted.json")


def test_record_that_was_written_is_read(path: str) -> None:
    record = with_accepted(with_accepted(None, accepted(1, 7), []), accepted(2, 8), [release_of(1)])
    write_record(path, record)
    assert read_record(path) == record
    assert (record.serial, record.digest) == (8, manifest_of(2).digest)
    assert record.releases == [release_of(1), release_of(2)]


def test_record_of_nothing_is_none(path: str) -> None:
    assert read_record(path) is None


def test_record_keeps_highest_serial_and_newest_time() -> None:
    first = with_accepted(None, accepted(2, 8, issued=NOW), [])
    record = with_accepted(first, accepted(1, 7, issued=NOW - DAY), [])
    assert (record.serial, record.digest, record.newest) == (8, manifest_of(2).digest, NOW)


def test_record_keeps_statements_of_stored_releases_only() -> None:
    record: t.Optional[Record] = None
    for version in (1, 2, 3):
        record = with_accepted(record, accepted(version, version), [release_of(2)])
    assert record is not None
    assert record.releases == [release_of(2), release_of(3)]


def test_record_of_release_that_was_signed_again_has_the_later_statement() -> None:
    record = with_accepted(with_accepted(None, accepted(1, 7), []), accepted(1, 8), [release_of(1)])
    [one] = record.accepted
    assert one.statement.serial == 8
    assert record.of(manifest_of(1).digest) == one
    assert record.of(manifest_of(2).digest) is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"serial": "many"},
        {"newest": "yesterday"},
        {"accepted": None},
        {"accepted": [{"statement": "{}", "signatures": {}, "at": "2026-06-01T12:00:00Z"}]},
        {"accepted": [{"statement": statement_about(manifest_of(1)).to_bytes().decode()}]},
    ],
)
def test_record_of_another_form_is_error(path: str, change: dict[str, t.Any]) -> None:
    """Otherwise, who damages it could have older statements accepted."""
    write_record(path, with_accepted(None, accepted(1, 7), []))
    data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    pathlib.Path(path).write_text(json.dumps({**data, **change}), encoding="utf-8")
    with pytest.raises(DeliveryError, match="does not follow schema 1"):
        read_record(path)
