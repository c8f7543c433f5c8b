# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""llama-server with one model, which gets its adapters at its start.

Its adapters have numbers, and a file is listed by its path. A request has an adapter if it names
its number with scale 1, and without such a list if the global scale is 1. A request that names an
unknown number is answered by the base, and the answer to a request without a list may come from
tokens that another adapter has computed: so every number is named here, and the server has to run
with --no-cache-prompt.
"""

from __future__ import annotations

import functools
import typing as t

from ..._engines.declared import DeclaredEngine
from ..._engines.endpoint import ALIAS
from ..asking import WRONG_URL, Pairs, ask, check_up, fields_in, finite, message_of, row_among, text
from ..contract import PROVES_PATH, EngineState, Listed, Question, Refused, Row
from ..converted import converted, digest_of, file_of, release_of
from ..http import Client
from ..llama_completion import completed, likeliest
from ..names import versioned
from .at_start import AtStart

_CACHES = "caches prompts, and so answers from tokens that another adapter has computed"
_UNCACHED = "Start it with --no-cache-prompt."
_LIKELIEST = 5
# Any tokens of any vocabulary, several of them so that some can be cached.
_ASKED_TWICE = [10, 11, 12, 13]


class LlamaServer(AtStart):
    name = "llama_cpp"
    form = "llama-server with one model"
    proves = PROVES_PATH

    def __init__(self, declared: DeclaredEngine, client: Client) -> None:
        super().__init__(declared, client)
        # Its url needs the key.
        self._convert = t.cast("list[str]", self._endpoint.convert)

    def state(self) -> EngineState:
        check_up(self._client)
        props = fields_in(ask(self._client, "GET", "/props"))
        warnings = (f"It {_CACHES}. {_UNCACHED}",) if self._caches_prompts() else ()
        base = text(props.get("model_alias"))
        return EngineState(self._version, base, text(props.get("model_path")), warnings=warnings)

    def listed(self) -> list[Listed]:
        return [Listed(self._name(path), (release_of(path) or ("", path))[1]) for path in self._files()]

    def prepare(self, adapters: t.Sequence[tuple[str, str]]) -> None:
        if self._caches_prompts():
            raise Refused(_CACHES, _UNCACHED)
        self._convert_all(adapters)

    def restart(self, adapters: t.Sequence[tuple[str, str]]) -> None:
        # The file of an earlier release may have been removed.
        self._convert_all(adapters)
        super().restart(adapters)

    def converted_digest(self, directory: str) -> str | None:
        return digest_of(file_of(directory))

    def log_probabilities(self, model: str | None, questions: t.Sequence[Question]) -> list[Row]:
        lora = self._scales(model)

        asked = functools.partial(self._next, lora=lora, cache_prompt=False)
        return [row_among(functools.partial(asked, one.ids), one) for one in questions]

    def first_token(self, model: str | None, prompt: t.Sequence[int], salt: str | None) -> dict[str, float]:
        uncached = {} if salt is None else {"cache_prompt": False}
        found = self._next(prompt, _LIKELIEST, lora=self._scales(model), **uncached)
        return {str(token): finite(value) for token, value in found}

    def start_options(self, adapters: t.Sequence[tuple[str, str]]) -> list[str]:
        """A single adapter is on for all requests; of several, each request names its own."""
        files = [file_of(directory) for _name, directory in adapters]
        # --lora-init-without-apply has no effect on requests.
        return ["--lora", *files] if len(files) == 1 else [part for file in files for part in ("--lora-scaled", f"{file}:0")]

    def _convert_all(self, adapters: t.Sequence[tuple[str, str]]) -> None:
        for _name, directory in adapters:
            converted(directory, self._convert, self._endpoint.start_timeout)

    def _scales(self, model: str | None) -> list[dict[str, t.Any]]:
        """Return all numbers with their scales. An empty list would mean the global scales."""
        names = [self._name(path) for path in self._files()]
        if model is not None and names.count(model) != 1:
            raise Refused(f"has {names.count(model)} files for {model}")
        return [{"id": number, "scale": int(name == model)} for number, name in enumerate(names)]

    def _name(self, path: str) -> str:
        found = release_of(path)
        if found is None:
            return path
        name, directory = found
        return name if self._endpoint.public_name == ALIAS else versioned(name, directory.rpartition("/")[2])

    def _files(self) -> list[str]:
        """Return the paths of all adapters, by their numbers."""
        answer = ask(self._client, "GET", "/lora-adapters")
        rows = answer.json()
        if answer.status == 404:
            raise Refused("has no list of adapters, as a router", "State preset of this engine in engines.", 404)
        if answer.status != 200 or not isinstance(rows, list):
            raise Refused(f"has no list of adapters: {message_of(answer)}", WRONG_URL, answer.status)
        paths = {row.get("id"): text(row.get("path")) for row in rows if isinstance(row, dict)}
        if sorted(paths, key=str) != sorted(range(len(rows)), key=str):
            raise Refused("gives a list of adapters of another form", WRONG_URL)
        return [paths[number] or "" for number in range(len(rows))]

    def _caches_prompts(self) -> bool:
        """Return whether a prompt that is asked twice is read from the cache."""
        for _time in range(2):
            timings = completed(self._client, _ASKED_TWICE, 0).get("timings")
        return not isinstance(timings, dict) or timings.get("cache_n") != 0

    def _next(self, ids: t.Sequence[int], count: int, **options: t.Any) -> Pairs:
        return likeliest(completed(self._client, ids, count, **options))
