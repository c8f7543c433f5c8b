# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the clients of ``make serving`` ask, and what they count as wrong."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.serving.clients import Answer, Asked, ask, judged
from tests.support.fake_engine.running import FakeEngine
from tests.support.serving import make_base

OLD, NEW, MIXED = (Answer((" a", " b"), (-1.0, second)) for second in (-2.0, -3.0, -2.5))
CLOSE = Answer(OLD.tokens, (-1.0, -2.0001))


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        pytest.param([(0, 1, OLD), (1, 2, CLOSE), (3, 4, NEW)], 0, id="switched"),
        pytest.param([(0, 2, NEW), (1, 3, OLD)], 0, id="old-in-flight"),
        pytest.param([(0, 1, NEW), (2, 3, OLD)], 1, id="old-after-the-switch"),
        pytest.param([(0, 1, OLD), (1, 2, MIXED)], 1, id="of-neither"),
        pytest.param([(0, 1, OLD), (1, 2, Answer((" c",), (-1.0,)))], 1, id="other-tokens"),
    ],
)
def test_judged_answers_around_a_switch_are_of_one_release(rows: list[tuple[float, float, Answer]], wrong: int) -> None:
    count = judged([Asked("p", *row) for row in rows], {"p": OLD}, {"p": NEW})
    assert (count.requests, len(count.wrong), count.failed) == (len(rows), wrong, [])


def test_judged_answer_that_did_not_come_is_failed_and_not_wrong() -> None:
    count = judged([Asked("p", 0, 1, None, "404 unknown")], {"p": OLD}, {"p": NEW})
    assert (count.wrong, count.failed) == ([], ["404 unknown"])


def test_judged_repeated_request_is_counted_once() -> None:
    count = judged([Asked("p", 0, 1, OLD, repeats=3), Asked("p", 1, 2, OLD)], {"p": OLD}, {"p": NEW})
    assert (count.repeated, count.wrong, count.failed) == (1, [], [])


def test_ask_while_the_name_is_unknown_is_repeated(tmp_path: pathlib.Path, fake_engine: t.Callable[..., FakeEngine]) -> None:
    engine = fake_engine("vllm", make_base(tmp_path), "0.32.0")
    engine.fault("status", on="answer", status=404, times=2)
    asked = ask(engine.port, "base", "She have a car.")
    assert (asked.repeats, asked.failure) == (2, "")
    assert asked.answer is not None and len(asked.answer.tokens) == 3


def test_ask_that_fails_is_not_repeated(tmp_path: pathlib.Path, fake_engine: t.Callable[..., FakeEngine]) -> None:
    engine = fake_engine("vllm", make_base(tmp_path), "0.32.0")
    engine.fault("status", on="answer", status=500, times=1)
    asked = ask(engine.port, "base", "She have a car.")
    assert (asked.answer, asked.repeats, asked.failure[:3]) == (None, 0, "500")
