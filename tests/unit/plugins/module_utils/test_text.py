# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Formatting values for messages."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import count, first, human_bytes, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", '""'),
        ("a\nb\u202e", r'"a\nb\u202e"'),
        ("\udcff", r'"\udcff"'),
        ([True, None, 1.5], "[true, null, 1.5]"),
        ({"a": float("inf")}, '{"a": Infinity}'),
        ({1}, '"{1}"'),
        ("x" * 500, f'"{"x" * 159}...'),
    ],
)
def test_shown_is_short_ascii_on_one_line(value: t.Any, expected: str) -> None:
    assert shown(value) == expected


def test_first_names_three_and_counts_the_others() -> None:
    assert first("abc") == "a, b, c"
    assert first("abcde") == "a, b, c and 2 more"


def test_count_uses_plural() -> None:
    assert [count(number, "byte") for number in (0, 1, 2)] == ["0 bytes", "1 byte", "2 bytes"]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (97_300_000, "97.3 MB"),
        (6_430_000_000, "6.4 GB"),
        (5e12, "5000.0 GB"),
    ],
)
def test_human_bytes(size: float, expected: str) -> None:
    assert human_bytes(size) == expected
