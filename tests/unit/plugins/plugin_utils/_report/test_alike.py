# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.alike import MOST_ONE_BY_ONE, span, together

from tests.support.reports import many


def test_together_merges_only_in_large_reports() -> None:
    few, lot = many(MOST_ONE_BY_ONE), many(MOST_ONE_BY_ONE + 1)
    assert together(few, "abab", str) == [["a"], ["b"], ["a"], ["b"]]
    assert together(lot, "abab", str) == [["a", "a"], ["b", "b"]]


def test_span_has_both_ends() -> None:
    assert span([]) == span([None]) == ""
    assert span([2.0, None, 1.0, 1.5], "{:.0f} s".format) == "1 s to 2 s"
    assert span([1.01, 1.04], "{:.1f}".format) == "1.0"
