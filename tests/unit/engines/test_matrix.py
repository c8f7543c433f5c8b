# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the answers of engines are judged and compared with the rules."""

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines import verdicts
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules.form import Answer

from tests.engines.matrix import BOUND, Cell, contradiction, judged, stale, table

ANSWERS = [(0, 7, -1.5), (1, 3, -0.25)]
EXPECTED = {(0, 7): -1.5, (1, 3): -0.25}


def verdict(state: str) -> verdicts.Verdict:
    return verdicts.Verdict("vllm", "0.32.0", state, ("plain",), "It answers.", None, "")


def test_judged_same_answers_are_right() -> None:
    assert judged({"answers": ANSWERS}, lambda *key: EXPECTED[key]) == Cell("right", 0.0)


def test_judged_one_answer_beyond_the_bound_is_wrong() -> None:
    cell = judged({"answers": [ANSWERS[0], (1, 3, -0.25 - 2 * BOUND)]}, lambda *key: EXPECTED[key])
    assert (cell.state, cell.distance) == ("wrong", pytest.approx(2 * BOUND))


@pytest.mark.parametrize("answers", [[], [(0, 7, float("nan")), (1, 3, -0.25)], [(0, 7, -1.5), (1, 3, float("nan"))]])
def test_judged_answers_that_are_no_numbers_are_wrong(answers: list[tuple[int, int, float]]) -> None:
    assert judged({"answers": answers}, lambda *key: EXPECTED[key]).state == "wrong"


def test_judged_refusal_keeps_the_message() -> None:
    assert judged({"refused": "ValueError: no DoRA"}, lambda *key: 0.0) == Cell("refused", message="ValueError: no DoRA")


@pytest.mark.parametrize("state", ["right", "refused", "wrong"])
def test_contradiction_other_state_than_the_rule_is_reported(state: str) -> None:
    cells = {"right": Cell("right", 1e-5), "refused": Cell("refused", message="no"), "wrong": Cell("wrong", 0.5)}
    assert not contradiction(cells[state], verdict(state))
    for other, cell in cells.items():
        if other != state:
            assert f"the rule says {state}" in contradiction(cell, verdict(state))


def test_contradiction_unknown_kind_is_not_reported() -> None:
    assert not contradiction(Cell("wrong", 0.5), verdict("unknown"))


def test_stale_answer_contradicts_a_rule_that_it_is_right_or_refused() -> None:
    assert "says right, found WRONG 0.1" in stale(Cell("wrong", 0.1), Answer("right"))
    assert stale(Cell("refused", message="no"), Answer("right")) == "the rule says right, found refused no"
    # Such as a new version of a package that lets the engine switch.
    assert "says refused, found right" in stale(Cell("right", 1e-5), Answer("refused", "without PEFT 0.22"))
    assert not stale(Cell("refused", message="no"), Answer("refused"))
    assert not stale(Cell("right", 1e-5), Answer("right"))
    assert not stale(Cell("right", 1e-5), Answer("wrong", "up to version 0.30"))
    assert not stale(Cell("wrong", 0.1), Answer("unknown"))


def test_table_has_a_row_for_each_kind() -> None:
    assert table(["vllm"], {"plain": ["right 2e-05"], "dora": ["refused"]}).splitlines() == [
        "| kind  | vllm        |",
        "| ----- | ----------- |",
        "| plain | right 2e-05 |",
        "| dora  | refused     |",
    ]
