# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import tempfile

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.bounds import bound as bound_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.verdicts import Engine
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import PERMITTED, Distances, problems
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import Golden
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.contract import Question, Row
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.probe import (
    LONG,
    SHORT,
    ProbeFailed,
    check_differs,
    check_golden,
    distance,
    own_noise,
    prompts_of,
    questions_of,
    rows_distance,
    some_of,
    widened,
)

from tests.support import releases
from tests.support.fake_engine import goldens
from tests.support.serving import make_base

FLOAT32, BFLOAT16 = 1e-3, 0.3
Rows = list[Row]


@functools.lru_cache
def golden() -> Golden:
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        releases.write_version(directory / "release", 1)
        return goldens.golden_of(releases.manifest_of(1), directory / "release", make_base(directory))


def answers(key: str) -> Rows:
    """The recorded answers, as an engine gives them."""
    return [
        dict(zip(tokens, row))
        for question, rows in zip(golden().questions, golden().answer[key])
        for tokens, row in zip(question["tokens"], rows)
    ]


def mixed(share: float) -> Rows:
    """Answers with another strength of the adapter."""
    return [
        {token: there[token] + share * (here[token] - there[token]) for token in here}
        for here, there in zip(answers("on"), answers("off"))
    ]


def check(on: Rows, off: Rows, bound: float = FLOAT32) -> float:
    return check_golden(golden(), questions_of(golden(), None), on, off, bound).distances.on


def test_check_golden_of_recorded_answers_has_no_distance() -> None:
    assert check(answers("on"), answers("off")) == 0.0


def test_check_golden_compares_what_the_engine_tells_of_both() -> None:
    questions = questions_of(golden(), None)
    only_answer = [{one.token: row[one.token]} for row, one in zip(answers("on"), questions)]
    figures = check_golden(golden(), questions, only_answer, answers("off"), FLOAT32)
    assert (figures.tokens, figures.distances.on) == (golden().positions, 0.0)


