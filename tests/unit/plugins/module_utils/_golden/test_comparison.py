# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Distances from a golden and their verdicts, for figures made by hand.

``tests/contract/test_golden_table.py`` computes real ones.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import (
    PERMITTED,
    Distances,
    distances,
    permitted,
    problems,
    unusual,
)
from hypothesis import given
from hypothesis import strategies as st

SAME = Distances(on=0.0, off=0.0, direction=1.0, strength=1.0, top1=1.0)


def log(*shares: float) -> list[float]:
    return [math.log(share) for share in shares]


# Two tokens of one answer. The adapter makes the first id likelier.
ON = [[log(0.8, 0.1, 0.1), log(0.6, 0.3, 0.1)]]
OFF = [[log(0.3, 0.4, 0.3), log(0.2, 0.5, 0.3)]]
GOLDEN = {"on": ON, "off": OFF}


def test_distances_of_equal_answers_are_zero() -> None:
    assert distances(GOLDEN, copy.deepcopy(GOLDEN)) == SAME


def test_distances_without_the_adapter_have_no_effect() -> None:
    found = distances(GOLDEN, {"on": OFF, "off": OFF})
    assert (found.off, found.strength, found.direction) == (0, 0, 0)
    assert found.on > 0.5
    assert found.top1 == 0


def test_distances_of_half_the_effect_have_half_the_strength() -> None:
    half = [[[(a + b) / 2 for a, b in zip(on, off)] for on, off in zip(ON[0], OFF[0])]]
    found = distances(GOLDEN, {"on": half, "off": OFF})
    assert found.strength == pytest.approx(0.5)
    assert found.direction == pytest.approx(1)


def test_distances_weight_tokens_by_probability() -> None:
    golden = {"on": [[log(0.99, 0.01)]], "off": [[log(0.5, 0.5)]]}
    likely, unlikely = copy.deepcopy(golden), copy.deepcopy(golden)
    likely["on"][0][0][0] -= 1
    unlikely["on"][0][0][1] -= 1
    assert distances(golden, likely).on == pytest.approx(0.99)
    assert distances(golden, unlikely).on == pytest.approx(0.01)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", ["on", "off"])
def test_distances_nan_or_infinity_is_an_error(key: str, broken: float) -> None:
    found = copy.deepcopy(GOLDEN)
    found[key][0][1][2] = broken
    with pytest.raises(DeliveryError, match="NaN or infinity"):
        distances(GOLDEN, found)


@pytest.mark.parametrize("found", [{"on": [], "off": []}, {"on": ON, "off": [OFF[0][:1]]}, {"on": [[[0.0]]], "off": [[[0.0]]]}])
def test_distances_other_form_is_an_error(found: dict[str, t.Any]) -> None:
    with pytest.raises(DeliveryError, match="form does not match"):
        distances(GOLDEN, found)


@given(st.lists(st.lists(st.floats(-30, 0), min_size=3, max_size=3), min_size=2, max_size=2))
def test_distances_of_any_answer_are_finite(rows: list[list[float]]) -> None:
    found = distances(GOLDEN, {"on": [rows], "off": OFF})
    assert all(math.isfinite(value) for value in found.to_json().values())
    assert -1.0001 <= found.direction <= 1.0001
    assert 0 <= found.top1 <= 1


@pytest.mark.parametrize(
    ("found", "words", "remedy"),
    [
        (SAME, None, ""),
        # Measured with another half-precision kernel on SmolLM2.
        (Distances(0.0081, 0.0362, 0.9999, 1.0012, 1.0), None, ""),
        # The figures of each wrong case in docs/golden.md.
        (Distances(0.0323, 0.0986, 0.9993, 1.0061, 0.98), "another base, or is read in another way", "version of transformers"),
        (
            Distances(1.2087, 0.0319, 0.8996, 1.1970, 0.76),
            "has an effect of the recorded direction but another strength",
            "lora_alpha",
        ),
        (
            Distances(7.3194, 0.0319, 0.5210, 1.6702, 0.27),
            "has an effect of the recorded direction but another strength",
            "use_rslora",
        ),
        # use_rslora with other prompts, and the greatest effect of another adapter.
        (
            Distances(6.3537, 0.0339, 0.6034, 1.4505, 0.31),
            "has an effect of the recorded direction but another strength",
            "use_rslora",
        ),
        (Distances(1.0440, 0.0240, 0.4630, 0.7910, 0.56), "answers like another adapter", "Deliver the right adapter"),
        (Distances(0.0860, 0.0319, 0.9898, 0.8463, 0.96), "or a part of it is missing", "the weights"),
        (Distances(2.4913, 0.0319, 0.4299, 0.3185, 0.42), "answers like another adapter", "Deliver the right adapter"),
        (Distances(0.9990, 0.0240, 0.0000, 0.0000, 0.58), "as if the adapter were not there", "target_modules"),
        (Distances(0.2000, 0.0240, 0.9900, 1.0100, 0.90), "by more than another device explains", "PEFT and transformers"),
        (Distances(0.0500, 0.0240, 0.9700, 1.0100, 0.90), "by more than another device explains", "PEFT and transformers"),
    ],
)
def test_problems_follow_from_the_distances(found: Distances, words: str | None, remedy: str) -> None:
    wrong = problems(found, PERMITTED)
    if words is None:
        assert wrong == []
        return
    assert len(wrong) == 1
    assert words in wrong[0][0]
    assert remedy in wrong[0][1]
    # With the figure and its limit.
    assert f"{found.off:.3f}" in wrong[0][0]
    assert "permitted" in wrong[0][0]


def test_problems_of_another_base_do_not_name_the_adapter() -> None:
    wrong = problems(Distances(1.0, 0.5, 0.1, 2.0, 0.1), PERMITTED)
    assert ["another base" in problem for problem, _remedy in wrong] == [True]


def test_unusual_notes_a_permitted_distance() -> None:
    assert unusual(SAME) == unusual(Distances(0.0323, 0.0786, 0.9993, 1.0061, 0.98)) == []
    far = Distances(0.1, 0.0319, 0.99, 1.05, 0.96)
    assert problems(far, PERMITTED) == []
    (note,) = unusual(far)
    assert note.startswith("With the adapter the distance from its golden is 0.100, ")


def test_permitted_is_at_least_four_times_the_noise() -> None:
    assert permitted([]) == permitted([SAME]) == PERMITTED
    noisy = permitted([SAME, Distances(on=0.04, off=0.03, direction=0.99, strength=1.03, top1=0.9)])
    assert noisy == {"on": 0.16, "off": 0.12, "direction": 0.96, "strength": 0.12}
    with pytest.raises(DeliveryError, match=r"attention kernels of the training server differ by 0\.060"):
        permitted([dataclasses.replace(SAME, off=0.06)])
    # An effect no greater than noise: with such limits, a missing adapter would pass.
    for unclear in ({"direction": 0.7}, {"strength": 1.4}, {"direction": 0.0, "strength": 0.0}):
        with pytest.raises(DeliveryError, match=r"hardly above the noise.*Record more or longer prompts"):
            permitted([dataclasses.replace(SAME, **unclear)])
