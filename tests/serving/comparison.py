# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares the answers of a real engine with those of the fake engine of the same version.

The calls are those of the product and mistakes that every version of vLLM survives: files that are
missing, a rank above the limit, names that are taken or unknown, bodies of another form.
"""

from __future__ import annotations

import http.client
import json
import re
import typing as t

JSON = "application/json"
NAME = "grammar@0123456789ab"
_LIMIT = 300


class Call(t.NamedTuple):
    title: str
    method: str
    path: str
    body: t.Any = None
    content_type: str = JSON


class Seen(t.NamedTuple):
    """What an engine answers: what can be compared of it."""

    status: int
    content_type: str
    body: t.Any


def calls(first: str, second: str, too_large: str) -> list[Call]:
    """Return the calls, given the directories of three adapters."""

    def load(title: str, **body: t.Any) -> Call:
        return Call(f"load: {title}", "POST", "/v1/load_lora_adapter", body)

    def unload(title: str, **body: t.Any) -> Call:
        return Call(f"unload: {title}", "POST", "/v1/unload_lora_adapter", body)

    def ask(title: str, **body: t.Any) -> Call:
        body = {"model": NAME, "prompt": [504, 3575, 282, 260], "max_tokens": 1, "temperature": 0, **body}
        return Call(f"ask: {title}", "POST", "/v1/completions", body)

    models = Call("list", "GET", "/v1/models")
    return [
        Call("health", "GET", "/health"),
        Call("version", "GET", "/version"),
        models,
        load("no path", lora_name=NAME),
        load("empty name", lora_name="", lora_path=first),
        load("name of the base", lora_name="base", lora_path=first),
        load("missing directory", lora_name=NAME, lora_path="/missing/adapter"),
        load("rank above the limit", lora_name=NAME, lora_path=too_large),
        Call("load: not JSON", "POST", "/v1/load_lora_adapter", "{"),
        Call("load: no media type of JSON", "POST", "/v1/load_lora_adapter", "{}", "text/plain"),
        load("adapter", lora_name=NAME, lora_path=first),
        load("name that is taken", lora_name=NAME, lora_path=second),
        models._replace(title="list: adapter"),
        ask("adapter"),
        ask("base", model="base"),
        ask("unknown name", model="unknown"),
        ask("figures of the prompt", prompt_logprobs=2),
        ask("figures of the answer", logprobs=5, return_tokens_as_token_ids=True),
        ask("several prompts", prompt=[[504, 3575], [504, 3575, 282]], logprobs=20, return_tokens_as_token_ids=True),
        ask("salt", logprobs=5, return_tokens_as_token_ids=True, cache_salt="0123456789abcdef"),
        ask("more figures than allowed", prompt_logprobs=21),
        ask("token out of the vocabulary", prompt=[10**6]),
        ask("empty prompt", prompt=[]),
        unload("adapter", lora_name=NAME),
        unload("unknown name", lora_name=NAME),
        unload("no name"),
        ask("name that is unloaded"),
        Call("unknown route", "GET", "/v1/unknown"),
    ]


def asked(port: int, call: Call) -> Seen:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT)
    content = call.body if call.body is None or isinstance(call.body, str) else json.dumps(call.body)
    try:
        connection.request(call.method, call.path, content, {} if content is None else {"Content-Type": call.content_type})
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    content_type = (answer.getheader("Content-Type") or "").partition(";")[0]
    body: t.Any = json.loads(data) if content_type == JSON else data.decode()
    return Seen(answer.status, content_type, without_figures(body, keep_texts=answer.status != 200 or isinstance(body, str)))


def without_figures(value: t.Any, keep_texts: bool) -> t.Any:
    """Return keys, kinds of values and, of messages, the texts."""
    if isinstance(value, dict):
        # Tokens are keys, too.
        entries = {re.sub(r"\d+", "N", key): without_figures(one, keep_texts) for key, one in value.items()}
        return dict(sorted(entries.items()))
    if isinstance(value, list):
        return [without_figures(one, keep_texts) for one in value[:2]]
    if isinstance(value, str) and keep_texts:
        return value
    return value if value is None else "number" if isinstance(value, (int, float)) else "text"


def differences(real: int, fake: int, asking: t.Iterable[Call]) -> list[str]:
    """Ask the engines at two ports the same, and return a text for each answer that differs."""
    found = []
    for call in asking:
        answers = asked(real, call), asked(fake, call)
        if answers[0] != answers[1]:
            found.append(f"{call.title}:\n  real {json.dumps(answers[0])}\n  fake {json.dumps(answers[1])}")
    return found