@pytest.mark.parametrize("bound", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize(
    ("on", "problem"),
    [
        (mixed(0.0), "answers as if the adapter were not there"),
        (mixed(2.0), "another strength"),
    ],
)
def test_check_golden_of_wrong_answers_fails_whatever_the_dtype(on: Rows, problem: str, bound: float) -> None:
    with pytest.raises(ProbeFailed, match=problem):
        check(on, answers("off"), bound)


@pytest.mark.parametrize("bound", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("share", [0.5, 1.4])
def test_check_golden_of_another_scaling_fails_whatever_the_dtype(share: float, bound: float) -> None:
    with pytest.raises(ProbeFailed, match="another strength"):
        check(mixed(share), answers("off"), bound)


# The table of docs/golden.md, and a weaker adapter with another scaling: on, off, direction,
# strength, and whether the probe of an engine in bfloat16 finds the fault, too. In float32 it finds
# what a load test finds.
MEASURED = {
    "no change": (0.0082, 0.0319, 0.9999, 1.001, None),
    "bfloat16, eager": (0.0081, 0.0362, 0.9999, 1.001, None),
    "float16": (0.0084, 0.0317, 0.9999, 1.002, None),
    "adapter saved in bfloat16": (0.0081, 0.0319, 0.9999, 1.001, None),
    "twice lora_alpha": (1.209, 0.0319, 0.900, 1.197, True),
    "use_rslora": (7.319, 0.0319, 0.521, 1.670, True),
    "a scaling of 1.41": (0.243, 0.024, 0.961, 1.17, True),
    "second half zeroed": (0.332, 0.0319, 0.943, 0.637, True),
    "last layers zeroed": (0.086, 0.0319, 0.990, 0.846, False),
    "another adapter": (2.491, 0.0319, 0.430, 0.319, True),
    "base 1 % off": (0.032, 0.0986, 0.999, 1.006, False),
    "base 5 % off": (0.118, 0.472, 0.988, 0.958, True),
    "rope_theta": (0.070, 0.202, 0.997, 1.005, True),
    "a matrix of the base zeroed": (0.386, 1.024, 0.900, 0.967, True),
    # Right answers of vLLM in bfloat16, as if every token were as far away as the worst one.
    "worst token": (0.186, 0.141, 0.998, 0.994, None),
}


@pytest.mark.parametrize("case", MEASURED)
def test_limits_of_both_dtypes_separate_what_was_measured(case: str) -> None:
    on, off, direction, strength, found_in_bfloat16 = MEASURED[case]
    # Twice lora_alpha adds the effect once more, which is the mean length of this adapter's effect.
    length = 1.2
    measured = Distances(on, off, direction, strength, 1.0)
    in_float32, in_bfloat16 = (bool(problems(measured, widened(PERMITTED, length, bound))) for bound in (FLOAT32, BFLOAT16))
    assert in_bfloat16 is bool(found_in_bfloat16)
    assert in_float32 is (found_in_bfloat16 is not None or case == "worst token")


@pytest.mark.parametrize(
    "engine", [Engine("vllm", "0.32.0", {"dtype": "float32"}), Engine("vllm", "0.32.0", {"dtype": "bfloat16"})]
)
def test_bounds_of_the_dtypes_are_those_of_the_tests(engine: Engine) -> None:
    assert bound_of(engine).value == {"float32": FLOAT32, "bfloat16": BFLOAT16}[engine.settings["dtype"]]


def test_limits_of_an_adapter_with_little_effect_still_tell_another_one() -> None:
    limits = widened(PERMITTED, 0.01, BFLOAT16)
    assert (limits["direction"], limits["strength"]) == (0.75, 0.5)
    assert widened(PERMITTED, 0.0, FLOAT32) == {**widened(PERMITTED, 1.0, FLOAT32), "direction": 0.75, "strength": 0.5}


def test_check_golden_of_another_base_fails() -> None:
    off = [{token: value - 0.5 for token, value in row.items()} for row in answers("off")]
    with pytest.raises(ProbeFailed, match="is on a base whose answers differ"):
        check(answers("on"), off)


def test_check_golden_permits_the_noise_of_half_precision() -> None:
    noisy = [{token: value + 0.05 * math.sin(token) for token, value in row.items()} for row in answers("on")]
    assert 0.01 < check(noisy, answers("off"), BFLOAT16) < 0.1


def test_check_golden_without_a_known_token_fails() -> None:
    with pytest.raises(ProbeFailed, match="tells no log-probability that its golden has"):
        check([{} for _row in answers("on")], answers("off"))


def test_check_differs_demands_another_answer_than_the_base() -> None:
    check_differs([{1: -0.5}], [{1: -0.6}])
    with pytest.raises(ProbeFailed, match="answers exactly as its base does"):
        check_differs([{1: -0.5}], [{1: -0.5}])


def test_questions_leave_out_positions_that_the_engine_has_no_room_for() -> None:
    questions = questions_of(golden(), None)
    assert len(questions) == golden().positions
    longest = max(len(one.ids) for one in questions)
    assert [one for one in questions if len(one.ids) < longest] == questions_of(golden(), longest)
    assert questions_of(golden(), 1) == []


def test_questions_without_a_golden_ask_for_any_tokens() -> None:
    questions = questions_of(None, None)
    assert len(questions[0].ids) == SHORT
    assert {one.others for one in questions} == {()}


def test_some_of_questions_are_of_all_prompts() -> None:
    questions = [Question((prompt, *range(place)), 1) for prompt in range(4) for place in range(16)]
    few = some_of(questions)
    assert len(few) == 16
    assert [one.ids[0] for one in few] == [prompt for prompt in range(4) for _question in range(4)]
    assert some_of(questions[:5]) == questions[:5]


@pytest.mark.parametrize(("longest", "expected"), [(None, LONG), (1024, LONG), (64, 63)])
def test_prompts_fill_a_prefix_cache_as_far_as_the_engine_permits(longest: int | None, expected: int) -> None:
    for short, long in (prompts_of(golden(), longest), prompts_of(None, longest)):
        assert (len(long), len(short)) == (expected, SHORT)


def test_distance_is_weighted_by_what_is_likely() -> None:
    truth = {"a": math.log(0.9), "b": math.log(0.1)}
    assert distance(truth, truth) == 0.0
    assert distance(truth, {"a": truth["a"], "b": truth["b"] - 1}) == pytest.approx(0.1)
    assert distance(truth, {"a": truth["a"] - 1, "b": truth["b"]}) == pytest.approx(0.9)
    assert distance(truth, {"c": -0.1, "a": -2.0}) == math.inf


def test_distance_finds_the_stale_cache_that_was_measured() -> None:
    """vLLM 0.29 answered -0.4699 after a switch, in float32; right was -0.7197."""
    assert distance({"t": -0.7197, "u": -1.0}, {"t": -0.4699, "u": -1.0}) > own_noise(BFLOAT16) > own_noise(FLOAT32)


def test_rows_distance_of_other_tokens_is_infinite() -> None:
    assert rows_distance([{1: -1.0, 2: -2.0}], [{1: -1.5, 3: -2.0}]) == 0.5
    assert rows_distance([{1: -1.0}], [{2: -1.0}]) == math.inf


def test_figures_are_those_of_the_results() -> None:
    figures = check_golden(golden(), questions_of(golden(), None), answers("on"), answers("off"), FLOAT32).to_json()
    assert figures["permitted"]["on"] == pytest.approx(golden().permitted["on"] + FLOAT32 / 4, abs=1e-4)
    assert figures["distances"] == {"on": 0.0, "off": 0.0, "direction": 1.0, "strength": 1.0, "top1": 1.0}
    assert dataclasses.is_dataclass(golden())
