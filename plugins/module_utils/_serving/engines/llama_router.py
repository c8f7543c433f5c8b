# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""llama-server as a router: each section of its file is a model in a process of its own.

A release is a section NAME@DIGEST12 like that of the base, with an adapter, so it loads at run time
and has a cache of its own. There is no other name for it, so a gateway leads the public name to it.
"""

from __future__ import annotations

import functools
import time
import typing as t
from urllib.parse import urlencode

from ..._engines.declared import DeclaredEngine
from ..._engines.endpoint import Endpoint
from ..asking import Pairs, ask, check_up, fields_in, finite, message_of, row_among, rows_in
from ..contract import PROVES_NAME, EngineState, Listed, Question, Refused, Row, ServingEngine, Unanswered, Unsupported
from ..converted import converted, digest_of, file_of, release_of
from ..http import Client
from ..llama_completion import completed, likeliest
from ..preset import Preset

_LIKELIEST = 5
_POLL_SECONDS = 0.2
_LOADED, _LOADING = "loaded", "loading"


class LlamaRouter(ServingEngine):
    name = "llama_cpp"
    form = "llama-server as a router"
    proves = PROVES_NAME

    def __init__(self, declared: DeclaredEngine, client: Client) -> None:
        self._client = client
        self._version = declared.version
        self._endpoint = t.cast(Endpoint, declared.endpoint)
        # Its url needs the key.
        self._convert = t.cast("list[str]", self._endpoint.convert)
        self._path = str(declared.settings["preset"])

    def state(self) -> EngineState:
        check_up(self._client)
        base, preset = self._base(), Preset(self._path)
        if base not in self._states():
            raise Refused(f"does not list {base}, a section of {self._path}", "Correct preset of this engine in engines.")
        return EngineState(self._version, base, preset.sections[base].model)

    def listed(self) -> list[Listed]:
        sections = Preset(self._path).sections
        found = []
        for name, status in self._states().items():
            file = sections[name].lora if name in sections else None
            if file and status.get("value") == _LOADED:
                found.append(Listed(name, (release_of(file) or ("", file))[1]))
        return found

    def load(self, name: str, directory: str) -> None:
        file = converted(directory, self._convert, self._endpoint.start_timeout)
        preset = Preset(self._path)
        if name not in preset.sections:
            preset.add(name, self._base(), file)
        elif preset.sections[name].lora != file:
            raise Refused(f"has another section {name} in {self._path}", f"Remove that section from {self._path}.")
        # The router knows a new section only after it has read the file again.
        self._states(reload=True)
        self._done("/models/load", name)
        self._wait_until_loaded(name)

    def unload(self, name: str) -> None:
        self._done("/models/unload", name)
        # A section that is taken out of the file ends its process at once.
        Preset(self._path).remove(name)
        self._states(reload=True)

    def switch(self, name: str, directory: str) -> None:
        raise Unsupported(self.why_not_switch())

    def why_not_switch(self) -> str:
        return "llama-server's router has one name for each release and no other."

    def converted_digest(self, directory: str) -> str | None:
        return digest_of(file_of(directory))

    def log_probabilities(self, model: str | None, questions: t.Sequence[Question]) -> list[Row]:
        name = model or self._base()
        self._check_loaded(name)

        asked = functools.partial(self._next, name, cached=False)
        return [row_among(functools.partial(asked, one.ids), one) for one in questions]

    def first_token(self, model: str | None, prompt: t.Sequence[int], salt: str | None) -> dict[str, float]:
        name = model or self._base()
        self._check_loaded(name)
        return {str(token): finite(value) for token, value in self._next(name, prompt, _LIKELIEST, salt is None)}

    def wait_until_idle(self, name: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            busy = self._is_busy(name)
            if busy is False:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # An unload cuts off answers that take longer than the router's stop-timeout, so the
            # whole time is theirs if it does not tell.
            time.sleep(left if busy is None else min(left, _POLL_SECONDS))

    def _is_busy(self, name: str) -> bool | None:
        """Return whether a process generates answers, None if it was started with --no-slots."""
        query = urlencode({"model": name, "autoload": "false"})
        answer = ask(self._client, "GET", f"/slots?{query}")
        slots = answer.json()
        if answer.status != 200 or not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
            return None
        return any(slot.get("is_processing") is not False for slot in slots)

    def _base(self) -> str:
        return Preset(self._path).base(self._endpoint.base)

    def _check_loaded(self, name: str) -> None:
        if self._states().get(name, {}).get("value") != _LOADED:
            raise Unsupported(f"has not loaded {name}")

    def _states(self, reload: bool = False) -> dict[str, dict[str, t.Any]]:
        rows = rows_in(ask(self._client, "GET", "/v1/models?reload=1" if reload else "/v1/models"), "data", "models")
        states = {str(row.get("id")): row.get("status") for row in rows}
        if not all(isinstance(status, dict) for status in states.values()):
            raise Refused("is no router", "Remove preset of this engine in engines.")
        return t.cast("dict[str, dict[str, t.Any]]", states)

    def _wait_until_loaded(self, name: str) -> None:
        """The answer to a load is the same if the process does not start: the list tells."""
        deadline = time.monotonic() + self._endpoint.start_timeout
        while True:
            status = self._states().get(name, {})
            if status.get("value") == _LOADED:
                return
            if status.get("failed"):
                code = status.get("exit_code")
                raise Refused(f"cannot start {name}: its process ended with {code}", "Read the log of llama-server.")
            if status.get("value") != _LOADING or time.monotonic() >= deadline:
                raise Unanswered(f"has not loaded {name} within {self._endpoint.start_timeout:g} seconds")
            time.sleep(_POLL_SECONDS)

    def _done(self, path: str, name: str) -> None:
        answer = ask(self._client, "POST", path, {"model": name})
        if fields_in(answer).get("success") is not True:
            raise Refused(message_of(answer), status=answer.status)

    def _next(self, name: str, ids: t.Sequence[int], count: int, cached: bool) -> Pairs:
        return likeliest(completed(self._client, ids, count, model=name, cache_prompt=cached))
