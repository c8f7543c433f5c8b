# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""vLLM's OpenAI server, which loads adapters at run time.

Its list has the path as it was sent. A name is one path, so a switch is unload and load. The same
name at another path has its own prefix cache from 0.31 on; before, it answers from a mix of both.
``load_inplace`` is never sent: it changes answers that are being generated, and the engine reads
the directory again at every later step.
"""

from __future__ import annotations

import re
import time
import typing as t

from ..._engines.declared import DeclaredEngine
from ..._versions import numbers
from ..asking import WRONG_URL, ask, check_computed, check_up, fields_in, finite, message_of, rows_in, text
from ..contract import (
    PROVES_PATH,
    Capacity,
    EngineState,
    Listed,
    NotFinite,
    Question,
    Refused,
    Row,
    ServingEngine,
    first_line,
    new_salt,
)
from ..http import Answer, Client

_KEYED_BY_PATH = (0, 31)
# Before, a load while answers are generated may lead them to another adapter (vLLM 47724).
_LOADS_SAFELY = (0, 26)
# The most that vLLM gives unless it was started with --max-logprobs.
_MOST = 20
# Enough to tell two answers apart.
_FEW = 5
_TOKEN = re.compile("token_id:([0-9]{1,9})")
_POLL_SECONDS = 0.2
_RUNNING = re.compile(r"^vllm:lora_requests_info\{([^}]*)\}\s+(\S+)", re.MULTILINE)
_SLOTS = re.compile(r'max_lora="([0-9]{1,6})"')
_NAMES = re.compile(r'(?:running|waiting)_lora_adapters="([^"]*)"')
_RUNTIME = "Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora."


class Vllm(ServingEngine):
    name = "vllm"
    proves = PROVES_PATH
    # The answer to a golden's prompt has 16 positions. More would keep users waiting.
    most_questions = 16

    def __init__(self, declared: DeclaredEngine, client: Client) -> None:
        self._client = client
        self._version = declared.version
        self._base: str | None = None

    def state(self) -> EngineState:
        check_up(self._client)
        found = self._call("GET", "/version").json()
        version = found.get("version") if isinstance(found, dict) else None
        self._version = version if isinstance(version, str) else self._version
        base = next((row for row in self._models() if row.get("parent") is None), {})
        warnings = []
        if self._version and numbers(self._version) < _LOADS_SAFELY:
            warnings.append(
                f"vLLM {self._version} may send answers of one adapter to users of another while an adapter is loaded. Use"
                " 0.26 or newer."
            )
        self._base = text(base.get("id"))
        longest = base.get("max_model_len")
        return EngineState(
            self._version,
            self._base,
            text(base.get("root")),
            longest if isinstance(longest, int) else None,
            tuple(warnings),
        )

    def listed(self) -> list[Listed]:
        rows = [row for row in self._models() if row.get("parent") is not None]
        return [Listed(str(row.get("id")), text(row.get("root")), text(row.get("parent"))) for row in rows]

    def capacity(self) -> Capacity:
        # None of these rows is there before the first request.
        rows = [labels for labels, _value in _RUNNING.findall(self._call("GET", "/metrics").text)]
        found = _SLOTS.search(rows[0]) if rows else None
        return Capacity({"max_loras": int(found[1])}) if found else Capacity()

    def load(self, name: str, directory: str) -> None:
        self._done("/v1/load_lora_adapter", {"lora_name": name, "lora_path": directory})

    def unload(self, name: str) -> None:
        self._done("/v1/unload_lora_adapter", {"lora_name": name})

    def switch(self, name: str, directory: str) -> None:
        if any(row.name == name for row in self.listed()):
            self.unload(name)
        self.load(name, directory)

    def why_not_switch(self) -> str | None:
        if self._version is None:
            return "Its version is not known, and before 0.31 a name that is used again answers from a mix of two releases."
        if numbers(self._version) < _KEYED_BY_PATH:
            mixed = "a name that is used again answers from a mix of two releases"
            return f"In vLLM {self._version}, {mixed}. From 0.31 on, it does not."
        return None

    def log_probabilities(self, model: str | None, questions: t.Sequence[Question]) -> list[Row]:
        # One token after each, as users are answered: a busy engine gets nothing else from a probe.
        rows = self._likeliest(model, [one.ids for one in questions], _MOST, new_salt())
        wanted = [{one.token, *one.others} if one.others else row.keys() for one, row in zip(questions, rows)]
        return [{token: value for token, value in row.items() if token in ids} for row, ids in zip(rows, wanted)]

    def first_token(self, model: str | None, prompt: t.Sequence[int], salt: str | None) -> dict[str, float]:
        (row,) = self._likeliest(model, [prompt], _FEW, salt)
        return {str(token): value for token, value in row.items()}

    def wait_until_idle(self, name: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            busy = _busy(self._call("GET", "/metrics").text)
            if busy is None:
                return False
            if name not in busy:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)

    def start_options(self, adapters: t.Sequence[tuple[str, str]]) -> list[str]:
        return ["--lora-modules", *(f"{name}={directory}" for name, directory in adapters)] if adapters else []

    def _likeliest(self, model: str | None, prompts: t.Sequence[t.Sequence[int]], most: int, salt: str | None) -> list[Row]:
        """Return the likeliest tokens after each prompt, at most ``most`` of them."""
        options = {"return_tokens_as_token_ids": True, **({} if salt is None else {"cache_salt": salt})}
        try:
            choices = self._completions(model, prompts, logprobs=most, **options)
        except Refused as exc:
            # Started with a smaller --max-logprobs.
            if most == _FEW or exc.status != 400 or "logprobs" not in exc.message:
                raise
            choices = self._completions(model, prompts, logprobs=_FEW, **options)
        return [_row(choice) for choice in choices]

    def _completions(self, model: str | None, prompts: t.Sequence[t.Sequence[int]], **options: t.Any) -> list[dict[str, t.Any]]:
        name = self._name_of_base() if model is None else model
        # A list of prompts is answered by as many choices, in their order.
        body = {"model": name, "prompt": list(map(list, prompts)), "max_tokens": 1, "temperature": 0, **options}
        answer = self._call("POST", "/v1/completions", body)
        if answer.status != 200 and "Out of range float values" in answer.text:
            raise NotFinite("answers with values that are not finite")
        check_computed(self._client, answer)
        found = fields_in(answer)
        echoed, choices = found.get("model"), found.get("choices")
        if not isinstance(choices, list) or [_index(choice) for choice in choices] != list(range(len(prompts))):
            raise Refused("gives an answer of another form", WRONG_URL)
        if echoed != name:
            raise Refused(f"answers as {first_line(str(echoed))} when asked for {name}", status=answer.status)
        return choices

    def _name_of_base(self) -> str:
        name = self._base or self.state().base
        if name is None:
            raise Refused("lists no base")
        return name

    def _models(self) -> list[dict[str, t.Any]]:
        return rows_in(self._call("GET", "/v1/models"), "data", "models")

    def _done(self, path: str, body: dict[str, t.Any]) -> None:
        answer = self._call("POST", path, body)
        if answer.status == 200:
            return
        if answer.status == 404 and isinstance(found := answer.json(), dict) and found.get("detail") == "Not Found":
            raise Refused("does not load adapters at run time", _RUNTIME, 404)
        raise Refused(message_of(answer), status=answer.status)

    def _call(self, method: str, path: str, body: t.Any = None) -> Answer:
        return ask(self._client, method, path, body)


def _index(choice: t.Any) -> t.Any:
    return choice.get("index") if isinstance(choice, dict) else None


def _row(choice: dict[str, t.Any]) -> Row:
    """Return the likeliest tokens in a choice. Raises NotFinite."""
    logprobs = choice.get("logprobs")
    likeliest = logprobs.get("top_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(likeliest, list) or not likeliest or not isinstance(likeliest[0], dict):
        # What vLLM returns for values that are not finite is an empty text.
        raise NotFinite("returns no log-probabilities")
    told = {_TOKEN.fullmatch(token): value for token, value in likeliest[0].items()}
    return {int(found[1]): finite(value) for found, value in told.items() if found}


def _busy(metrics: str) -> set[str] | None:
    """Return the adapters with answers in work, None if the metrics do not tell.

    Each state has a row, whose value is the time of that state: the largest is now.
    """
    rows = []
    for labels, value in _RUNNING.findall(metrics):
        try:
            rows.append((float(value), labels))
        except ValueError:
            continue
    if not rows:
        return None
    return {name.strip() for names in _NAMES.findall(max(rows)[1]) for name in names.split(",") if name.strip()}
