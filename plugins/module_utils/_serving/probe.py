# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What answers of an engine prove: comparisons of log-probabilities, without any contact."""

from __future__ import annotations

import dataclasses
import math
import typing as t

from .._golden.comparison import Distances, distances, problems
from .._golden.golden import Golden
from .contract import Question, Row

# A name that has a new release is asked with this many tokens, more than a block of a prefix cache:
# vLLM's have 16 tokens on GPUs and 128 on CPUs. They cost most of a probe's time on a CPU.
LONG = 160
SHORT = 16
# The tokens after a short prompt that a probe without a golden asks for.
_FOLLOWING = 8
# Whether two names have the same weights shows at a few positions of all prompts.
_FEW = 16
# Token ids that every vocabulary has.
_COMMON_IDS = range(10, 138)
# Equal answers have this distance at most: the same weights, the same prompt, the same engine.
_LEAST_NOISE = 1e-3
# An engine's bound covers the worst token; equal requests to one engine agree far better.
_OWN_NOISE = 0.1
_SAME = 1e-6
# A bound covers the worst token, and a golden compares means. In bfloat16, vLLM's worst token was
# 0.14 to 0.24 away (docs/engines.md), and the means of PEFT were 0.008 and 0.03 (docs/golden.md),
# which the limits of a golden include. With a quarter more, the mean may be like the worst token.
_MEAN = 0.25
# Whatever the noise of an engine: below this direction an effect is another adapter's, and the
# strength of a missing adapter is 0.
_LEAST_DIRECTION = 0.75
_MOST_STRETCHED = 0.5
_T = t.TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a probe with a golden found: ``tokens`` are the compared positions."""

    distances: Distances
    permitted: dict[str, float]
    tokens: int

    def to_json(self) -> dict[str, t.Any]:
        return {"distances": self.distances.to_json(), "permitted": self.permitted, "tokens": self.tokens}


class ProbeFailed(Exception):
    """An answer is not that of the release.

    ``message`` completes a sentence that begins with the name that was asked.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def questions_of(golden: Golden | None, longest: int | None) -> list[Question]:
    """Return the questions of a golden that the engine has room for, or some without a golden."""
    if golden is None:
        ids = tuple(_COMMON_IDS[: SHORT + _FOLLOWING])
        return [Question(ids[:end], ids[end]) for end in range(SHORT, len(ids))]
    # One token is generated, too.
    return [
        Question(tuple(one["ids"][:end]), token, tuple(tokens))
        for one in golden.questions
        for end, (token, tokens) in enumerate(zip(one["ids"][one["start"] :], one["tokens"]), one["start"])
        if longest is None or end < longest
    ]


