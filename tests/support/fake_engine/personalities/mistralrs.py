# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mistral.rs's server, with adapters loaded at run time.

Names, generations, compare-and-set, limits and texts are recorded from the Python package
mistralrs 0.9.5, which has the same core. The HTTP layer (routes, statuses, forms of the bodies) is
read from the source of 0.9.2, in ``mistralrs-server-core/src``: it was not run.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
import threading
import typing as t

from ..faults import EMPTY_TEXT, NOT_FINITE, OTHER_ROOT, UNLISTED
from ..model import NONE, Weights, likeliest, text_of, tokens_of, top
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

VERSIONS = ("0.9.5",)
MAX_RANK = 256
MAX_BYTES = 8 << 30
_HEX = re.compile(r"[0-9a-f]{64}")


def generation_of(directory: str | pathlib.Path, domain: str = "v2") -> str:
    """Return the generation of a release: a hash of its two files. Raises OSError."""
    config, weights = (
        hashlib.sha256(pathlib.Path(directory, name).read_bytes()).digest()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    )
    content = f"mistral.rs dynamic LoRA generation {domain}".encode() + b"\0config\0" + config + b"\0weights\0" + weights
    return hashlib.sha256(content).hexdigest()


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return Answer(status, {"error": {"message": message, "type": kind, "code": code}}, headers)


def invalid_body(problem: str) -> Answer:
    return error(422, "invalid_request_body", f"Failed to deserialize the JSON body into the target type: {problem}")


@dataclasses.dataclass
class Resident:
    """A generation in memory."""

    generation: str
    weights: Weights
    rank: int
    bytes: int
    leases: int = 0


