# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""By whom a release is signed, in words."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.words import signature_line

from tests.support.reports import SIGNED, UNSIGNED


@pytest.mark.parametrize(
    ("signed", "line"),
    [(SIGNED, "signed by alice, bob, serial 7, until 2026-11-29T12:00:00+00:00"), (UNSIGNED, "unsigned"), (None, "")],
)
def test_signature_line_says_who_has_signed(signed: t.Optional[dict[str, t.Any]], line: str) -> None:
    assert signature_line(signed) == line
