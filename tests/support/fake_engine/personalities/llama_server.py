# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""llama-server, in its single-model mode and as a router.

Recorded from llama.cpp 0c1e57098 (``0.5.0-dev``); ``/slots`` was read in its source. With the
setting ``preset`` it is a router, which reads that file; otherwise the adapters of its start are
its ids, in that order. Adapters are the files that ``convert`` writes.
"""

from __future__ import annotations

import collections
import configparser
import contextlib
import dataclasses
import typing as t

from ..faults import EMPTY_TEXT, NOT_FINITE
from ..model import NONE, Weights, likeliest, text_of, tokens_of, top, weights_in_gguf
from ..personality import (
    ANSWER,
    HEALTH,
    LIST,
    LOAD,
    METRICS,
    OTHER,
    UNLOAD,
    VERSION,
    Answer,
    Call,
    Personality,
    Work,
    adapters_of_start,
)

VERSIONS = ("0.5.0-dev",)


def error(status: int, kind: str, message: str) -> Answer:
    return Answer(status, {"error": {"message": message, "type": kind, "code": status}})


NOT_FOUND = error(404, "not_found_error", "File Not Found")


@dataclasses.dataclass
class File:
    """An adapter of the start."""

    path: str
    weights: Weights
    scale: float = 1.0


@dataclasses.dataclass
class Process:
    """A section of the router's file, and its process while it runs."""

    lora: str
    weights: Weights | None = None
    failed: bool = False


class Prompt(t.NamedTuple):
    """A prompt, what has computed each of its tokens, and how many are from the cache."""

    ids: list[int]
    computed: list[Weights]
    cached: int = 0


