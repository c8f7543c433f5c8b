# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""mistral.rs, which loads adapters at run time.

A name is an alias of a generation, which is a hash of the two files of an adapter: it can be worked
out from a release, so the list proves the bytes in memory. The prefix cache is keyed by generation,
and an answer keeps the one it began with. Prompts are text only.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
import typing as t

from ..._engines.declared import DeclaredEngine
from ..._errors import DeliveryError
from ..._files import open_regular
from ..._formats.strict_json import is_integer
from ..._versions import numbers
from ..asking import (
    Pairs,
    check_admitted,
    check_computed,
    check_up,
    fields_in,
    finite,
    message_of,
    row_among,
    rows_in,
    send,
    text,
)
from ..contract import (
    PROVES_BYTES,
    Capacity,
    Dead,
    EngineState,
    Listed,
    NotFinite,
    Question,
    Refused,
    Row,
    ServingEngine,
    Unsupported,
)
from ..http import Answer, Client
from ..prompt_text import Texts

_FILES = (("config", "adapter_config.json"), ("weights", "adapter_model.safetensors"))
# The versions whose formula of a generation is known.
_FORMULA = ((0, 9), (0, 10))
_LIKELIEST = 5
_POLL_SECONDS = 0.2
_BLOCK = 1 << 20
_RUNTIME = "Start it with --enable-lora and MISTRALRS_ALLOW_RUNTIME_LORA_UPDATING=1."


