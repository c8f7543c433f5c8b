# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Regular expressions over names of modules, with bounds on time and memory."""

from __future__ import annotations

import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter import patterns
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.patterns import PatternError, matching

NAMES = ["layers.0.q_proj", "layers.1.q_proj", "lm_head"]


def test_matching_returns_names_and_number_of_each_pattern() -> None:
    found = matching([r"layers\.(?P<number>\d)", r".*(?P<what>head)", r"(?P<number>x)?lm_head"], NAMES)
    assert found == [{"layers.0.q_proj": "0", "layers.1.q_proj": "1"}, {"lm_head": None}, {"lm_head": None}]
    assert matching([r"layers\.[01]"], NAMES, whole=True) == [{}]
    assert list(matching(["q_proj"], NAMES, r"(.*\.)?({})$")[0]) == NAMES[:2]


def test_matching_plain_name_needs_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: t.Any, **kwargs: t.Any) -> t.NoReturn:
        raise AssertionError

    monkeypatch.setattr(subprocess, "run", refuse)
    assert list(matching(["^layers.1.q_proj"], NAMES)[0]) == ["layers.1.q_proj"]
    with pytest.raises(AssertionError):
        matching(["(layers|lm_head)"], NAMES)
    monkeypatch.setattr(patterns, "_MOST_AT_ONCE", 5)
    with pytest.raises(AssertionError):
        matching(["^layers.0.q_proj", "^layers.1.q_proj"], NAMES)


@pytest.mark.parametrize("pattern", ["*", "(", "[a", "(?P<a>x)(?P<a>y)", "x{99999999999}"])
def test_matching_invalid_pattern_is_an_error(pattern: str) -> None:
    with pytest.raises(PatternError, match="is not a valid regular expression"):
        matching(["lm_head", pattern], NAMES)


def test_matching_bounds_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # The stand-in never answers, like an expression that backtracks for ages.
    monkeypatch.setattr(patterns, "_PROGRAM", "import signal; signal.pause()")
    monkeypatch.setattr(patterns, "_SECONDS", 0.1)
    with pytest.raises(PatternError, match=r"takes longer than 0\.1 seconds on 3 module names"):
        matching(["slow+"], NAMES)


def test_matching_bounds_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # The stand-in for an expression with very many matches. Without a bound, it would be evaluated.
    greedy = patterns._PROGRAM.replace("found = []", "found = [bytes(1 << 30)][:0]")
    assert greedy != patterns._PROGRAM
    monkeypatch.setattr(patterns, "_PROGRAM", greedy)
    with pytest.raises(PatternError, match="cannot be evaluated"):
        matching(["large+"], NAMES)


def test_matching_child_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_PROGRAM", "raise SystemExit(7)")
    with pytest.raises(PatternError, match="exit status 7"):
        matching(["dies+"], NAMES)
