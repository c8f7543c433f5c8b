# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vLLM's OpenAI server, with adapters loaded at run time.

Statuses and texts are recorded from vLLM 0.29.0 and 0.32.0 on a CPU, except where a comment says
that they are read from the source. 0.14 is 0.29 without ``load_inplace``, by its source.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import pathlib
import struct
import time
import typing as t

from ..faults import EMPTY_TEXT, NOT_FINITE, OTHER_ROOT, UNLISTED
from ..model import NONE, Weights, likeliest, text_of, tokens_of, top, weights_in
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

VERSIONS = ("0.14.1", "0.29.0", "0.32.0")
NOT_FOUND = Answer(404, {"detail": "Not Found"})
# Messages do not show paths in these directories, nor those of files with a suffix.
_HIDDEN = ("home", "usr", "opt", "var", "tmp", "root", "lib", "mnt", "srv")
_EXISTS = "The lora adapter '{}' has already been loaded."
INPLACE = "If you want to load the adapter in place, set 'load_inplace' to True."
_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


def error(status: int, kind: str, message: str, param: str | None = None) -> Answer:
    return Answer(status, {"error": {"message": message, "type": kind, "param": param, "code": status}})


def failed(reason: str) -> Answer:
    message = f"Call to add_lora method failed: Worker failed with error '{reason}', please check the stack trace above for the"
    return error(500, "InternalServerError", f"{message} root cause")


def too_many(kind: str, count: int, most: int) -> Answer:
    """Refuse to return so many log-probabilities at each position."""
    what = "sample logprobs" if kind == "logprobs" else "prompt logprobs"
    text = f"Requested {what} of {count}, which is greater than max allowed: {most}"
    return error(400, "BadRequestError", f"{text} (parameter={kind}, value={count})", kind)


@dataclasses.dataclass
class Adapter:
    """A name that the API server knows. ``number`` names a copy of the weights in the engine."""

    name: str
    path: str
    number: int
    inplace: bool = False