class MistralRs(Personality):
    """mistral.rs: an alias names a generation, and a request keeps the one it began with.

    With a version below 0.9 (there is none with this interface), generations are computed by
    another formula: that of a version to come.
    """

    def start(self) -> None:
        self.aliases: dict[str, tuple[str, str]] = {}  # alias -> generation, source
        self.residents: dict[str, Resident] = {}
        self.loading = threading.Lock()
        self.requests = itertools.count(1)
        for name, path in adapters_of_start(self.settings):
            self.point(name, self.resident(name, path), path)

    @contextlib.contextmanager
    def admitted(self, call: Call) -> t.Iterator[Work | None]:
        if call.route != "POST /v1/load_lora_adapter":
            yield None
        elif self.loading.acquire(blocking=False):
            try:
                yield None
            finally:
                self.loading.release()
        else:
            busy = error(429, "lora_load_busy", "another LoRA adapter load is already in progress", **{"Retry-After": "1"})
            yield Work(LOAD, call.field("lora_name"), lambda: busy)

    def begin(self, call: Call) -> Work:
        routes: dict[str, t.Callable[[Call], Work]] = {
            "GET /health": lambda _call: Work(HEALTH, "", lambda: Answer(200, "OK")),
            "GET /v1/system/info": lambda _call: Work(VERSION, "", self.system_info),
            "GET /v1/models": lambda _call: Work(OTHER, "", self.models),
            "GET /v1/lora_adapters": lambda _call: Work(LIST, "", self.listed),
            "POST /v1/completions": self.completion,
        }
        if self.settings.runtime_loading:
            routes["POST /v1/load_lora_adapter"] = lambda call: Work(LOAD, call.field("lora_name"), lambda: self.loaded(call))
            routes["POST /v1/unload_lora_adapter"] = lambda call: Work(
                UNLOAD, call.field("lora_name"), lambda: self.unloaded(call)
            )
        if call.route not in routes:
            return Work(OTHER, "", lambda: Answer(404))
        return routes[call.route](call)

    def system_info(self) -> Answer:
        return Answer(200, {"os": "Linux", "build": {"version": self.settings.version, "git_revision": "unknown"}})

    # The adapters

    def resident(self, name: str, path: str) -> Resident:
        """Return the generation of a release, which is loaded only once. Raises OSError."""
        domain = "v2" if self.settings.version.startswith("0.9.") else "v3"
        generation = generation_of(path, domain)
        if generation not in self.residents:
            config = json.loads(pathlib.Path(path, "adapter_config.json").read_bytes())
            size = pathlib.Path(path, "adapter_model.safetensors").stat().st_size
            self.residents[generation] = Resident(generation, self.computed(name, path), config.get("r", 8), size)
        return self.residents[generation]

    def point(self, name: str, resident: Resident, source: str) -> None:
        self.aliases[name] = (resident.generation, source)
        self.collect()

    def collect(self) -> None:
        """Free the generations that no alias and no request has."""
        used = {generation for generation, _source in self.aliases.values()}
        self.residents = {key: one for key, one in self.residents.items() if key in used or one.leases}

    def fields(self, call: Call, required: list[str], optional: list[str]) -> dict[str, t.Any] | Answer:
        if call.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            return error(415, "invalid_content_type", "Expected request with `Content-Type: application/json`")
        try:
            body = call.json()
        except ValueError:
            return error(400, "malformed_json", "Failed to parse the request body as JSON")
        for name in body:
            if name not in required + optional:
                return invalid_body(
                    f"unknown field `{name}`, expected one of " + ", ".join(map("`{}`".format, required + optional))
                )
        for name in required:
            if name not in body:
                return invalid_body(f"missing field `{name}`")
        expected = body.get("expected_generation")
        if expected is not None and not _HEX.fullmatch(expected):
            return invalid_body("adapter generation must be exactly 64 hexadecimal characters")
        if not body["lora_name"].strip():
            return error(400, "invalid_lora_name", "lora_name must not be empty")
        return t.cast("dict[str, t.Any]", {**body, "lora_name": body["lora_name"].strip()})

    def loaded(self, call: Call) -> Answer:
        optional = ["load_inplace", "expected_generation", "is_3d_lora_weight", "model"]
        body = self.fields(call, ["lora_name", "lora_path"], optional)
        if isinstance(body, Answer):
            return body
        name, path, expected = body["lora_name"], body["lora_path"], body.get("expected_generation")
        inplace = bool(body.get("load_inplace"))
        if expected and not inplace:
            return error(400, "invalid_lora_load_policy", "expected_generation requires load_inplace=true")
        refusal = self.refusal(path)
        if refusal is not None:
            return refusal
        with self.lock:
            generation = self.aliases[name][0] if name in self.aliases else None
            if generation is not None and not inplace:
                message = f"adapter alias `{name}` is already loaded at generation `{generation}`"
                return error(409, "lora_adapter_already_loaded", message)
            mismatch = self.mismatch(name, expected)
            if mismatch is not None:
                return mismatch
            if generation is None and len(self.aliases) >= self.settings.max_loras:
                message = f"loaded LoRA adapter alias limit {self.settings.max_loras} reached"
                return error(409, "lora_alias_limit_exceeded", message)
            before = dict(self.residents)
            resident = self.resident(name, path)
            # The old one and the new one are both resident for a moment.
            if resident.generation not in before and len(before) >= self.settings.max_loras:
                self.residents = before
                return error(409, "lora_adapter_limit_exceeded", f"resident LoRA adapter limit {len(before)} reached")
            self.point(name, resident, path)
            return Answer(200, self.described(name, resident, path))

    def refusal(self, path: str) -> Answer | None:
        root = self.settings.adapter_root
        directory = pathlib.Path(root, path) if root else pathlib.Path(path)
        if not directory.exists():
            problem = "No such file or directory (os error 2)"
            return error(404, "adapter_path_not_found", f"failed to access adapter directory `{directory}`: {problem}")
        directory = directory.resolve()
        if not directory.is_dir():
            return error(400, "invalid_adapter_path", f"adapter path `{directory}` is not a directory")
        if root and not directory.is_relative_to(pathlib.Path(root).resolve()):
            message = "adapter directory resolves outside the configured LoRA adapter root"
            return error(403, "adapter_path_forbidden", message)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if not (directory / name).is_file():
                problem = "No such file or directory (os error 2)"
                return error(404, "adapter_path_not_found", f"failed to access adapter file `{name}`: {problem}")
        try:
            config = json.loads((directory / "adapter_config.json").read_bytes())
        except ValueError as exc:
            return error(422, "invalid_lora_adapter", f"invalid adapter configuration: {exc}")
        if config.get("use_dora"):
            # Some texts are followed by a back trace.
            message = "dynamic LoRA does not support DoRA adapters\n   0: std::backtrace_rs::backtrace::libunwind::trace"
            return error(422, "invalid_lora_adapter", message)
        if config.get("r", 0) > MAX_RANK:
            return error(409, "lora_rank_limit_exceeded", f"adapter rank {config['r']} exceeds the limit {MAX_RANK}")
        return None

    def mismatch(self, name: str, expected: str | None) -> Answer | None:
        """Return the refusal of a call that expects another generation than there is."""
        if not expected:
            return None
        if name not in self.aliases:
            return error(404, "lora_adapter_not_found", f"adapter alias `{name}` is not registered")
        found = self.aliases[name][0]
        if found == expected:
            return None
        return error(
            409, "lora_generation_mismatch", f"adapter alias `{name}` changed: expected generation `{expected}`, found `{found}`"
        )

    def unloaded(self, call: Call) -> Answer:
        body = self.fields(call, ["lora_name"], ["expected_generation", "lora_int_id", "model"])
        if isinstance(body, Answer):
            return body
        name = body["lora_name"]
        with self.lock:
            if name not in self.aliases:
                return error(404, "lora_adapter_not_found", f"adapter alias `{name}` is not registered")
            mismatch = self.mismatch(name, body.get("expected_generation"))
            if mismatch is not None:
                return mismatch
            generation, source = self.aliases.pop(name)
            described = self.described(name, self.residents[generation], source)
            self.collect()
            return Answer(200, described)

    def described(self, name: str, resident: Resident, source: str) -> dict[str, t.Any]:
        found: dict[str, t.Any] = {"id": name, "object": "lora_adapter"}
        if self.settings.runtime_loading:
            found["source"] = source
        return {**found, "generation": resident.generation, "rank": resident.rank, "bytes": resident.bytes}

    def listed(self) -> Answer:
        with self.lock:
            data = []
            aliases: dict[str, list[str]] = collections.defaultdict(list)
            for name, (generation, source) in self.aliases.items():
                if self.faults.change(UNLISTED, name):
                    continue
                aliases[generation].append(name)
                other = self.faults.change(OTHER_ROOT, name)
                row = self.described(name, self.residents[generation], other.directory if other else source)
                data.append({**row, "generation": generation_of(other.directory)} if other else row)
            generations = [
                {
                    "generation": one.generation,
                    "aliases": aliases[one.generation],
                    "rank": one.rank,
                    "bytes": one.bytes,
                    "retired": not aliases[one.generation],
                    "active_leases": one.leases,
                }
                for one in self.residents.values()
            ]
            retired = sum(one["retired"] is True for one in generations)
            return Answer(
                200,
                {
                    "object": "list",
                    "data": data,
                    "generations": generations,
                    "resident_generations": len(generations) - retired,
                    "retired_generations": retired,
                    "resident_bytes": sum(one.bytes for one in self.residents.values()),
                    "max_adapters": self.settings.max_loras,
                    "max_rank": MAX_RANK,
                    "max_bytes": MAX_BYTES,
                },
            )

    def models(self) -> Answer:
        """The root of an adapter is its alias here, not its path."""
        base = self.settings.base_name
        common = {"object": "model", "created": self.created, "owned_by": "local"}
        rows: list[dict[str, t.Any]] = [
            {"id": "default", **common, "root": "default", "parent": None},
            {"id": base, **common, "root": base, "parent": None, "status": "loaded"},
        ]
        with self.lock:
            for name, (generation, _source) in self.aliases.items():
                row = {"id": f"{base}::{name}", **common, "root": name, "parent": base}
                rows.append({**row, "adapter_generation": generation, "status": "loaded"})
        return Answer(200, {"object": "list", "data": rows})

    # Answering

    def completion(self, call: Call) -> Work:
        try:
            body = call.json()
        except ValueError:
            return Work(ANSWER, "", lambda: Answer(400, "Failed to parse the request body as JSON"))
        if not isinstance(body.get("prompt"), str):
            return Work(ANSWER, "", lambda: Answer(422, "prompt: invalid type: sequence, expected a string"))
        model = body.get("model", "default")
        name = body.get("adapter")
        base = self.settings.base_name
        if name is None and model not in ("default", base):
            # An alias, or BASE::ALIAS.
            name = model.partition("::")[2] or model
        with self.lock:
            resident = None
            if name is not None:
                if name not in self.aliases:
                    refusal = Answer(422, {"message": f"adapter alias `{name}` is not registered"})
                    return Work(ANSWER, name, lambda: refusal)
                resident = self.residents[self.aliases[name][0]]
                resident.leases += 1
            spoiling = self.faults.change(NOT_FINITE, name or "")
            self.spoiled = self.spoiled or bool(spoiling and spoiling.spoils)
            finite = not (spoiling or self.spoiled)

        def finish() -> Answer:
            try:
                return self.completed(body, name, resident, finite)
            finally:
                with self.lock:
                    if resident is not None:
                        resident.leases -= 1
                        self.collect()

        return Work(ANSWER, name or base, finish)

    def completed(self, body: dict[str, t.Any], name: str | None, resident: Resident | None, finite: bool) -> Answer:
        begin = [] if self.settings.begin is None else [self.settings.begin]
        ids = begin + tokens_of(body["prompt"], self.settings.vocabulary)
        weights = resident.weights if resident else NONE
        found: list[int] = []
        content = []
        for _token in range(body.get("max_tokens", 16)):
            row = self.model.next_token([*ids, *found], [weights] * (len(ids) + len(found)))
            found.append(likeliest(row))
            # NaN in JSON is null.
            best = [
                {"token": token, "logprob": row[token] if finite else None, "bytes": text_of([token])}
                for token in top(row, body.get("logprobs") or 1)
            ]
            text = text_of(found[-1:])
            figure = row[found[-1]] if finite else None
            content.append({"token": text, "logprob": figure, "bytes": list(text.encode()), "top_logprobs": best})
        empty = not finite or self.faults.change(EMPTY_TEXT, name or "")
        choice = {
            "finish_reason": "length",
            "index": 0,
            "text": "" if empty else text_of(found),
            "logprobs": {"content": content} if body.get("logprobs") is not None else None,
        }
        answer = {
            "id": str(next(self.requests)),
            "choices": [choice],
            "created": self.created,
            "model": body.get("model", "default"),
            "system_fingerprint": "local",
            "object": "text_completion",
            "usage": {"prompt_tokens": len(ids), "completion_tokens": len(found), "total_tokens": len(ids) + len(found)},
        }
        if resident is not None:
            answer["adapter_generation"] = resident.generation
        return Answer(200, answer)


PERSONALITY = MistralRs
