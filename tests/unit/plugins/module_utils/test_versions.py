# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Comparing package versions."""

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._versions import dotted, major_minor, numbers


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.21.2", (0, 21)),
        ("5", (5, 0)),
        ("5.3.0rc1", (5, 3)),
        ("v4.57", (4, 57)),
        ("unknown", (0, 0)),
        ("20260131.9" + "9" * 9000, (20260131, int("9" * 91))),
    ],
)
def test_major_minor(version: str, expected: tuple[int, int]) -> None:
    assert major_minor(version) == expected


@pytest.mark.parametrize(
    ("version", "expected"), [("2.10.0rc1+cpu", (2, 10, 0)), ("5", (5,)), ("3.2.7-protocol", (3, 2, 7)), ("unknown", (0,))]
)
def test_numbers_at_the_start(version: str, expected: tuple[int, ...]) -> None:
    assert numbers(version) == expected


def test_numbers_of_a_text_of_any_length_are_few() -> None:
    assert len(numbers("1." * 1_000_000)) == 50
    assert numbers("9" * 9000) == (int("9" * 100),)


def test_dotted() -> None:
    assert dotted((2, 10)) == "2.10"