def some_of(questions: t.Sequence[_T]) -> list[_T]:
    """Return a few questions that are spread over all prompts."""
    return list(questions[:: -(-len(questions) // _FEW)])


def prompts_of(golden: Golden | None, longest: int | None) -> tuple[list[int], list[int]]:
    """Return a short prompt and one that fills blocks of a prefix cache, as token ids."""
    ids = list(_COMMON_IDS) if golden is None else [token for question in golden.questions for token in question["ids"]]
    most = LONG if longest is None else max(1, min(LONG, longest - 1))
    long = (ids * (most // len(ids) + 1))[:most]
    return long[:SHORT], long


def check_golden(
    golden: Golden, questions: t.Sequence[Question], on: t.Sequence[Row], off: t.Sequence[Row], bound: float
) -> Figures:
    """Compare answers with the adapter and without it with a golden.

    ``bound`` is how far a right answer of the engine may be from PEFT's in float32. The tokens that
    the engine told of both are compared. Raises ProbeFailed.
    """
    answers = _recorded(golden)
    recorded: dict[str, list[list[float]]] = {"on": [], "off": []}
    found: dict[str, list[list[float]]] = {"on": [], "off": []}
    for question, here, there in zip(questions, on, off):
        common = [token for token in question.others if token in here and token in there]
        if common:
            for key, row, told in zip(("on", "off"), answers[question.ids], (here, there)):
                recorded[key].append([row[token] for token in common])
                found[key].append([told[token] for token in common])
    if not recorded["on"]:
        raise ProbeFailed("tells no log-probability that its golden has")
    measured = distances(_as_answer(recorded), _as_answer(found))
    permitted = widened(golden.permitted, _length(recorded), bound)
    wrong = problems(measured, permitted)
    if wrong:
        raise ProbeFailed(wrong[0][0].rstrip("."))
    return Figures(measured, permitted, len(recorded["on"]))


def check_differs(on: t.Sequence[Row], off: t.Sequence[Row]) -> None:
    """Raises ProbeFailed if the answers with the adapter are those of the base."""
    if max(_differences(on, off), default=0.0) <= _SAME:
        raise ProbeFailed("answers exactly as its base does: the engine has taken the adapter, but does not apply it")


def own_noise(bound: float) -> float:
    """Return the distance of two answers of one engine that has the same weights for both."""
    return max(_LEAST_NOISE, _OWN_NOISE * bound)


def distance(truth: t.Mapping[str, float], found: t.Mapping[str, float]) -> float:
    """Return the mean difference of the likeliest tokens, weighted by their probabilities.

    It is infinite if no likely token is in both.
    """
    common = truth.keys() & found.keys()
    if max(truth, key=truth.__getitem__) not in common or max(found, key=found.__getitem__) not in common:
        return math.inf
    shares = {token: math.exp(truth[token]) for token in common}
    return sum(share * abs(truth[token] - found[token]) for token, share in shares.items()) / sum(shares.values())


def rows_distance(first: t.Sequence[Row], second: t.Sequence[Row]) -> float:
    """Return the mean difference of two replays of the same questions."""
    differences = _differences(first, second)
    return sum(differences) / len(differences) if differences else math.inf


def widened(limits: t.Mapping[str, float], length: float, bound: float) -> dict[str, float]:
    """Return the limits of a golden, wider by what the engine's own arithmetic explains.

    ``length`` is the quadratic mean of the adapter's effect.
    """
    mean = _MEAN * bound
    share = mean / length if length else 1.0
    return {
        "on": round(limits["on"] + mean, 4),
        "off": round(limits["off"] + mean, 4),
        "direction": round(min(limits["direction"], max(_LEAST_DIRECTION, limits["direction"] - share)), 4),
        "strength": round(max(limits["strength"], min(_MOST_STRETCHED, limits["strength"] + share)), 4),
    }


def _differences(first: t.Sequence[Row], second: t.Sequence[Row]) -> list[float]:
    return [abs(row[token] - other[token]) for row, other in zip(first, second) for token in row.keys() & other.keys()]


def _as_answer(rows: t.Mapping[str, list[list[float]]]) -> dict[str, list[list[list[float]]]]:
    """Return rows as the answer to one prompt of a golden."""
    return {key: [values] for key, values in rows.items()}


def _recorded(golden: Golden) -> dict[tuple[int, ...], tuple[Row, Row]]:
    """Return what a golden says after these tokens, with the adapter and without it."""
    return {
        tuple(one["ids"][:end]): (dict(zip(tokens, on)), dict(zip(tokens, off)))
        for one, rows_on, rows_off in zip(golden.questions, golden.answer["on"], golden.answer["off"])
        for end, (tokens, on, off) in enumerate(zip(one["tokens"], rows_on, rows_off), one["start"])
    }


def _length(recorded: t.Mapping[str, list[list[float]]]) -> float:
    """Return the quadratic mean of the effect of an adapter."""
    effects = [here - there for row, other in zip(recorded["on"], recorded["off"]) for here, there in zip(row, other)]
    return math.sqrt(sum(value * value for value in effects) / len(effects))