class LlamaServer(Personality):
    """llama-server."""

    def start(self) -> None:
        self.files: list[File] = []
        # The last prompt, what has computed its tokens, and the list of its request.
        self.slot: tuple[list[int], list[Weights], list[float] | None] = ([], [], None)
        self.processes: dict[str, Process] = {}
        # The answers in work, by names.
        self.running: collections.Counter[str] = collections.Counter()
        if self.settings.preset:
            self.processes = {name: Process(lora) for name, lora in self.sections().items()}
        else:
            for word, _path in adapters_of_start(self.settings):
                path, colon, scale = word.partition(":")
                self.files.append(File(path, weights_in_gguf(path), float(scale) if colon else 1.0))

    def begin(self, call: Call) -> Work:
        work = self.routed(call) if self.settings.preset else self.single(call)
        if work is None:
            return Work(OTHER, "", lambda: NOT_FOUND)
        key = self.settings.api_key
        if key and work.kind != HEALTH and call.headers.get("Authorization") != f"Bearer {key}":
            return work._replace(finish=lambda: error(401, "authentication_error", "Invalid API Key"))
        return work

    # Single-model mode

    def single(self, call: Call) -> Work | None:
        routes: dict[str, t.Callable[[], Work]] = {
            "GET /health": lambda: Work(HEALTH, "", lambda: Answer(200, {"status": "ok"})),
            "GET /props": lambda: Work(VERSION, "", self.props),
            "GET /v1/models": lambda: Work(OTHER, "", self.models),
            "GET /lora-adapters": lambda: Work(LIST, "", self.listed),
            "POST /lora-adapters": lambda: Work(LOAD, "", lambda: self.scaled(call)),
            "POST /completion": lambda: self.completion(call),
        }
        return routes[call.route]() if call.route in routes else None

    def props(self) -> Answer:
        return Answer(
            200, {"build_info": self.settings.version, "model_path": self.settings.base, "model_alias": self.settings.base_name}
        )

    def models(self) -> Answer:
        row = {"id": self.settings.base_name, "object": "model", "created": self.created, "owned_by": "llamacpp"}
        return Answer(200, {"object": "list", "data": [row]})

    def listed(self) -> Answer:
        with self.lock:
            rows = [
                {"id": number, "path": file.path, "scale": file.scale, "task_name": "", "prompt_prefix": ""}
                for number, file in enumerate(self.files)
            ]
        return Answer(200, rows)

    def scaled(self, call: Call) -> Answer:
        body = call.json()
        if not isinstance(body, list):
            return error(400, "invalid_request_error", "Request body must be an array")
        with self.lock:
            # Unknown ids are ignored, and those that are not named are switched off.
            for file, scale in zip(self.files, self.scales(body)):
                file.scale = scale
        return Answer(200, {"success": True})

    def scales(self, rows: list[dict[str, t.Any]]) -> list[float]:
        wanted = {row.get("id"): float(row.get("scale", 0)) for row in rows}
        return [wanted.get(number, 0.0) for number in range(len(self.files))]

    def completion(self, call: Call) -> Work:
        body = call.json()
        with self.lock:
            own = body.get("lora")
            # An empty list is no list: the global scales count.
            scales = self.scales(own) if own else [file.scale for file in self.files]
            weights = self.combined(scales)
            prompt = self.prompt(body, weights, scales if own else None)
        active = [file.path for file, scale in zip(self.files, scales) if scale]
        name = active[0] if len(active) == 1 else self.settings.base_name
        return Work(ANSWER, name, lambda: self.completed(body, name, prompt, weights))

    def combined(self, scales: t.Sequence[float]) -> Weights:
        """Return what computes with these scales. Several adapters add up."""
        active = [(file.weights, scale) for file, scale in zip(self.files, scales) if scale]
        if not active:
            return NONE
        if len(active) == 1 and active[0][1] == 1:
            return active[0][0]
        return repr(active).encode()

    def prompt(self, body: dict[str, t.Any], weights: Weights, own: list[float] | None) -> Prompt:
        """Return the prompt and fill the slot."""
        ids = self.ids(body)
        before, computed, last = self.slot
        caching = self.settings.prefix_caching and body.get("cache_prompt", True)
        same = 0
        # Another list than that of the last request drops the cache. A change of the global scales
        # does not, nor does a request without a list.
        if caching and own in (None, last):
            while same < min(len(before), len(ids) - 1) and before[same] == ids[same]:
                same += 1
        computed = computed[:same] + [weights] * (len(ids) - same)
        self.slot = (ids, computed, own)
        return Prompt(ids, computed, same)

    def ids(self, body: dict[str, t.Any]) -> list[int]:
        given = body["prompt"]
        return tokens_of(given, self.settings.vocabulary) if isinstance(given, str) else list(given)

    def completed(self, body: dict[str, t.Any], name: str, prompt: Prompt, weights: Weights) -> Answer:
        spoiling = self.faults.change(NOT_FINITE, name)
        self.spoiled = self.spoiled or bool(spoiling and spoiling.spoils)
        finite = not (spoiling or self.spoiled)
        found: list[int] = []
        probabilities = []
        for _token in range(body.get("n_predict", 16)):
            row = self.model.next_token([*prompt.ids, *found], [*prompt.computed, *[weights] * len(found)])
            found.append(likeliest(row))
            best = [self.figure(token, row[token] if finite else None) for token in top(row, body.get("n_probs", 0))]
            probabilities.append({**self.figure(found[-1], row[found[-1]] if finite else None), "top_logprobs": best})
        answer = {
            "index": 0,
            "content": "" if not finite or self.faults.change(EMPTY_TEXT, name) else text_of(found),
            "tokens": [],
            "id_slot": 0,
            "stop": True,
            "model": self.settings.base_name,
            "tokens_predicted": len(found),
            "tokens_evaluated": len(prompt.ids),
            "generation_settings": {"lora": body.get("lora") or []},
            "timings": {"cache_n": prompt.cached, "prompt_n": len(prompt.ids) - prompt.cached},
        }
        if body.get("n_probs"):
            answer["completion_probabilities"] = probabilities
        return Answer(200, answer)

    @staticmethod
    def figure(token: int, value: float | None) -> dict[str, t.Any]:
        text = text_of([token])
        return {"id": token, "token": text, "bytes": list(text.encode()), "logprob": value}

    # Router

    def sections(self) -> dict[str, str]:
        """Return the sections of the file: names, and the adapter of each ("" for the base)."""
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(self.settings.preset, encoding="utf-8")
        return {name: parser.get(name, "lora", fallback="") for name in parser.sections()}

    def routed(self, call: Call) -> Work | None:
        routes: dict[str, t.Callable[[], Work]] = {
            "GET /health": lambda: Work(HEALTH, "", lambda: Answer(200, {"status": "ok"})),
            "GET /v1/models": lambda: Work(LIST, "", lambda: self.states("reload" in call.query)),
            "GET /slots": lambda: Work(METRICS, "", lambda: self.slots(call.query["model"][0])),
            "POST /models/load": lambda: Work(LOAD, call.field("model"), lambda: self.loaded(call.field("model"))),
            "POST /models/unload": lambda: Work(UNLOAD, call.field("model"), lambda: self.unloaded(call.field("model"))),
            "POST /completion": lambda: self.routed_completion(call),
        }
        return routes[call.route]() if call.route in routes else None

    def states(self, reload: bool) -> Answer:
        with self.lock:
            if reload:
                wanted = self.sections()
                # A process whose section has changed, or is gone, is stopped at once.
                self.processes = {
                    name: self.processes[name] if name in self.processes and self.processes[name].lora == lora else Process(lora)
                    for name, lora in wanted.items()
                }
            rows = [self.row(name, process) for name, process in self.processes.items()]
        return Answer(200, {"object": "list", "data": rows})

    def row(self, name: str, process: Process) -> dict[str, t.Any]:
        status: dict[str, t.Any] = {"value": "unloaded" if process.weights is None else "loaded"}
        if process.failed:
            status.update(failed=True, exit_code=1)
        return {"id": name, "object": "model", "created": self.created, "owned_by": "llamacpp", "status": status}

    @contextlib.contextmanager
    def admitted(self, call: Call) -> t.Iterator[Work | None]:
        name = call.field("model") if call.route == "POST /completion" else ""
        with self.lock:
            self.running[name] += 1
        try:
            yield None
        finally:
            with self.lock:
                self.running[name] -= 1

    def slots(self, name: str) -> Answer:
        with self.lock:
            process = self.processes.get(name)
            if process is None or process.weights is None:
                return error(400, "invalid_request_error", "model is not loaded")
            return Answer(200, [{"id": 0, "n_ctx": 512, "is_processing": self.running[name] > 0}])

    def loaded(self, name: str) -> Answer:
        with self.lock:
            process = self.processes.get(name)
            if process is None:
                return NOT_FOUND
            if process.weights is not None:
                return error(400, "invalid_request_error", "model is already running")
            try:
                process.weights = weights_in_gguf(process.lora) if process.lora else NONE
                process.failed = False
            except (OSError, ValueError):
                # The answer is the same: only the list says that it could not start.
                process.failed = True
        return Answer(200, {"success": True})

    def unloaded(self, name: str) -> Answer:
        with self.lock:
            if name not in self.processes or self.processes[name].weights is None:
                return error(400, "invalid_request_error", "model is not loaded")
            self.processes[name].weights = None
        return Answer(200, {"success": True})

    def routed_completion(self, call: Call) -> Work:
        body = call.json()
        name = body.get("model", "")
        with self.lock:
            process = self.processes.get(name)
            if not name:
                refusal = "model name is missing from the request"
            elif process is None:
                refusal = f"model '{name}' not found"
            elif process.weights is None:
                refusal = "model is not loaded"
            else:
                ids, weights = self.ids(body), process.weights
                prompt = Prompt(ids, [weights] * len(ids))
                return Work(ANSWER, name, lambda: self.completed(body, name, prompt, weights))
        return Work(ANSWER, name, lambda: error(400, "invalid_request_error", refusal))


PERSONALITY = LlamaServer
