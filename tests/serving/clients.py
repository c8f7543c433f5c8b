# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clients that ask an engine all the time, and what they make of its answers."""

from __future__ import annotations

import collections.abc as c
import http.client
import json
import threading
import time
import typing as t

# Log-probabilities of one release differ by less than this, with any other requests beside: by 3e-7
# in float32. Those of two releases can be within 5e-3 where both are certain.
TOLERANCE = 2e-4
_LIMIT = 300
# Seconds between an answer and the next question of a client: users read what they got. Clients
# that never wait leave an engine on two cores hardly any time for the probe.
_PAUSE = 2
_TOKENS = 3
# Seconds for which a request is repeated whose model is not known. A switch of a name in vLLM is
# unload and load, and docs/serving.md tells gateways to repeat what comes in between.
_SWITCH = 10


class Answer(t.NamedTuple):
    """The tokens of an answer and their log-probabilities."""

    tokens: tuple[str, ...]
    log_probabilities: tuple[float, ...]

    def is_like(self, other: Answer) -> bool:
        if self.tokens != other.tokens:
            return False
        return all(abs(a - b) <= TOLERANCE for a, b in zip(self.log_probabilities, other.log_probabilities))


class Asked(t.NamedTuple):
    """A request, and its answer or what came instead (``failure``).

    ``repeats`` is how often it had to be sent again, ``sent`` when that was done last.
    """

    prompt: str
    sent: float
    received: float
    answer: Answer | None
    failure: str = ""
    repeats: int = 0


class Count(t.NamedTuple):
    """``wrong`` and ``failed`` are texts about the requests.

    ``repeated`` is how many were sent again.
    """

    requests: int
    wrong: list[str]
    failed: list[str]
    repeated: int


def ask(port: int, model: str, prompt: str) -> Asked:
    """Ask as users do. Everything that is not an answer is a failure."""
    deadline, repeats = time.monotonic() + _SWITCH, 0
    while True:
        status, asked = _asked(port, model, prompt)
        if status != http.HTTPStatus.NOT_FOUND or time.monotonic() >= deadline:
            return asked._replace(repeats=repeats)
        repeats += 1
        time.sleep(0.1)


def _asked(port: int, model: str, prompt: str) -> tuple[int | None, Asked]:
    body = {"model": model, "prompt": prompt, "max_tokens": _TOKENS, "temperature": 0, "logprobs": 1}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT)
    sent, status = time.monotonic(), None
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        status, text = answer.status, answer.read().decode()
        if status != http.HTTPStatus.OK:
            return status, Asked(prompt, sent, time.monotonic(), None, f"{status} {text}")
        found = json.loads(text)["choices"][0]["logprobs"]
        given = Answer(tuple(found["tokens"]), tuple(found["token_logprobs"]))
        return status, Asked(prompt, sent, time.monotonic(), given)
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as exc:
        return status, Asked(prompt, sent, time.monotonic(), None, repr(exc))
    finally:
        connection.close()


class Clients:
    """One client for each prompt, which asks until the end of the context."""

    def __init__(self, port: int, model: str, prompts: c.Sequence[str]) -> None:
        self.asked: list[Asked] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[port, model, prompt], daemon=True) for prompt in prompts]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(_LIMIT)

    def _run(self, port: int, model: str, prompt: str) -> None:
        while not self._ended.is_set():
            self.asked.append(ask(port, model, prompt))
            self._ended.wait(_PAUSE)


def judged(asked: c.Sequence[Asked], old: c.Mapping[str, Answer], new: c.Mapping[str, Answer]) -> Count:
    """Judge the answers around one switch, by the answers of both releases to each prompt.

    After any answer of the new release has arrived, whoever asks gets the new one. Answers to
    requests that were sent before may be of either.
    """
    arrivals = [one.received for one in asked if one.answer is not None and one.answer.is_like(new[one.prompt])]
    switched = min(arrivals, default=float("inf"))
    wrong, failed = [], []
    for one in asked:
        if one.answer is None:
            failed.append(one.failure)
        elif not one.answer.is_like(new[one.prompt]) and (one.sent > switched or not one.answer.is_like(old[one.prompt])):
            wrong.append(f"{one.prompt!r}: {one.answer}, of the old release {old[one.prompt]}, of the new one {new[one.prompt]}")
    return Count(len(asked), wrong, failed, sum(1 for one in asked if one.repeats))