class Mistralrs(ServingEngine):
    name = "mistralrs"
    proves = PROVES_BYTES

    def __init__(self, declared: DeclaredEngine, client: Client) -> None:
        self._client = client
        self._version = declared.version
        self._base: str | None = None
        self._texts: Texts | None = None
        # Whether its generations are what we work out; None before the first comparison.
        self._understood: bool | None = None

    def state(self) -> EngineState:
        check_up(self._client)
        build = fields_in(self._ask("GET", "/v1/system/info")).get("build")
        self._version = (text(build.get("version")) if isinstance(build, dict) else None) or self._version
        models = rows_in(self._ask("GET", "/v1/models"), "data", "models")
        # "default" is another name of the base.
        self._base = next(
            (text(row.get("id")) for row in models if row.get("parent") is None and row.get("id") != "default"), None
        )
        return EngineState(self._version, self._base, self._base)

    def listed(self) -> list[Listed]:
        rows = self._adapters()
        self._compare(rows)
        return [Listed(str(row.get("id")), text(row.get("source")), None, text(row.get("generation"))) for row in rows]

    def capacity(self) -> Capacity:
        found = fields_in(self._ask("GET", "/v1/lora_adapters"))
        places, most, taken = (found.get(key) for key in ("max_adapters", "max_bytes", "resident_bytes"))
        return Capacity(
            {"max_adapters": places} if is_integer(places) else {},
            most - taken if is_integer(most) and is_integer(taken) else None,
        )

    def load(self, name: str, directory: str) -> None:
        self._load(name, directory, {})

    def unload(self, name: str) -> None:
        self._done(self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name}))

    def switch(self, name: str, directory: str) -> None:
        before = next((row.generation for row in self.listed() if row.name == name), None)
        # Another generation by then means that somebody else switches this name, too.
        guard = {} if before is None else {"load_inplace": True, "expected_generation": before}
        self._load(name, directory, guard)

    def expected_generation(self, directory: str) -> str | None:
        if self._understood is False or not (self._understood or self._formula_known()):
            return None
        return generation_of(directory)

    def log_probabilities(self, model: str | None, questions: t.Sequence[Question]) -> list[Row]:
        return [row_among(functools.partial(self._next, model, one.ids), one) for one in questions]

    def first_token(self, model: str | None, prompt: t.Sequence[int], salt: str | None) -> dict[str, float]:
        # There is no salt, and no need for one: another generation has another cache.
        return {str(token): finite(value) for token, value in self._next(model, prompt, _LIKELIEST)}

    def wait_until_idle(self, name: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            answer = self._ask("GET", "/v1/lora_adapters")
            generation = next(
                (row.get("generation") for row in rows_in(answer, "data", "adapters") if row.get("id") == name), None
            )
            residents = rows_in(answer, "generations", "generations")
            leases = next((row.get("active_leases") for row in residents if row.get("generation") == generation), 0)
            if not isinstance(leases, int):
                return False
            # Leases linger for some tenths of a second after the end of an answer.
            if not leases:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)

    def start_options(self, adapters: t.Sequence[tuple[str, str]]) -> list[str]:
        return [part for name, directory in adapters for part in ("--lora", f"{name}={directory}")]

    def _load(self, name: str, directory: str, guard: dict[str, t.Any]) -> None:
        body = {"lora_name": name, "lora_path": directory, **guard}
        found = self._done(self._ask("POST", "/v1/load_lora_adapter", body))
        generation, expected = found.get("generation"), generation_of(directory)
        if self._formula_known() and expected not in (None, generation):
            raise Refused(f"has loaded {name} with other bytes than {directory} has")
        self._compare([{**found, "source": directory}])

    def _compare(self, rows: t.Iterable[dict[str, t.Any]]) -> None:
        """Find out whether the formula holds for a version that is not known."""
        if self._formula_known() or self._understood:
            return
        pairs = [(text(row.get("generation")), text(row.get("source"))) for row in rows]
        known = [(generation, generation_of(source)) for generation, source in pairs if generation and source]
        if known:
            self._understood = any(generation == expected for generation, expected in known)

    def _formula_known(self) -> bool:
        return self._version is not None and _FORMULA[0] <= numbers(self._version)[:2] < _FORMULA[1]

    def _next(self, model: str | None, ids: t.Sequence[int], count: int) -> Pairs:
        """Return the likeliest tokens after ``ids`` and their log-probabilities."""
        if self._texts is None:
            self._texts = Texts(self._base or self.state().base)
        # Nobody knows what it does with more tokens than there are.
        count = min(count, self._texts.size)
        found = self._completed(model, self._texts.of(ids), count)
        if _counted(found) != len(ids):
            raise Unsupported("takes prompts as text only, and reads this one as other tokens")
        try:
            rows = found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            pairs = [(row["token"], row["logprob"]) for row in rows]
        except (IndexError, KeyError, TypeError):
            # What it returns for values that are not finite has no such rows.
            raise NotFinite("returns no log-probabilities") from None
        return pairs

    def _completed(self, model: str | None, prompt: str, count: int) -> dict[str, t.Any]:
        # Without "adapter", a name that it does not know may be answered by the base.
        adapter = {} if model is None else {"adapter": model}
        body = {"model": "default", "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": count, **adapter}
        answer = self._ask("POST", "/v1/completions", body)
        check_computed(self._client, answer)
        found = fields_in(answer)
        if model is not None and not found.get("adapter_generation"):
            raise Refused(f"answers without an adapter when asked for {model}")
        return found

    def _adapters(self) -> list[dict[str, t.Any]]:
        return rows_in(self._ask("GET", "/v1/lora_adapters"), "data", "adapters")

    def _done(self, answer: Answer) -> dict[str, t.Any]:
        if answer.status == 404 and not _code(answer):
            raise Refused("does not load adapters at run time", _RUNTIME, 404)
        if answer.status != 200:
            raise Refused(message_of(answer), status=answer.status)
        return fields_in(answer)

    def _ask(self, method: str, path: str, body: t.Any = None) -> Answer:
        answer = send(self._client, method, path, body)
        if answer.status == 429 or not _code(answer):
            if answer.status == 503:
                raise Dead(f"has failed: {message_of(answer)}")
            # It has no key of its own: a proxy before it may demand one.
            check_admitted(self._client, answer)
        return answer


def generation_of(directory: str) -> str | None:
    """Return the generation of a release by the formula of 0.9, None without its two files."""
    content = hashlib.sha256(b"mistral.rs dynamic LoRA generation v2")
    for label, name in _FILES:
        digest = hashlib.sha256()
        try:
            with open_regular(os.path.join(directory, name)) as stream:
                for block in iter(lambda: stream.read(_BLOCK), b""):
                    digest.update(block)
        except (OSError, DeliveryError):
            return None
        content.update(f"\0{label}\0".encode() + digest.digest())
    return content.hexdigest()


def _code(answer: Answer) -> str | None:
    """Return the code of an error, which only the engine itself gives."""
    found = answer.json()
    error = found.get("error") if isinstance(found, dict) else None
    return text(error.get("code")) if isinstance(error, dict) else None


def _counted(found: dict[str, t.Any]) -> t.Any:
    usage = found.get("usage")
    return usage.get("prompt_tokens") if isinstance(usage, dict) else None
