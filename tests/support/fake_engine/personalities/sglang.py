# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SGLang's server, with adapters loaded at run time.

It was not run: routes, statuses and texts are read from the source of SGLang 0.5.23, in
``entrypoints/http_server.py``, ``managers/tokenizer_control_mixin.py`` and
``lora/lora_registry.py``.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import threading
import typing as t

from ..faults import EMPTY_TEXT, INCOMPLETE, NOT_FINITE, OTHER_ROOT, UNLISTED
from ..model import NONE, Weights, text_of, tokens_of, top
from ..personality import (
    ANSWER,
    HEALTH,
    LIST,
    LOAD,
    OTHER,
    UNLOAD,
    VERSION,
    Answer,
    Call,
    Personality,
    Work,
    adapters_of_start,
)

VERSIONS = ("0.5.23",)
NOT_FOUND = Answer(404, {"detail": "Not Found"})


@dataclasses.dataclass
class Adapter:
    """An adapter. ``key`` is new at each load, so that nothing cached is found by another one."""

    name: str
    path: str
    key: int
    weights: Weights


class SGLang(Personality):
    """SGLang."""

    def start(self) -> None:
        self.adapters: dict[str, Adapter] = {}
        self.incomplete: set[str] = set()
        # The last path of each name that was ever loaded, and the names that are being unloaded.
        self.known: dict[str, str] = {}
        self.unloading: set[str] = set()
        self.keys = itertools.count(1)
        self.idle = threading.Condition(self.lock)
        self.running: collections.Counter[int] = collections.Counter()
        for name, path in adapters_of_start(self.settings):
            self.add(name, path)

    def begin(self, call: Call) -> Work:
        routes: dict[str, t.Callable[[Call], Work]] = {
            "GET /health": lambda _call: Work(HEALTH, "", lambda: Answer(200)),
            "GET /server_info": lambda _call: Work(VERSION, "", self.server_info),
            "GET /model_info": lambda _call: Work(OTHER, "", self.model_info),
            "GET /v1/models": lambda _call: Work(LIST, "", self.listed),
            "POST /generate": self.generate,
            "POST /load_lora_adapter": lambda call: Work(LOAD, call.field("lora_name"), lambda: self.loaded(call)),
            "POST /unload_lora_adapter": lambda call: Work(UNLOAD, call.field("lora_name"), lambda: self.unloaded(call)),
        }
        if call.route not in routes:
            return Work(OTHER, "", lambda: NOT_FOUND)
        work = routes[call.route](call)
        key = self.settings.api_key
        if key and work.kind != HEALTH and call.headers.get("Authorization") != f"Bearer {key}":
            return work._replace(finish=lambda: Answer(401, {"error": "Unauthorized"}))
        return work

    def server_info(self) -> Answer:
        limits = {"max_loras_per_batch": self.settings.max_loras, "max_loaded_loras": self.settings.max_loaded_loras}
        return Answer(200, {"version": self.settings.version, "frontend": "python", "enable_lora": True, **limits})

    def model_info(self) -> Answer:
        return Answer(
            200, {"model_path": self.settings.base, "served_model_name": self.settings.base_name, "is_generation": True}
        )

    def listed(self) -> Answer:
        with self.lock:
            # The root of the base is its served name.
            rows = [self.card(self.settings.base_name, self.settings.base_name, None)]
            for name, adapter in self.adapters.items():
                if not self.faults.change(UNLISTED, name):
                    other = self.faults.change(OTHER_ROOT, name)
                    rows.append(self.card(name, other.directory if other else adapter.path, self.settings.base_name))
        return Answer(200, {"object": "list", "data": rows})

    def card(self, name: str, root: str, parent: str | None) -> dict[str, t.Any]:
        row = {"id": name, "object": "model", "created": self.created, "owned_by": "sglang", "root": root, "parent": parent}
        return {**row, "max_model_len": 1024 if parent is None else None}

    def outcome(self, message: str | None = None) -> Answer:
        loaded = {name: adapter.path for name, adapter in self.adapters.items()}
        body = {"success": message is None, "error_message": message, "loaded_adapters": None if message else loaded}
        return Answer(400 if message else 200, body)

    def loaded(self, call: Call) -> Answer:
        name, path = call.field("lora_name"), call.field("lora_path")
        with self.lock:
            if name in self.incomplete:
                return self.outcome(f"LoRA adapter '{name}' has an incomplete unload. Retry the unload before loading it again.")
            if name in self.adapters:
                return self.outcome(f"Failed to load LoRA adapter {name} because it is already loaded")
            if self.faults.change(INCOMPLETE, name, LOAD):
                self.incomplete.add(name)
                return self.outcome(f"Failed to load LoRA adapter {name}")
            try:
                self.add(name, path)
            except OSError as exc:
                return self.outcome(str(exc))
            return self.outcome()

    def add(self, name: str, path: str) -> None:
        self.adapters[name] = Adapter(name, path, next(self.keys), self.computed(name, path))
        self.known[name] = path

    def unloaded(self, call: Call) -> Answer:
        name = call.field("lora_name")
        with self.idle:
            if name in self.incomplete:
                self.incomplete.discard(name)
                return self.outcome()
            if name not in self.adapters:
                return self.outcome(f"LoRA with name {name} does not exist. Loaded LoRAs: odict_keys({list(self.adapters)})")
            adapter = self.adapters.pop(name)
            # Answers in flight are waited for, and loads wait for the unload.
            self.unloading.add(name)
            self.idle.wait_for(lambda: not self.running[adapter.key])
            self.unloading.discard(name)
            self.idle.notify_all()
            return self.outcome()

    def generate(self, call: Call) -> Work:
        name = call.field("lora_path")
        body = call.json()
        with self.idle:
            if name and name not in self.adapters:
                # A name that was unloaded is loaded again, from its last path.
                self.idle.wait_for(lambda: name not in self.unloading)
                refusal = self.loaded_again(name)
                if refusal is not None:
                    return Work(ANSWER, name, lambda: refusal)
            adapter = self.adapters.get(name)
            if adapter is not None:
                self.running[adapter.key] += 1
            spoiling = self.faults.change(NOT_FINITE, name)
            self.spoiled = self.spoiled or bool(spoiling and spoiling.spoils)
            finite = not (spoiling or self.spoiled)
        weights = adapter.weights if adapter else NONE

        def finish() -> Answer:
            try:
                return self.generated(body, name, weights, finite)
            finally:
                with self.idle:
                    if adapter is not None:
                        self.running[adapter.key] -= 1
                        self.idle.notify_all()

        return Work(ANSWER, name or self.settings.base_name, finish)

    def loaded_again(self, name: str) -> Answer | None:
        if name not in self.known:
            message = f"Got LoRA adapter that has never been loaded: {name}\nAll loaded adapters: dict_keys({list(self.known)})."
            return Answer(400, {"error": {"message": message}})
        try:
            self.add(name, self.known[name])
        except OSError as exc:
            return Answer(400, {"error": {"message": f"Failed to implicitly load LoRA adapter {name}: {exc}"}})
        return None

    def generated(self, body: dict[str, t.Any], name: str, weights: Weights, finite: bool) -> Answer:
        vocabulary = self.settings.vocabulary
        ids = list(body["input_ids"]) if "input_ids" in body else tokens_of(body["text"], vocabulary)
        found = self.model.continued(ids, body.get("sampling_params", {}).get("max_new_tokens", 128), weights)
        meta: dict[str, t.Any] = {
            "id": "fake",
            "finish_reason": {"type": "length", "length": len(found)},
            "prompt_tokens": len(ids),
            "completion_tokens": len(found),
            "cached_tokens": 0,
        }
        if body.get("return_logprob"):
            start = body.get("logprob_start_len", -1)
            start = len(ids) if start < 0 else start
            rows = self.model.along([*ids, *found], len(ids), weights)
            count = body.get("top_logprobs_num", 0)

            def triple(row: t.Sequence[float], token: int) -> list[t.Any]:
                # NaN in JSON is null.
                return [row[token] if finite else None, token, None]

            # The first of them has no figure, wherever it is.
            given = self.model.along(ids, start + 1, weights)
            shown = ids[start:]
            first = [[None, token, None] for token in shown[:1]]
            meta["input_token_logprobs"] = first + [triple(row, token) for row, token in zip(given, shown[1:])]
            wanted = body.get("token_ids_logprob")
            if wanted is not None:
                blank: list[t.Any] = [None] if shown else []
                meta["input_token_ids_logprobs"] = blank + [[triple(row, token) for token in wanted] for row in given]
            meta["output_token_logprobs"] = [triple(row, token) for row, token in zip(rows, found)]
            meta["output_top_logprobs"] = [[triple(row, token) for token in top(row, count)] for row in rows]
        text = "" if not finite or self.faults.change(EMPTY_TEXT, name) else text_of(found)
        return Answer(200, {"text": text, "output_ids": found, "meta_info": meta})


PERSONALITY = SGLang
