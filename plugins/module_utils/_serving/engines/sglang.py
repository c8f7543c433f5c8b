# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""SGLang, which loads adapters at run time.

Its list has the path as it was sent. Each load has a key of its own in the prefix cache, so a name
may be used again. An unload waits for the answers of the adapter. A name that was unloaded is
loaded again, from its last path, by the next request that asks for it.
"""

from __future__ import annotations

import typing as t

from ..._engines.declared import DeclaredEngine
from ..._formats.strict_json import is_integer
from ..asking import WRONG_URL, ask, check_computed, check_up, fields_in, finite, message_of, row_of, rows_in, text
from ..contract import PROVES_PATH, Capacity, EngineState, Listed, NotFinite, Question, Refused, Row, ServingEngine, Unsupported
from ..http import Answer, Client

_HALF_LOADED = "incomplete unload"
_LIKELIEST = 5


class Sglang(ServingEngine):
    name = "sglang"
    proves = PROVES_PATH
    # The answer to a golden's prompt has 16 positions.
    most_questions = 16

    def __init__(self, declared: DeclaredEngine, client: Client) -> None:
        self._client = client
        self._declared_version = declared.version

    def state(self) -> EngineState:
        check_up(self._client)
        server = self._server()
        model = fields_in(ask(self._client, "GET", "/model_info"))
        base = next((row for row in self._models() if row.get("parent") is None), {})
        warnings = []
        most = server.get("max_loaded_loras")
        if isinstance(most, int):
            warnings.append(f"It unloads the adapters that were used least recently if it has more than {most} of them.")
        longest = base.get("max_model_len")
        return EngineState(
            text(server.get("version")) or self._declared_version,
            text(base.get("id")),
            text(model.get("model_path")),
            longest if isinstance(longest, int) else None,
            tuple(warnings),
        )

    def listed(self) -> list[Listed]:
        rows = [row for row in self._models() if row.get("parent") is not None]
        return [Listed(str(row.get("id")), text(row.get("root")), text(row.get("parent"))) for row in rows]

    def capacity(self) -> Capacity:
        server = self._server()
        limits = {key: server[key] for key in ("max_loras_per_batch", "max_loaded_loras") if key in server}
        return Capacity({key: value for key, value in limits.items() if value is None or is_integer(value)})

    def load(self, name: str, directory: str) -> None:
        body = {"lora_name": name, "lora_path": directory}
        answer = ask(self._client, "POST", "/load_lora_adapter", body)
        if _HALF_LOADED in answer.text:
            # An earlier load failed half-way. SGLang asks for this order itself.
            self.unload(name)
            answer = ask(self._client, "POST", "/load_lora_adapter", body)
        _check_done(answer)

    def unload(self, name: str) -> None:
        _check_done(ask(self._client, "POST", "/unload_lora_adapter", {"lora_name": name}))

    def switch(self, name: str, directory: str) -> None:
        if any(row.name == name for row in self.listed()):
            self.unload(name)
        self.load(name, directory)

    def log_probabilities(self, model: str | None, questions: t.Sequence[Question]) -> list[Row]:
        return [row for along in _by_text(questions) for row in self._rows(model, along)]

    def first_token(self, model: str | None, prompt: t.Sequence[int], salt: str | None) -> dict[str, float]:
        salted = {} if salt is None else {"extra_key": salt}
        found = self._generate(model, prompt, top_logprobs_num=_LIKELIEST, **salted)
        likeliest = found.get("output_top_logprobs")
        if not isinstance(likeliest, list) or not likeliest or not isinstance(likeliest[0], list):
            raise NotFinite("returns no log-probabilities")
        return {str(token): finite(value) for token, value in _pairs(likeliest[0])}

    def wait_until_idle(self, name: str, seconds: float) -> bool:
        # The unload itself waits for all answers of the adapter.
        return True

    def start_options(self, adapters: t.Sequence[tuple[str, str]]) -> list[str]:
        return ["--lora-paths", *(f"{name}={directory}" for name, directory in adapters)] if adapters else []

    def _rows(self, model: str | None, along: t.Sequence[Question]) -> list[Row]:
        """Ask questions along one text."""
        text_ids = [*along[-1].ids, along[-1].token]
        # From the first token on: what is before logprob_start_len may come from the prefix cache.
        wanted = sorted({token for one in along for token in (one.token, *one.others)})
        found = self._generate(model, text_ids, logprob_start_len=0, token_ids_logprob=wanted)
        given, others = (found.get(f"input_{key}_logprobs") for key in ("token", "token_ids"))
        if not isinstance(given, list) or len(given) != len(text_ids):
            raise Unsupported("does not return the log-probabilities of a prompt")
        if not isinstance(others, list) or len(others) != len(text_ids):
            others = [[]] * len(text_ids)
        return [row_of(_pairs([given[len(one.ids)], *(others[len(one.ids)] or [])]), one) for one in along]

    def _generate(self, model: str | None, ids: t.Sequence[int], **options: t.Any) -> dict[str, t.Any]:
        adapter = {} if model is None else {"lora_path": model}
        sampling = {"max_new_tokens": 1, "temperature": 0}
        body = {"input_ids": list(ids), "sampling_params": sampling, "return_logprob": True, **adapter, **options}
        answer = ask(self._client, "POST", "/generate", body)
        check_computed(self._client, answer)
        found = fields_in(answer).get("meta_info")
        if not isinstance(found, dict):
            raise Refused("gives an answer of another form", WRONG_URL)
        return found

    def _server(self) -> dict[str, t.Any]:
        return fields_in(ask(self._client, "GET", "/server_info"))

    def _models(self) -> list[dict[str, t.Any]]:
        return rows_in(ask(self._client, "GET", "/v1/models"), "data", "models")


def _by_text(questions: t.Iterable[Question]) -> list[list[Question]]:
    """Return the questions in groups, each with questions along one text."""
    groups: list[list[Question]] = []
    for one in questions:
        before = groups[-1][-1] if groups else None
        if before is not None and one.ids[: len(before.ids) + 1] == (*before.ids, before.token):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _check_done(answer: Answer) -> None:
    if answer.status != 200 or fields_in(answer).get("success") is not True:
        if answer.status == 404:
            raise Refused("does not load adapters at run time", "Start it with --enable-lora.", 404)
        raise Refused(message_of(answer), status=answer.status)


def _pairs(triples: t.Iterable[t.Any]) -> list[tuple[t.Any, t.Any]]:
    """Return tokens and log-probabilities of rows ``[log-probability, token, text]``."""
    return [(triple[1], triple[0]) for triple in triples if isinstance(triple, (list, tuple)) and len(triple) > 1]
