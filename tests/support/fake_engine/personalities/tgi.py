# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text Generation Inference, which loads adapters at its start only.

Read from the source of v3.3.7: routes, the form of requests and answers, status codes. It lists no
adapters, and the base answers for one that it does not have. A value that is not finite is null.
"""

from __future__ import annotations

import typing as t

from ..faults import NOT_FINITE
from ..model import NONE, Weights, likeliest, text_of, tokens_of, top
from ..personality import ANSWER, HEALTH, OTHER, VERSION, Answer, Call, Personality, Work, adapters_of_start

VERSIONS = ("3.3.7",)
# Those of --max-top-n-tokens and --max-input-tokens.
MOST, LONGEST = 5, 1024


class Tgi(Personality):
    """A server whose adapters change with a restart."""

    def start(self) -> None:
        self.adapters: dict[str, Weights] = {name: self.computed(name, path) for name, path in adapters_of_start(self.settings)}

    def begin(self, call: Call) -> Work:
        routes: dict[str, t.Callable[[], Work]] = {
            "GET /health": lambda: Work(HEALTH, "", lambda: Answer(200)),
            "GET /info": lambda: Work(VERSION, "", self.info),
            "GET /v1/models": lambda: Work(OTHER, "", self.models),
            "POST /tokenize": lambda: Work(OTHER, "", lambda: self.tokenized(call)),
            "POST /generate": lambda: self.generation(call),
        }
        return routes[call.route]() if call.route in routes else Work(OTHER, "", lambda: Answer(404))

    def info(self) -> Answer:
        return Answer(
            200,
            {
                "model_id": self.settings.base,
                "model_sha": None,
                "max_input_tokens": LONGEST,
                "max_total_tokens": 2 * LONGEST,
                "router": "text-generation-router",
                "version": self.settings.version,
            },
        )

    def models(self) -> Answer:
        row = {"id": self.settings.base, "object": "model", "created": 0, "owned_by": self.settings.base}
        return Answer(200, {"object": "list", "data": [row]})

    def tokens(self, call: Call) -> list[int]:
        begin = self.settings.begin
        return [*([] if begin is None else [begin]), *tokens_of(call.json()["inputs"], self.settings.vocabulary)]

    def tokenized(self, call: Call) -> Answer:
        return Answer(200, [{"id": token, "text": text_of([token]), "start": 0, "stop": 0} for token in self.tokens(call)])

    def generation(self, call: Call) -> Work:
        parameters = call.json()["parameters"]
        name = parameters.get("adapter_id") or ""
        if parameters.get("top_n_tokens", 0) > MOST:
            message = f"Input validation error: `top_n_tokens` must be >= 0 and <= {MOST}."
            return Work(ANSWER, name, lambda: Answer(422, {"error": message, "error_type": "validation"}))
        # Without an error, the base answers for an adapter that it does not have.
        weights = self.adapters.get(name, NONE)
        return Work(ANSWER, name, lambda: self.generated(name, self.tokens(call), weights, parameters))

    def generated(self, name: str, ids: list[int], weights: Weights, parameters: dict[str, t.Any]) -> Answer:
        finite = not self.faults.change(NOT_FINITE, name)
        row = self.model.next_token(ids, [weights] * len(ids))

        def told(token: int) -> dict[str, t.Any]:
            return {"id": token, "text": text_of([token]), "logprob": row[token] if finite else None, "special": False}

        details = {
            "finish_reason": "length",
            "generated_tokens": 1,
            "seed": None,
            # Without --enable-prefill-logprobs, there are no figures of the prompt.
            "prefill": [],
            "tokens": [told(likeliest(row))],
            "top_tokens": [list(map(told, top(row, parameters.get("top_n_tokens", 0))))],
        }
        return Answer(200, {"generated_text": text_of([likeliest(row)]), "details": details})


PERSONALITY = Tgi
