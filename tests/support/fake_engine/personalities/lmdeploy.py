# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LMDeploy, which loads adapters at its start only.

Read from its source: the adapters of the start are names in ``/v1/models``. It has no
route that loads, and answers by text.
"""

from __future__ import annotations

import typing as t

from ..faults import EMPTY_TEXT
from ..model import NONE, Weights, text_of, tokens_of
from ..personality import ANSWER, HEALTH, LIST, OTHER, Answer, Call, Personality, Work, adapters_of_start

VERSIONS = ("1",)


class Lmdeploy(Personality):
    """A server whose adapters change with a restart."""

    def start(self) -> None:
        self.adapters: dict[str, Weights] = {name: self.computed(name, path) for name, path in adapters_of_start(self.settings)}

    def begin(self, call: Call) -> Work:
        routes: dict[str, t.Callable[[Call], Work]] = {
            "GET /health": lambda _call: Work(HEALTH, "", lambda: Answer(200, "")),
            "GET /v1/models": lambda _call: Work(LIST, "", self.listed),
            "POST /v1/completions": self.completion,
        }
        if call.route not in routes:
            return Work(OTHER, "", lambda: Answer(404, {"detail": "Not Found"}))
        return routes[call.route](call)

    def listed(self) -> Answer:
        names = [self.settings.base_name, *self.adapters]
        rows = [{"id": name, "object": "model", "owned_by": "lmdeploy", "root": name, "parent": None} for name in names]
        return Answer(200, {"object": "list", "data": rows})

    def completion(self, call: Call) -> Work:
        body = call.json()
        name = body.get("model", "")
        weights = NONE if name == self.settings.base_name else self.adapters.get(name)
        if weights is None:
            message = f"The model {name!r} does not exist."
            missing = {"object": "error", "message": message, "type": "invalid_request_error", "code": 404}
            return Work(ANSWER, name, lambda: Answer(404, missing))
        found = self.model.continued(tokens_of(body["prompt"], self.settings.vocabulary), body.get("max_tokens", 16), weights)
        text = "" if self.faults.change(EMPTY_TEXT, name) else text_of(found)
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "length"}
        return Work(ANSWER, name, lambda: Answer(200, {"object": "text_completion", "model": name, "choices": [choice]}))


PERSONALITY = Lmdeploy
