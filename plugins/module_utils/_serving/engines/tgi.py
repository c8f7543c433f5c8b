# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Text Generation Inference, which has no list of its adapters.

The base answers a request for an adapter that it does not have, so only answers tell whether it was
started with one. It takes prompts as text, and tells the likeliest tokens after them.
"""

from __future__ import annotations

import typing as t

from ..._engines.declared import DeclaredEngine
from ..asking import ask, check_computed, check_up, fields_in, finite, text
from ..contract import PROVES_NOTHING, EngineState, Listed, NotFinite, Question, Refused, Row, Unsupported
from ..http import Client
from ..prompt_text import Texts
from .at_start import AtStart

# The most that it gives unless it was started with --max-top-n-tokens.
_MOST = 5
# What separates adapters, and a revision, in its option.
_SEPARATORS = ",=@ "


class Tgi(AtStart):
    name = "tgi"
    proves = PROVES_NOTHING

    def __init__(self, declared: DeclaredEngine, client: Client) -> None:
        super().__init__(declared, client)
        self._texts: Texts | None = None

    def state(self) -> EngineState:
        check_up(self._client)
        found = fields_in(ask(self._client, "GET", "/info"))
        base, longest = text(found.get("model_id")), found.get("max_input_tokens")
        return EngineState(text(found.get("version")) or self._version, base, base, longest if isinstance(longest, int) else None)

    def listed(self) -> list[Listed]:
        return []

    def log_probabilities(self, model: str | None, questions: t.Sequence[Question]) -> list[Row]:
        rows = []
        for one in questions:
            told = dict(self._likeliest(model, one.ids, cached=False))
            rows.append({token: value for token, value in told.items() if not one.others or token in {one.token, *one.others}})
        return rows

    def first_token(self, model: str | None, prompt: t.Sequence[int], salt: str | None) -> dict[str, float]:
        return {str(token): value for token, value in self._likeliest(model, prompt, cached=salt is None)}

    def start_options(self, adapters: t.Sequence[tuple[str, str]]) -> list[str]:
        for _name, directory in adapters:
            if set(_SEPARATORS) & set(directory):
                raise Refused(f"cannot be given {directory}: it reads one of {_SEPARATORS!r} as a separator", "Move the store.")
        return ["--lora-adapters", ",".join(f"{name}={directory}" for name, directory in adapters)] if adapters else []

    def _likeliest(self, model: str | None, ids: t.Sequence[int], cached: bool) -> list[tuple[int, float]]:
        prompt = self._text_of(ids)
        # The figures of a prompt cannot come from the prefix cache, which is not read then.
        uncached = {} if cached else {"decoder_input_details": True}
        adapter = {} if model is None else {"adapter_id": model}
        parameters = {"max_new_tokens": 1, "details": True, "top_n_tokens": _MOST, **uncached, **adapter}
        answer = ask(self._client, "POST", "/generate", {"inputs": prompt, "parameters": parameters})
        check_computed(self._client, answer)
        try:
            rows = fields_in(answer)["details"]["top_tokens"][0]
            return [(row["id"], finite(row["logprob"])) for row in rows]
        except (IndexError, KeyError, TypeError):
            raise NotFinite("returns no log-probabilities") from None

    def _text_of(self, ids: t.Sequence[int]) -> str:
        """Return a prompt as text that it reads as these tokens. Raises Unsupported."""
        if self._texts is None:
            self._texts = Texts(self.state().root)
        prompt = self._texts.of(ids)
        answer = ask(self._client, "POST", "/tokenize", {"inputs": prompt})
        found = answer.json()
        rows = found if answer.status == 200 and isinstance(found, list) else []
        if [row.get("id") for row in rows if isinstance(row, dict)] != list(ids):
            raise Unsupported("takes prompts as text only, and reads this one as other tokens")
        return prompt
