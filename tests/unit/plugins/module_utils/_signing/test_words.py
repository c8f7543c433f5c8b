# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""By whom a release is signed, in words."""

from __future__ import annotations

import datetime
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.words import expiry_note, signature_line

from tests.support.reports import SIGNED, UNSIGNED
from tests.support.signing import DAY, NOW

EXPIRES = NOW + 14 * DAY


@pytest.mark.parametrize(
    ("signed", "line"),
    [(SIGNED, "signed by alice, bob, serial 7, until 2026-11-29T12:00:00+00:00"), (UNSIGNED, "unsigned"), (None, "")],
)
def test_signature_line_says_who_has_signed(signed: t.Optional[dict[str, t.Any]], line: str) -> None:
    assert signature_line(signed) == line


@pytest.mark.parametrize(
    ("now", "beginning"),
    [
        (NOW - DAY / 24, ""),
        (NOW, "its statement expires on 2026-06-15; after that, no node begins"),
        (NOW + 15 * DAY, "its statement expired on 2026-06-15; after that, no node begins"),
    ],
)
def test_expiry_note_is_there_in_the_last_two_weeks(now: datetime.datetime, beginning: str) -> None:
    note = expiry_note({**SIGNED, "expires": EXPIRES.isoformat()}, now)
    assert note.startswith(beginning)
    assert note.endswith("Renew it with playbooks/sign.yml.") is bool(beginning)


@pytest.mark.parametrize("signed", [None, UNSIGNED])
def test_expiry_note_without_statement_is_empty(signed: t.Optional[dict[str, t.Any]]) -> None:
    assert expiry_note(signed, NOW) == ""
