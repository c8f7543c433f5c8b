# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server that a site has written, with the parts of OpenAI's API that the settings name.

Its completions are those of OpenAI's documentation: with ``echo``, the tokens of the prompt come
first, with their log-probabilities. The first one has none.
"""

from __future__ import annotations

import typing as t

from ..faults import NOT_FINITE
from ..model import NONE, Weights, likeliest, text_of, top
from ..personality import ANSWER, HEALTH, LIST, OTHER, Answer, Call, Personality, Work, adapters_of_start

VERSIONS = ("",)


class Own(Personality):
    """A server whose adapters change with a restart."""

    def start(self) -> None:
        self.adapters: dict[str, Weights] = {name: self.computed(name, path) for name, path in adapters_of_start(self.settings)}

    def begin(self, call: Call) -> Work:
        routes: dict[str, t.Callable[[], Work]] = {
            f"GET {self.settings.ready}": lambda: Work(HEALTH, "", lambda: Answer(200, "")),
            "GET /v1/models": lambda: Work(LIST, "", self.listed),
            "POST /v1/completions": lambda: self.completion(call),
        }
        if call.route not in routes:
            return Work(OTHER, "", lambda: error(404, "no such route"))
        return routes[call.route]()

    def listed(self) -> Answer:
        names = [self.settings.base_name, *(self.adapters if self.settings.lists_adapters else ())]
        return Answer(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]})

    def completion(self, call: Call) -> Work:
        body = call.json()
        name = body.get("model", "")
        weights = NONE if name == self.settings.base_name else self.adapters.get(name)
        if weights is None:
            return Work(ANSWER, name, lambda: error(404, f"no model is called {name}"))
        return Work(ANSWER, name, lambda: self.completed(name, weights, body))

    def completed(self, name: str, weights: Weights, body: dict[str, t.Any]) -> Answer:
        finite = not self.faults.change(NOT_FINITE, name)
        choices = [self.choice(index, ids, weights, body, finite) for index, ids in enumerate(body["prompt"])]
        return Answer(200, {"object": "text_completion", "model": name, "choices": choices})

    def choice(self, index: int, ids: list[int], weights: Weights, body: dict[str, t.Any], finite: bool) -> dict[str, t.Any]:
        start = 0 if body.get("echo") and self.settings.echo else len(ids)
        whole = [*ids, likeliest(self.model.next_token(ids, [weights] * len(ids)))]
        rows = {end: self.model.next_token(whole[:end], [weights] * end) for end in range(max(start, 1), len(whole))}
        logprobs = {
            "tokens": [text_of([token]) for token in whole[start:]],
            "token_logprobs": [rows[end][whole[end]] if end in rows and finite else None for end in range(start, len(whole))],
            "top_logprobs": [
                {text_of([token]): rows[end][token] if finite else None for token in top(rows[end], body.get("logprobs", 0))}
                if end in rows
                else None
                for end in range(start, len(whole))
            ],
        }
        told = logprobs if body.get("logprobs") and self.settings.max_logprobs else None
        return {"index": index, "text": text_of(whole[start:]), "logprobs": told, "finish_reason": "length"}


def error(status: int, message: str) -> Answer:
    return Answer(status, {"error": {"message": message}})


PERSONALITY = Own