class VLLM(Personality):
    """vLLM. The prefix cache's key has the name of an adapter, and from 0.31 on its path too."""

    def start(self) -> None:
        self.adapters: dict[str, Adapter] = {}
        # The copies that the engine has, the least recently used first.
        self.copies: collections.OrderedDict[int, Weights] = collections.OrderedDict()
        self.numbers = itertools.count(1)
        self.cache: dict[t.Any, Weights] = {}
        self.running: collections.Counter[str] = collections.Counter()
        self.states: dict[str, float] = {}
        self.requests = itertools.count(1)
        for name, path in adapters_of_start(self.settings):
            self.add(name, path)
        self.note_state()

    @property
    def minor(self) -> int:
        return int(self.settings.version.split(".")[1])

    def begin(self, call: Call) -> Work:
        routes: dict[str, t.Callable[[Call], Work]] = {
            "GET /health": lambda _call: Work(HEALTH, "", lambda: Answer(200)),
            "GET /version": lambda _call: Work(VERSION, "", lambda: Answer(200, {"version": self.settings.version})),
            "GET /v1/models": lambda _call: Work(LIST, "", self.listed),
            "GET /metrics": lambda _call: Work(METRICS, "", self.metrics),
            "POST /v1/completions": self.completion,
        }
        if self.settings.runtime_loading:
            routes["POST /v1/load_lora_adapter"] = self.load
            routes["POST /v1/unload_lora_adapter"] = self.unload
        if call.route not in routes:
            return Work(OTHER, "", lambda: NOT_FOUND)
        work = routes[call.route](call)
        key = self.settings.api_key
        # The key covers the routes below /v1 only.
        if key and call.path.startswith("/v1") and call.headers.get("Authorization") != f"Bearer {key}":
            return work._replace(finish=lambda: Answer(401, {"error": "Unauthorized"}))
        return work

    def without_engine(self, work: Work) -> Answer:
        # Read from the source. The list is the API server's own.
        if work.kind == HEALTH:
            return Answer(503)
        return work.finish() if work.kind in (LIST, VERSION, METRICS) else error(500, "InternalServerError", _DEAD)

    # Loading

    def load(self, call: Call) -> Work:
        return Work(LOAD, call.field("lora_name"), lambda: self.loaded(call))

    def unload(self, call: Call) -> Work:
        return Work(UNLOAD, call.field("lora_name"), lambda: self.unloaded(call))

    def fields(self, call: Call, *names: str) -> dict[str, t.Any] | Answer:
        """Return the body, or what the server answers if it is not of the right form."""
        if call.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
            return error(400, "Bad Request", text)
        try:
            body = call.json()
        except ValueError as exc:
            detail = {"type": "json_invalid", "loc": ("body", 1), "msg": "JSON decode error", "input": {}}
            return self.invalid(detail | {"ctx": {"error": str(exc).partition(":")[0]}})
        for name in names:
            if name not in body:
                return self.invalid({"type": "missing", "loc": ("body", name), "msg": "Field required", "input": body})
        return t.cast("dict[str, t.Any]", body)

    def invalid(self, detail: dict[str, t.Any]) -> Answer:
        place = ".".join(map(str, detail["loc"]))
        if self.minor >= 32:
            detail = {**detail, "loc": place, "input": f"<dict of {len(detail['input'])} items>"}
        return error(400, "Bad Request", f"1 validation error:\n  {detail}", place)

    def loaded(self, call: Call) -> Answer:
        body = self.fields(call, "lora_name", "lora_path")
        if isinstance(body, Answer):
            return body
        name, path = body["lora_name"], body["lora_path"]
        # Older versions ignore the field, as any other that they do not know.
        inplace = bool(body.get("load_inplace")) and self.minor >= 15
        if not name or not path:
            return error(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
        with self.lock:
            if name == self.settings.base_name and self.minor >= 31:
                return error(400, "InvalidUserInput", f"The lora adapter '{name}' conflicts with a served base model.")
            if name in self.adapters and not inplace:
                # The text of 0.14 is read from the source.
                return error(400, "InvalidUserInput", _EXISTS.format(name) + (f" {INPLACE}" if self.minor >= 15 else ""))
            refusal = self.refusal(name, path)
            if refusal is not None:
                return refusal
            self.add(name, path, inplace)
        return Answer(200, f"Success: LoRA adapter '{name}' added successfully.")

    def refusal(self, name: str, path: str) -> Answer | None:
        """Return what the engine answers for files that it does not load."""
        directory = pathlib.Path(path).expanduser()
        config_path, weights_path = directory / "adapter_config.json", directory / "adapter_model.safetensors"
        if not config_path.is_file():
            parts = directory.parts if path.startswith(("/", "~")) else ()
            shown = "<path>" if len(parts) > 2 and (parts[1] in _HIDDEN or "." in parts[-1]) else path
            return error(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {shown}")
        try:
            config = json.loads(config_path.read_bytes())
        except ValueError as exc:
            return failed(str(exc))
        if not weights_path.is_file():
            return failed("<path> doesn't contain tensors")
        if config.get("use_dora"):
            return failed("vLLM does not yet support DoRA.")
        if config.get("r", 0) > self.settings.max_lora_rank:
            return failed(f"LoRA rank {config['r']} is greater than max_lora_rank {self.settings.max_lora_rank}.")
        if self.truncated(weights_path):
            return failed("Error while deserializing header: incomplete metadata, file not fully covered")
        return None

    @staticmethod
    def truncated(path: pathlib.Path) -> bool:
        """Return whether a safetensors file ends before its last tensor."""
        data = path.read_bytes()
        try:
            (length,) = struct.unpack("<Q", data[:8])
            header = json.loads(data[8 : 8 + length])
            end: int = max(form["data_offsets"][1] for name, form in header.items() if name != "__metadata__")
        except (struct.error, ValueError, KeyError, TypeError, AttributeError):
            return False
        return bool(len(data) < 8 + length + end)

    def add(self, name: str, path: str, inplace: bool = False) -> None:
        old = self.adapters.get(name)
        number = old.number if old is not None else next(self.numbers)
        self.adapters[name] = Adapter(name, path, number, inplace)
        self.keep(number, self.computed(name, path))

    def keep(self, number: int, weights: Weights) -> None:
        self.copies[number] = weights
        self.copies.move_to_end(number)
        while len(self.copies) > self.settings.max_cpu_loras:
            self.copies.popitem(last=False)

    def unloaded(self, call: Call) -> Answer:
        body = self.fields(call, "lora_name")
        if isinstance(body, Answer):
            return body
        name = body["lora_name"]
        with self.lock:
            if name not in self.adapters:
                return error(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
            # Only the name goes. The copy stays until others need its place.
            del self.adapters[name]
        return Answer(200, f"Success: LoRA adapter '{name}' removed successfully.")

    def listed(self) -> Answer:
        with self.lock:
            rows = [self.card(self.settings.base_name, self.settings.base, None)]
            for name, adapter in self.adapters.items():
                if not self.faults.change(UNLISTED, name):
                    other = self.faults.change(OTHER_ROOT, name)
                    rows.append(self.card(name, other.directory if other else adapter.path, self.settings.base_name))
        return Answer(200, {"object": "list", "data": rows})

    def card(self, name: str, root: str, parent: str | None) -> dict[str, t.Any]:
        length = 1024 if parent is None else None
        permission = {
            "id": f"modelperm-{self.created:016x}",
            "object": "model_permission",
            "created": self.created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        row = {"id": name, "object": "model", "created": self.created, "owned_by": "vllm", "root": root, "parent": parent}
        return {**row, "max_model_len": length, "permission": [permission]}

    # Answering

    def completion(self, call: Call) -> Work:
        name = call.field("model")
        body = self.fields(call)
        if isinstance(body, Answer):
            return Work(ANSWER, name, lambda: body)
        most = self.settings.max_logprobs
        excess = [too_many(kind, body[kind], most) for kind in ("logprobs", "prompt_logprobs") if (body.get(kind) or 0) > most]
        if excess:
            return Work(ANSWER, name, lambda: excess[0])
        with self.lock:
            # An empty name is the base's. So is the base's own name, even if an adapter has it.
            adapter = None if name in ("", self.settings.base_name) else self.adapters.get(name)
            if adapter is None and name not in ("", self.settings.base_name):
                message = f"The model `{name}` does not exist."
                if self.minor >= 32:
                    message += f" Valid aliases: {self.settings.base_name}."
                return Work(ANSWER, name, lambda: error(404, "NotFoundError", message, "model"))
            prompt = body.get("prompt", "")
            several = isinstance(prompt, list) and prompt and isinstance(prompt[0], list)
            try:
                answering = [Answering(self, adapter, body, one) for one in (prompt if several else [prompt])]
            except OSError:
                # An evicted adapter is read again from its path. Without it, the engine ends.
                self.dead = True
                return Work(ANSWER, name, lambda: error(500, "InternalServerError", _DEAD))
            except ValueError as exc:
                refusal = error(400, "BadRequestError", str(exc))
                return Work(ANSWER, name, lambda: refusal)
            if adapter is not None:
                self.running[adapter.name] += 1
                self.note_state()

        def finish() -> Answer:
            try:
                with self.lock:
                    return self.completed(body, answering)
            finally:
                with self.lock:
                    if adapter is not None:
                        self.running[adapter.name] -= 1
                        self.note_state()

        return Work(ANSWER, name or self.settings.base_name, finish)

    def completed(self, body: dict[str, t.Any], answering: list[Answering]) -> Answer:
        figures = body.get("logprobs") is not None or body.get("prompt_logprobs") is not None
        if figures and not all(one.finite for one in answering):
            return error(400, "BadRequestError", "Out of range float values are not JSON compliant")
        choices = [one.choice(index) for index, one in enumerate(answering)]
        newer = {} if self.minor < 32 else {"ec_transfer_params": None, "metrics": None}
        details = {} if self.minor < 32 else {"completion_tokens_details": None}
        asked, new = sum(len(one.ids) for one in answering), sum(one.count for one in answering)
        used = {"prompt_tokens": asked, "total_tokens": asked + new, "completion_tokens": new}
        answer = {
            "id": f"cmpl-{next(self.requests):016x}",
            "object": "text_completion",
            "created": self.created,
            "model": body.get("model") or self.settings.base_name,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": f"vllm-{self.settings.version}-fake",
            "usage": {**used, "prompt_tokens_details": None, **details},
            "kv_transfer_params": None,
            **newer,
        }
        return Answer(200, answer)

    def weights_of(self, adapter: Adapter | None) -> Weights:
        """Return the weights that the engine has for an adapter. Raises OSError."""
        if adapter is None:
            return NONE
        if adapter.inplace:
            # It reads the directory again at every step.
            weights_in(adapter.path)
            self.copies[adapter.number] = self.computed(adapter.name, adapter.path)
        elif adapter.number not in self.copies:
            self.keep(adapter.number, self.computed(adapter.name, adapter.path))
        self.copies.move_to_end(adapter.number)
        return self.copies[adapter.number]

    def cached(self, adapter: Adapter | None, salt: str | None, ids: list[int], weights: Weights, read: bool) -> list[Weights]:
        """Return what has computed each token of a prompt, and fill the prefix cache."""
        block = self.settings.block
        scope: t.Any = None
        if adapter is not None:
            scope = ("lora", adapter.name, adapter.path) if self.minor >= 31 else adapter.name
        computed: list[Weights] = []
        hit = read and self.settings.prefix_caching
        # The last token is always computed.
        for end in range(block, len(ids), block):
            key = (salt, scope, tuple(ids[:end]))
            hit = hit and key in self.cache
            computed += [self.cache[key] if hit else weights] * block
            if self.settings.prefix_caching:
                self.cache.setdefault(key, weights)
        return computed + [weights] * (len(ids) - len(computed))

    def note_state(self) -> None:
        running = ",".join(sorted(name for name, count in self.running.items() if count))
        # Later states have larger values, and earlier ones keep theirs.
        self.states[running] = max([time.time(), *(value + 1e-3 for value in self.states.values())])

    def metrics(self) -> Answer:
        name = "vllm:lora_requests_info"
        lines = [f"# HELP {name} Running stats on lora requests.", f"# TYPE {name} gauge"]
        with self.lock:
            for running, value in self.states.items():
                labels = f'max_lora="{self.settings.max_loras}",running_lora_adapters="{running}",waiting_lora_adapters=""'
                lines.append(f"{name}{{{labels}}} {value!r}")
        return Answer(200, "\n".join(lines) + "\n", {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


class Answering:
    """A prompt that is being answered. It is computed, and the rest when it is completed."""

    def __init__(self, engine: VLLM, adapter: Adapter | None, body: dict[str, t.Any], prompt: str | list[int]) -> None:
        self.engine, self.adapter, self.body = engine, adapter, body
        self.count = body.get("max_tokens", 16)
        self.ids = tokens_of(prompt, engine.settings.vocabulary) if isinstance(prompt, str) else list(prompt)
        if not self.ids:
            raise ValueError("You must pass at least one prompt")
        outside = [token for token in self.ids if not 0 <= token < engine.settings.vocabulary]
        if outside:
            raise ValueError(f"Token id {max(outside)} is out of vocabulary")
        self.weights = engine.weights_of(adapter)
        # A request for figures of the prompt does not read the cache.
        wants_prompt = body.get("prompt_logprobs") is not None
        self.computed = engine.cached(adapter, body.get("cache_salt"), self.ids, self.weights, read=not wants_prompt)
        spoiling = engine.faults.change(NOT_FINITE, body.get("model", ""))
        engine.spoiled = engine.spoiled or bool(spoiling and spoiling.spoils)
        self.finite = not (spoiling or engine.spoiled)

    def choice(self, index: int) -> dict[str, t.Any]:
        counted = self.body.get("logprobs")
        rows, found = self.generated(self.count)
        empty = not self.finite or self.engine.faults.change(EMPTY_TEXT, self.body.get("model", ""))
        return {
            "index": index,
            "text": "" if empty else text_of(found),
            "logprobs": None if counted is None else self.log_probabilities(rows, found, counted),
            "finish_reason": "length",
            "stop_reason": None,
            "token_ids": None,
            "prompt_logprobs": self.of_prompt(self.body.get("prompt_logprobs")),
            "prompt_token_ids": None,
            "routed_experts": None,
        }

    def generated(self, count: int) -> tuple[list[list[float]], list[int]]:
        """Return the figures of each new token, and the tokens."""
        computed, ids = list(self.computed), list(self.ids)
        rows: list[list[float]] = []
        for _token in range(count):
            rows.append(self.engine.model.next_token(ids, computed))
            ids.append(likeliest(rows[-1]))
            # The weights of an unloaded adapter stay, and those of an adapter that was loaded in
            # place have changed in the middle.
            number = self.adapter.number if self.adapter else 0
            computed.append(self.engine.copies.get(number, self.weights))
        return rows, ids[len(self.ids) :]

    def log_probabilities(self, rows: list[list[float]], found: list[int], count: int) -> dict[str, t.Any]:
        as_ids = self.body.get("return_tokens_as_token_ids")

        def name(token: int) -> str:
            return f"token_id:{token}" if as_ids else text_of([token])

        best = [
            {name(token): row[token] for token in dict.fromkeys([chosen, *top(row, count)])} for row, chosen in zip(rows, found)
        ]
        return {
            "text_offset": [len(text_of(found[:place])) for place in range(len(found))],
            "token_logprobs": [row[token] for row, token in zip(rows, found)],
            "tokens": [name(token) for token in found],
            "top_logprobs": best,
        }

    def of_prompt(self, count: int | None) -> list[t.Any] | None:
        if count is None:
            return None
        found: list[t.Any] = [None]
        for place in range(1, len(self.ids)):
            row = self.engine.model.next_token(self.ids[:place], self.computed[:place])
            order = top(row, len(row))
            wanted = dict.fromkeys([self.ids[place], *order[:count]])
            found.append(
                {
                    str(token): {"logprob": row[token], "rank": order.index(token) + 1, "decoded_token": text_of([token])}
                    for token in wanted
                }
            )
        return found


PERSONALITY = VLLM
