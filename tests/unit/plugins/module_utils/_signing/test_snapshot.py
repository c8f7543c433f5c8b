# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of a fleet: one text for each, and no other one is read."""

from __future__ import annotations

import json

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.snapshot import MAX_BYTES, Snapshot, read_snapshot

from tests.support.signing import FLEET, NOW

SNAPSHOT = Snapshot(FLEET, NOW, {"b": (7, "0" * 64), "a": (1, "f" * 64)})
TEXT = SNAPSHOT.to_bytes()


def test_snapshot_that_is_written_is_read() -> None:
    assert read_snapshot(TEXT) == SNAPSHOT
    assert list(json.loads(TEXT)["adapters"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"serial": 7', b'"serial": true'),
        (b'"serial": 7', b'"serial": "7"'),
        (b'"serial": 7', b'"serial": 7, "serial": 7'),
        (b'"serial": 7', b'"serial":  7'),
        (b"0" * 64, b"0" * 63),
        (b'"0000', b'0, "x": "0000'),
        (b'"a"', b'"../a"'),
        (b"snapshot/1", b"snapshot/2"),
        (b"12:00:00Z", b"12:00:00"),
        (b'"fleet"', b'"flat"'),
        (b'"_type"', b'"more": 1, "_type"'),
        (TEXT, b"[]"),
        (TEXT, b'{"adapters": []}'),
        (TEXT, b""),
        (TEXT, b" " * (MAX_BYTES + 1)),
    ],
)
def test_snapshot_of_another_form_is_error(old: bytes, new: bytes) -> None:
    assert old in TEXT
    with pytest.raises(DeliveryError, match="snapshot"):
        read_snapshot(TEXT.replace(old, new))


def test_snapshot_of_a_large_fleet_is_read() -> None:
    large = Snapshot(FLEET, NOW, {f"{'adapter':x<24}_{number}": (number, "0" * 64) for number in range(5000)})
    assert read_snapshot(large.to_bytes()) == large
