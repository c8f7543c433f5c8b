# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""LMDeploy's OpenAI server, which lists the names of the adapters of its start.

Nothing but a probe would prove the bytes, and it has no request that tells the log-probabilities of
given tokens.
"""

from __future__ import annotations

import typing as t

from ..asking import base_among, check_up, model_names
from ..contract import PROVES_NAME, EngineState, Listed, Question, Row, Unsupported
from .at_start import AtStart

_NO_FIGURES = "does not tell the log-probabilities of given tokens"


class Lmdeploy(AtStart):
    name = "lmdeploy"
    proves = PROVES_NAME

    def state(self) -> EngineState:
        check_up(self._client)
        return EngineState(self._version, base_among(model_names(self._client), self._endpoint.base))

    def listed(self) -> list[Listed]:
        names = model_names(self._client)
        return [Listed(name) for name in names if name != base_among(names, self._endpoint.base)]

    def log_probabilities(self, model: str | None, questions: t.Sequence[Question]) -> list[Row]:
        raise Unsupported(_NO_FIGURES)

    def first_token(self, model: str | None, prompt: t.Sequence[int], salt: str | None) -> dict[str, float]:
        raise Unsupported(_NO_FIGURES)

    def start_options(self, adapters: t.Sequence[tuple[str, str]]) -> list[str]:
        return ["--adapters", *(f"{name}={directory}" for name, directory in adapters)] if adapters else []
