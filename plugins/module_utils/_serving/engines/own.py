# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""A server that the site has written, with as much of OpenAI's API as it has.

Its completions are those of OpenAI: with ``echo``, they begin with the tokens of the prompt and
their log-probabilities. So a prompt that ends with a token tells how likely that token is.
"""

from __future__ import annotations

import typing as t

from ..._engines.declared import DeclaredEngine
from ..asking import ask, base_among, check_computed, check_up, fields_in, finite, model_names
from ..contract import PROVES_NAME, PROVES_NOTHING, EngineState, Listed, Question, Refused, Row, Unsupported
from ..http import Client
from .at_start import AtStart

_LIKELIEST = 5
_NO_FIGURES = "does not return the log-probabilities of a prompt from /v1/completions with echo"


class Own(AtStart):
    name = "own"
    proves = PROVES_NAME
    most_questions = 16

    def __init__(self, declared: DeclaredEngine, client: Client) -> None:
        super().__init__(declared, client)
        if declared.settings.get("lists_adapters") is False:
            self.proves = PROVES_NOTHING

    def state(self) -> EngineState:
        check_up(self._client)
        return EngineState(self._version, self._base())

    def listed(self) -> list[Listed]:
        if self.proves == PROVES_NOTHING:
            return []
        names = model_names(self._client)
        return [Listed(name) for name in names if name != base_among(names, self._endpoint.base)]

    def log_probabilities(self, model: str | None, questions: t.Sequence[Question]) -> list[Row]:
        choices = self._completed(model, [[*one.ids, one.token] for one in questions], logprobs=1, echo=True)
        rows = []
        for one, choice in zip(questions, choices):
            found = _logprobs_in(choice, "token_logprobs")
            if len(found) <= len(one.ids):
                raise Unsupported(_NO_FIGURES)
            rows.append({one.token: finite(found[len(one.ids)])})
        return rows

    def first_token(self, model: str | None, prompt: t.Sequence[int], salt: str | None) -> dict[str, float]:
        if salt is not None:
            raise Unsupported("has no prefix cache for one request alone")
        (choice,) = self._completed(model, [prompt], logprobs=_LIKELIEST)
        found = _logprobs_in(choice, "top_logprobs")
        if not found or not isinstance(found[0], dict):
            raise Unsupported("does not return the likeliest tokens")
        return {token: finite(value) for token, value in found[0].items()}

    def start_options(self, adapters: t.Sequence[tuple[str, str]]) -> list[str]:
        return [f"{name}={directory}" for name, directory in adapters]

    def _completed(self, model: str | None, prompts: t.Sequence[t.Sequence[int]], **options: t.Any) -> list[t.Any]:
        """Return the choices of a completion. Raises Unsupported if the base has none."""
        name = self._base() if model is None else model
        if name is None:
            raise Unsupported("does not list its base, and base of this engine in engines does not state it")
        body = {"model": name, "prompt": list(map(list, prompts)), "max_tokens": 1, "temperature": 0, **options}
        answer = ask(self._client, "POST", "/v1/completions", body)
        try:
            check_computed(self._client, answer)
        except Refused as exc:
            if model is not None:
                raise Refused(f"refuses {model}: {exc.message}", status=exc.status) from exc
            raise Unsupported(f"has no /v1/completions for a probe: {exc.message}") from exc
        choices = fields_in(answer).get("choices")
        if not isinstance(choices, list) or len(choices) != len(prompts):
            raise Unsupported("does not take several prompts as token ids at once")
        return choices

    def _base(self) -> str | None:
        stated = self._endpoint.base
        if stated is not None and self.proves == PROVES_NOTHING:
            return stated
        return base_among(model_names(self._client), stated)


def _logprobs_in(choice: t.Any, key: str) -> list[t.Any]:
    """Return a list of the log-probabilities of a choice, an empty one if there is none."""
    logprobs = choice.get("logprobs") if isinstance(choice, dict) else None
    found = logprobs.get(key) if isinstance(logprobs, dict) else None
    return found if isinstance(found, list) else []
