# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fake engines answer as the real ones have answered, and as their tests need it."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import subprocess
import threading
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import distances, problems

from tests.support import releases
from tests.support.fake_engine import goldens, running
from tests.support.fake_engine.personalities import mistralrs, vllm

# Long enough for several blocks of the prefix cache.
LONG = [(7 * place) % 500 for place in range(40)]


class Asked(t.NamedTuple):
    status: int
    text: str
    content_type: str | None

    @property
    def json(self) -> t.Any:
        return json.loads(self.text)


def ask(engine: running.FakeEngine, route: str, body: t.Any = None, **headers: str) -> Asked:
    method, _space, path = route.partition(" ")
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=120)
    with contextlib.closing(connection):
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return Asked(answer.status, answer.read().decode(), answer.headers.get("Content-Type"))


def load(engine: running.FakeEngine, name: str, path: pathlib.Path, **fields: t.Any) -> Asked:
    return ask(engine, "POST /v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path), **fields})


def unload(engine: running.FakeEngine, name: str) -> Asked:
    return ask(engine, "POST /v1/unload_lora_adapter", {"lora_name": name})


def roots(engine: running.FakeEngine) -> list[tuple[str, str, str | None]]:
    return [(row["id"], row["root"], row["parent"]) for row in ask(engine, "GET /v1/models").json["data"]]


def first(engine: running.FakeEngine, model: str, **fields: t.Any) -> dict[str, float]:
    """Return the figures of the first token after the long prompt, as users get them."""
    body = {"model": model, "prompt": LONG, "max_tokens": 1, "temperature": 0, "logprobs": 3}
    answer = ask(engine, "POST /v1/completions", {**body, "return_tokens_as_token_ids": True, **fields})
    assert answer.status == 200, answer
    found: dict[str, float] = answer.json["choices"][0]["logprobs"]["top_logprobs"][0]
    return found


@pytest.fixture
def base(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path / "base"


@pytest.fixture
def release(tmp_path: pathlib.Path) -> t.Callable[[int], pathlib.Path]:
    def write(version: int) -> pathlib.Path:
        path = tmp_path / "releases" / releases.release_of(version)
        if not path.exists():
            releases.write_version(path, version)
        return path

    return write


Start = t.Callable[..., running.FakeEngine]
Release = t.Callable[[int], pathlib.Path]


@pytest.fixture
def start(fake_engine: Start, base: pathlib.Path) -> Start:
    return lambda personality, version="", **settings: fake_engine(personality, base, version, **settings)


def test_vllm_answers_have_recorded_forms(start: Start, base: pathlib.Path, release: Release) -> None:
    engine = start("vllm", "0.29.0")
    one = release(1)
    exists = f"The lora adapter 'grammar' has already been loaded. {vllm.INPLACE}"
    missing = "{'type': 'missing', 'loc': ('body', 'lora_path'), 'msg': 'Field required', 'input': {'lora_name': 'x'}}"
    broken = (
        "{'type': 'json_invalid', 'loc': ('body', 1), 'msg': 'JSON decode error', 'input': {}, 'ctx': {'error': 'Expecting"
        " property name enclosed in double quotes'}}"
    )
    media = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"

    def body(kind: str, code: int, message: str, param: str | None = None) -> dict[str, t.Any]:
        return {"error": {"message": message, "type": kind, "param": param, "code": code}}

    assert ask(engine, "GET /health") == (200, "", None)
    assert ask(engine, "GET /version").json == {"version": "0.29.0"}
    assert load(engine, "grammar", one) == (200, "Success: LoRA adapter 'grammar' added successfully.", None)
    assert roots(engine) == [("base", str(base), None), ("grammar", str(one), "base")]
    assert load(engine, "grammar", one).json == body("InvalidUserInput", 400, exists)
    absent = load(engine, "nope", one.with_name("absent"))
    assert absent.json == body("NotFoundError", 404, "Loading lora nope failed: No adapter found for <path>")
    empty = load(engine, "", one)
    assert empty.json == body("InvalidUserInput", 400, "Both 'lora_name' and 'lora_path' must be provided.")
    less = ask(engine, "POST /v1/load_lora_adapter", {"lora_name": "x"})
    assert less.json == body("Bad Request", 400, f"1 validation error:\n  {missing}", "body.lora_path")
    bad = ask(engine, "POST /v1/load_lora_adapter", b"{bad")
    assert bad.json == body("Bad Request", 400, f"1 validation error:\n  {broken}", "body.1")
    text = ask(engine, "POST /v1/load_lora_adapter", b"{}", **{"Content-Type": "text/plain"})
    assert text.json == body("Bad Request", 400, media)
    assert unload(engine, "nope").json == body("NotFoundError", 404, "The lora adapter 'nope' cannot be found.")
    unknown = ask(engine, "POST /v1/completions", {"model": "nope", "prompt": "a"})
    assert unknown.json == body("NotFoundError", 404, "The model `nope` does not exist.", "model")
    assert ask(engine, "POST /reset_prefix_cache") == (404, '{"detail":"Not Found"}', "application/json")
    assert unload(engine, "grammar") == (200, "Success: LoRA adapter 'grammar' removed successfully.", None)


@pytest.mark.parametrize(
    ("route", "fields", "status", "kind", "message", "param"),
    [
        pytest.param(
            "load_lora_adapter",
            {"lora_name": "x"},
            400,
            "Bad Request",
            "1 validation error:\n  {'type': 'missing', 'loc': 'body.lora_path', 'msg': 'Field required',"
            " 'input': '<dict of 1 items>'}",
            "body.lora_path",
            id="missing-field",
        ),
        pytest.param(
            "load_lora_adapter",
            b"{bad",
            400,
            "Bad Request",
            "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.1', 'msg': 'JSON decode error', 'input':"
            " '<dict of 0 items>', 'ctx': {'error': 'Expecting property name enclosed in double quotes'}}",
            "body.1",
            id="no-json",
        ),
        pytest.param(
            "load_lora_adapter",
            {"lora_name": "x", "lora_path": "/missing/adapter"},
            404,
            "NotFoundError",
            "Loading lora x failed: No adapter found for /missing/adapter",
            None,
            id="path-that-is-shown",
        ),
        pytest.param(
            "completions",
            {"model": "x", "prompt": [1]},
            404,
            "NotFoundError",
            "The model `x` does not exist. Valid aliases: base.",
            "model",
            id="unknown-model",
        ),
        pytest.param(
            "completions",
            {"model": "base", "prompt": [1], "prompt_logprobs": 21},
            400,
            "BadRequestError",
            "Requested prompt logprobs of 21, which is greater than max allowed: 20 (parameter=prompt_logprobs, value=21)",
            "prompt_logprobs",
            id="too-many-figures",
        ),
        pytest.param(
            "completions",
            {"model": "base", "prompt": [512]},
            400,
            "BadRequestError",
            "Token id 512 is out of vocabulary",
            None,
            id="unknown-token",
        ),
        pytest.param(
            "completions",
            {"model": "base", "prompt": []},
            400,
            "BadRequestError",
            "You must pass at least one prompt",
            None,
            id="empty-prompt",
        ),
    ],
)
def test_vllm_0_32_refusals_have_recorded_forms(
    start: Start, route: str, fields: t.Any, status: int, kind: str, message: str, param: str | None
) -> None:
    answer = ask(start("vllm", "0.32.0"), f"POST /v1/{route}", fields)
    assert answer.json == {"error": {"message": message, "type": kind, "param": param, "code": status}}


def test_vllm_0_32_answers_have_recorded_keys(start: Start) -> None:
    engine = start("vllm", "0.32.0")
    answer = ask(engine, "POST /v1/completions", {"model": "base", "prompt": [1], "max_tokens": 1}).json
    assert {"ec_transfer_params", "kv_transfer_params", "metrics"} <= set(answer)
    assert set(answer["usage"]) == {
        "completion_tokens", "completion_tokens_details", "prompt_tokens", "prompt_tokens_details", "total_tokens"
    }  # fmt: skip
    [row] = ask(engine, "GET /v1/models").json["data"]
    [permission] = row["permission"]
    assert (permission["object"], permission["allow_sampling"]) == ("model_permission", True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"adapter_model.safetensors": None}, "<path> doesn't contain tensors"),
        ({"adapter_config.json": b"{ bad"}, "Expecting property name enclosed in double quotes: line 1 column 3 (char 2)"),
        ({"adapter_config.json": b'{"r": 128}'}, "LoRA rank 128 is greater than max_lora_rank 64."),
        ({"adapter_config.json": b'{"r": 8, "use_dora": true}'}, "vLLM does not yet support DoRA."),
        (
            {"adapter_model.safetensors": b'\x38\0\0\0\0\0\0\0{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}    '},
            "Error while deserializing header: incomplete metadata, file not fully covered",
        ),
    ],
)
def test_vllm_refuses_adapter_with_recorded_text(
    start: Start, release: Release, change: dict[str, bytes | None], reason: str
) -> None:
    engine = start("vllm", "0.32.0")
    for name, data in change.items():
        path = release(1) / name
        path.unlink() if data is None else path.write_bytes(data)
    message = f"Call to add_lora method failed: Worker failed with error '{reason}', please check the stack trace above for the"
    found = load(engine, "bad", release(1))
    assert (found.status, found.json["error"]["message"]) == (500, f"{message} root cause")
    assert [name for name, *_rest in roots(engine)] == ["base"]


def test_vllm_versions_differ_in_the_name_of_the_base(start: Start, base: pathlib.Path, release: Release) -> None:
    old, new = start("vllm", "0.29.0"), start("vllm", "0.32.0")
    assert load(old, "base", release(1)).status == 200
    assert roots(old) == [("base", str(base), None), ("base", str(release(1)), "base")]
    assert first(old, "base") == first(new, "base")
    conflict = load(new, "base", release(1))
    assert conflict.json["error"]["message"] == "The lora adapter 'base' conflicts with a served base model."


def test_vllm_0_14_ignores_load_inplace(start: Start, release: Release) -> None:
    engine = start("vllm", "0.14.1")
    load(engine, "a", release(1))
    refused = load(engine, "a", release(2), load_inplace=True)
    assert (refused.status, refused.json["error"]["message"]) == (400, "The lora adapter 'a' has already been loaded.")


def test_vllm_completion_has_recorded_keys(start: Start) -> None:
    engine = start("vllm", "0.32.0")
    body = {"model": "base", "prompt": [1, 2, 3], "max_tokens": 1, "prompt_logprobs": 1, "logprobs": 2}
    answer = ask(engine, "POST /v1/completions", body).json
    (choice,) = answer["choices"]
    assert {"index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs"} <= set(choice)
    assert (answer["object"], answer["model"]) == ("text_completion", "base")
    assert set(choice["logprobs"]) == {"text_offset", "token_logprobs", "tokens", "top_logprobs"}
    nothing, second, third = choice["prompt_logprobs"]
    assert nothing is None
    assert {"2"} <= set(second) and {"3"} <= set(third)
    assert set(second["2"]) == {"logprob", "rank", "decoded_token"}
    assert answer["usage"]["total_tokens"] == 4


# The way to a new release under the same name, and the versions that then answer from a mixture.
@pytest.mark.parametrize(
    ("version", "way", "stale"),
    [
        ("0.14.1", "unload, new path", True),
        ("0.29.0", "unload, new path", True),
        ("0.29.0", "in place, new path", True),
        ("0.29.0", "in place, same path", True),
        ("0.32.0", "unload, new path", False),
        ("0.32.0", "in place, new path", False),
        ("0.32.0", "in place, same path", True),
    ],
)
def test_vllm_reused_name_answers_as_recorded(start: Start, release: Release, version: str, way: str, stale: bool) -> None:
    engine = start("vllm", version)
    load(engine, "truth", release(2))
    old, new = release(1), first(engine, "truth")
    load(engine, "a", old)
    before = first(engine, "a")
    path = release(2)
    if way.endswith("same path"):
        for name, data in releases.content(2).items():
            (old / name).write_bytes(data)
        path = old
    if way.startswith("unload"):
        unload(engine, "a")
        assert load(engine, "a", path).status == 200
    else:
        assert load(engine, "a", path, load_inplace=True).status == 200
    assert (first(engine, "a") != new) is stale
    assert first(engine, "a") != before
    assert first(engine, "a", cache_salt="fresh") == new


def test_vllm_short_prompt_does_not_show_stale_cache(start: Start, release: Release) -> None:
    engine = start("vllm", "0.29.0")
    load(engine, "truth", release(2))
    load(engine, "a", release(1))
    first(engine, "a", prompt=LONG[:10])
    unload(engine, "a")
    load(engine, "a", release(2))
    assert first(engine, "a", prompt=LONG[:10]) == first(engine, "truth", prompt=LONG[:10])


@pytest.mark.parametrize(("inplace", "same"), [(False, True), (True, False)])
def test_vllm_answer_in_flight_keeps_its_weights_unless_loaded_in_place(
    start: Start, release: Release, inplace: bool, same: bool
) -> None:
    engine = start("vllm", "0.32.0")
    load(engine, "a", release(1))
    question = {"model": "a", "prompt": [1, 2, 3], "max_tokens": 6}
    alone = ask(engine, "POST /v1/completions", question).json["choices"][0]["text"]
    engine.fault("hold", on="answer", times=1)
    found: list[str] = []
    flight = threading.Thread(
        target=lambda: found.append(ask(engine, "POST /v1/completions", question).json["choices"][0]["text"])
    )
    flight.start()
    engine.wait_until_held()
    if inplace:
        load(engine, "a", release(2), load_inplace=True)
    else:
        unload(engine, "a")
    engine.release()
    flight.join()
    assert (found == [alone]) is same


def test_vllm_metrics_name_running_adapters_in_newest_row(start: Start, release: Release) -> None:
    engine = start("vllm", "0.32.0")
    load(engine, "a", release(1))

    def newest() -> str:
        lines = [line for line in ask(engine, "GET /metrics").text.splitlines() if line.startswith("vllm:lora_requests_info{")]
        labels: str = max(lines, key=lambda line: float(line.rpartition(" ")[2]))
        return labels.partition('running_lora_adapters="')[2].partition('"')[0]

    engine.fault("hold", on="answer", times=1)
    flight = threading.Thread(target=first, args=[engine, "a"])
    flight.start()
    engine.wait_until_held()
    assert newest() == "a"
    engine.release()
    flight.join()
    assert newest() == ""


def test_vllm_dies_when_an_evicted_release_is_gone(start: Start, release: Release) -> None:
    engine = start("vllm", "0.32.0", max_cpu_loras=1)
    load(engine, "a", release(1))
    load(engine, "b", release(2))
    for path in release(1).iterdir():
        path.unlink()
    assert first(engine, "b")
    dead = ask(engine, "POST /v1/completions", {"model": "a", "prompt": [1]})
    assert dead.status == 500
    assert ask(engine, "GET /health").status == 503
    assert engine.asked() == ["load a", "load b", "answer b", "answer a", "health"]
    assert [str(seen) for seen in engine.calls_after_death()] == ["answer a", "health"]


def test_vllm_restart_leaves_adapters_of_the_start(start: Start, release: Release, tmp_path: pathlib.Path) -> None:
    options = tmp_path / "options"
    engine = start("vllm", "0.32.0", start=str(options), api_key="secret")
    key = {"authorization": "Bearer secret"}
    body = {"lora_name": "b", "lora_path": str(release(2))}
    assert ask(engine, "POST /v1/load_lora_adapter", body) == (401, '{"error":"Unauthorized"}', "application/json")
    assert ask(engine, "POST /v1/load_lora_adapter", body, **key).status == 200
    form = json.dumps({"name": "a", "path": str(release(1)), "base_model_name": "base"})
    options.write_text(f"LORA_MODULES=--lora-modules '{form}'\n")
    subprocess.run(engine.restart_command, check=True)
    assert ask(engine, "GET /health").status == 200
    names = [row["id"] for row in ask(engine, "GET /v1/models", **key).json["data"]]
    assert names == ["base", "a"]


@pytest.mark.parametrize("wrong", [False, True])
def test_golden_is_answered_by_its_own_release_only(start: Start, base: pathlib.Path, release: Release, wrong: bool) -> None:
    engine = start("vllm", "0.32.0", max_logprobs=512)
    manifest = releases.manifest_of(1)
    golden = goldens.golden_of(manifest, release(2 if wrong else 1), base)
    assert golden.digest == manifest.digest
    load(engine, "a", release(1))
    found: dict[str, list[t.Any]] = {"on": [], "off": []}
    for key, model in (("on", "a"), ("off", "base")):
        for question in golden.questions:
            body = {"model": model, "prompt": question["ids"], "max_tokens": 1, "prompt_logprobs": 512}
            rows = ask(engine, "POST /v1/completions", body).json["choices"][0]["prompt_logprobs"][question["start"] :]
            found[key].append([[row[str(i)]["logprob"] for i in ids] for row, ids in zip(rows, question["tokens"])])
    distance = distances(golden.answer, found)
    assert distance.off < 1e-3
    assert bool(problems(distance, golden.permitted)) is wrong
    assert (distance.on < 1e-3) is not wrong


def test_faults_happen_to_matching_calls(start: Start, release: Release) -> None:
    engine = start("vllm", "0.32.0")
    engine.fault("status", on="load", name="*@*", times=1, status=500, body="flat")
    assert load(engine, "a", release(1)).status == 200
    assert load(engine, "a@1", release(1)) == (500, "flat", None)
    assert load(engine, "a@1", release(1)).status == 200
    engine.fault("unlisted", name="a")
    engine.fault("other root", name="a@1", directory="/elsewhere")
    assert [row[:2] for row in roots(engine)][1:] == [("a@1", "/elsewhere")]
    engine.heal()
    assert [name for name, *_rest in roots(engine)] == ["base", "a", "a@1"]


def test_fault_reset_after_the_work_leaves_it_done(start: Start, release: Release) -> None:
    engine = start("vllm", "0.32.0")
    engine.fault("reset", on="load", after=True, times=1)
    with pytest.raises(ConnectionResetError):
        load(engine, "a", release(1))
    assert [name for name, *_rest in roots(engine)] == ["base", "a"]


def test_fault_dies_resets_and_counts_later_calls(start: Start, release: Release) -> None:
    engine = start("vllm", "0.32.0")
    engine.fault("dies", on="answer")
    for _try in range(2):
        with pytest.raises(ConnectionResetError):
            first(engine, "base")
    assert len(engine.calls_after_death()) == 1
    engine.restart()
    assert first(engine, "base")


def test_fault_stops_refuses_later_connections(start: Start) -> None:
    engine = start("vllm", "0.32.0")
    engine.fault("stops", on="answer")
    with pytest.raises(ConnectionResetError):
        first(engine, "base")
    with pytest.raises(ConnectionRefusedError):
        ask(engine, "GET /health")
    engine.restart()
    assert ask(engine, "GET /health").status == 200


def test_faults_of_answers(start: Start, release: Release) -> None:
    engine = start("vllm", "0.32.0")
    load(engine, "truth", release(2))
    engine.fault("base answers", name="idle")
    engine.fault("other weights", name="mixed", directory=str(release(2)))
    load(engine, "idle", release(1))
    load(engine, "mixed", release(1))
    assert first(engine, "idle") == first(engine, "base")
    assert first(engine, "mixed") == first(engine, "truth")
    engine.fault("not finite", name="idle", spoils=True)
    question = {"model": "idle", "prompt": [1, 2], "max_tokens": 1}
    assert ask(engine, "POST /v1/completions", question).json["choices"][0]["text"] == ""
    spoiled = ask(engine, "POST /v1/completions", {**question, "model": "base", "logprobs": 1})
    assert (spoiled.status, spoiled.json["error"]["message"]) == (400, "Out of range float values are not JSON compliant")


# SGLang: by its source


def test_sglang_answers_have_forms_of_its_source(start: Start, release: Release) -> None:
    engine = start("sglang", "0.5.23")
    body = {"lora_name": "a", "lora_path": str(release(1))}
    loaded = ask(engine, "POST /load_lora_adapter", body)
    assert loaded.json == {"success": True, "error_message": None, "loaded_adapters": {"a": str(release(1))}}
    again = ask(engine, "POST /load_lora_adapter", body)
    assert (again.status, again.json["success"]) == (400, False)
    assert again.json["error_message"] == "Failed to load LoRA adapter a because it is already loaded"
    assert roots(engine) == [("base", "base", None), ("a", str(release(1)), "base")]
    question = {"input_ids": [1, 2, 3], "lora_path": "a", "sampling_params": {"max_new_tokens": 1}, "return_logprob": True}
    meta = ask(engine, "POST /generate", {**question, "logprob_start_len": 0}).json["meta_info"]
    assert [triple[1] for triple in meta["input_token_logprobs"]] == [1, 2, 3]
    assert meta["input_token_logprobs"][0][0] is None
    assert ask(engine, "POST /generate", {**question, "lora_path": "b"}).status == 400
    # A name that was loaded once is loaded again.
    assert ask(engine, "POST /unload_lora_adapter", {"lora_name": "a"}).json["success"] is True
    assert [name for name, *_rest in roots(engine)] == ["base"]
    assert ask(engine, "POST /generate", question).status == 200
    assert [name for name, *_rest in roots(engine)] == ["base", "a"]


def test_sglang_unload_waits_for_answer_in_flight(start: Start, release: Release) -> None:
    engine = start("sglang", "0.5.23")
    ask(engine, "POST /load_lora_adapter", {"lora_name": "a", "lora_path": str(release(1))})
    engine.fault("hold", on="answer", times=1)
    question = {"input_ids": [1], "lora_path": "a", "sampling_params": {"max_new_tokens": 1}}
    flight = threading.Thread(target=ask, args=[engine, "POST /generate", question])
    end = threading.Thread(target=ask, args=[engine, "POST /unload_lora_adapter", {"lora_name": "a"}])
    flight.start()
    engine.wait_until_held()
    end.start()
    while [name for name, *_rest in roots(engine)] != ["base"]:
        pass

    def of_unload() -> list[int | None]:
        return [seen.status for seen in engine.calls() if seen.kind == "unload"]

    assert of_unload() == [None]
    engine.release()
    flight.join()
    end.join()
    assert of_unload() == [200]


def test_sglang_incomplete_load_wants_an_unload_first(start: Start, release: Release) -> None:
    engine = start("sglang", "0.5.23")
    engine.fault("incomplete", on="load", times=1)
    body = {"lora_name": "a", "lora_path": str(release(1))}
    assert ask(engine, "POST /load_lora_adapter", body).status == 400
    refused = ask(engine, "POST /load_lora_adapter", body).json["error_message"]
    assert refused == "LoRA adapter 'a' has an incomplete unload. Retry the unload before loading it again."
    assert ask(engine, "POST /unload_lora_adapter", body).status == 200
    assert ask(engine, "POST /load_lora_adapter", body).status == 200


# mistral.rs: the core recorded, the HTTP layer by its source


def test_mistralrs_answers_have_recorded_codes(start: Start, release: Release, tmp_path: pathlib.Path) -> None:
    engine = start("mistralrs", "0.9.5", adapter_root=str(tmp_path / "releases"))
    one, two = (mistralrs.generation_of(release(version)) for version in (1, 2))
    loaded = load(engine, "a", release(1))
    size = (release(1) / releases.WEIGHTS).stat().st_size
    common = {"id": "a", "object": "lora_adapter", "source": str(release(1))}
    assert loaded.json == {**common, "generation": one, "rank": 16, "bytes": size}

    def refusal(path: pathlib.Path, **fields: t.Any) -> tuple[int, str]:
        found = load(engine, fields.pop("name", "a"), path, **fields)
        return found.status, found.json["error"]["code"]

    assert refusal(release(2)) == (409, "lora_adapter_already_loaded")
    assert refusal(release(2), expected_generation=one) == (400, "invalid_lora_load_policy")
    assert refusal(release(2), expected_generation="1", load_inplace=True) == (422, "invalid_request_body")
    assert refusal(release(2), expected_generation=two, load_inplace=True) == (409, "lora_generation_mismatch")
    assert refusal(release(2), name="b", expected_generation=two, load_inplace=True) == (404, "lora_adapter_not_found")
    assert refusal(release(2), unknown=1) == (422, "invalid_request_body")
    assert refusal(tmp_path) == (403, "adapter_path_forbidden")
    assert refusal(release(2).with_name("absent")) == (404, "adapter_path_not_found")
    assert load(engine, "a", release(2), expected_generation=one, load_inplace=True).json["generation"] == two
    listed = ask(engine, "GET /v1/lora_adapters").json
    assert [(row["id"], row["generation"]) for row in listed["data"]] == [("a", two)]
    assert (listed["resident_generations"], listed["retired_generations"]) == (1, 0)
    rows = ask(engine, "GET /v1/models").json["data"]
    assert (rows[-1]["id"], rows[-1]["root"], rows[-1]["parent"]) == ("base::a", "a", "base")
    assert unload(engine, "b").json["error"]["code"] == "lora_adapter_not_found"
    assert unload(engine, "a").json["generation"] == two


def test_mistralrs_generation_has_recorded_formula(tmp_path: pathlib.Path) -> None:
    # Of an adapter_config.json "{}" and an adapter_model.safetensors "x", worked out apart from it.
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_text("x")
    command = (
        r"""cd "$0"; h() { sha256sum "$1" | cut -c1-64 | xxd -r -p; };"""
        r""" { printf 'mistral.rs dynamic LoRA generation v2\0config\0'; h adapter_config.json; printf '\0weights\0';"""
        r""" h adapter_model.safetensors; } | sha256sum | cut -c1-64"""
    )
    done = subprocess.run(["bash", "-c", command, str(tmp_path)], capture_output=True, text=True, check=True)
    assert mistralrs.generation_of(tmp_path) == done.stdout.strip()


def test_mistralrs_loads_one_at_a_time(start: Start, release: Release) -> None:
    engine = start("mistralrs", "0.9.5")
    engine.fault("hold", on="load", times=1)
    flight = threading.Thread(target=load, args=[engine, "a", release(1)])
    flight.start()
    engine.wait_until_held()
    busy = load(engine, "b", release(2))
    assert (busy.status, busy.json["error"]["code"]) == (429, "lora_load_busy")
    engine.release()
    flight.join()
    assert load(engine, "b", release(2)).status == 200


def test_mistralrs_answer_in_flight_keeps_its_generation(start: Start, release: Release) -> None:
    engine = start("mistralrs", "0.9.5")
    load(engine, "a", release(1))
    question = {"model": "a", "prompt": "t1 t2", "max_tokens": 4, "logprobs": 2}
    alone = ask(engine, "POST /v1/completions", question).json
    engine.fault("hold", on="answer", times=1)
    found: list[t.Any] = []
    flight = threading.Thread(target=lambda: found.append(ask(engine, "POST /v1/completions", question).json))
    flight.start()
    engine.wait_until_held()
    load(engine, "a", release(2), load_inplace=True)
    retired = [one for one in ask(engine, "GET /v1/lora_adapters").json["generations"] if one["retired"]]
    assert [(one["generation"], one["active_leases"]) for one in retired] == [(alone["adapter_generation"], 1)]
    engine.release()
    flight.join()
    assert found[0]["choices"] == alone["choices"]
    assert ask(engine, "GET /v1/lora_adapters").json["retired_generations"] == 0
    assert ask(engine, "POST /v1/completions", question).json["choices"] != alone["choices"]


# llama-server


@pytest.fixture
def gguf(release: Release, tmp_path: pathlib.Path) -> t.Callable[[int], pathlib.Path]:
    def convert(version: int) -> pathlib.Path:
        path = tmp_path / f"{version}.gguf"
        command = [*running.CONVERT, str(release(version)), str(path)]
        subprocess.run(command, check=True)
        return path

    return convert


def test_llama_server_scales_as_recorded(start: Start, gguf: Release, tmp_path: pathlib.Path) -> None:
    (tmp_path / "options").write_text(f"--lora {gguf(1)} --lora-scaled {gguf(2)}:0.5")
    engine = start("llama_server", start=str(tmp_path / "options"))

    def scales() -> list[float]:
        return [row["scale"] for row in ask(engine, "GET /lora-adapters").json]

    def figures(**fields: t.Any) -> t.Any:
        body = {"prompt": LONG, "n_predict": 1, "n_probs": 4, **fields}
        return ask(engine, "POST /completion", body).json["completion_probabilities"][0]["top_logprobs"]

    assert [row["path"] for row in ask(engine, "GET /lora-adapters").json] == [str(gguf(1)), str(gguf(2))]
    assert scales() == [1.0, 0.5]
    assert ask(engine, "POST /lora-adapters", [{"id": 0, "scale": 1.0}]).json == {"success": True}
    assert scales() == [1.0, 0.0]
    one = figures(cache_prompt=False)
    assert figures(cache_prompt=False, lora=[]) == one
    two = figures(cache_prompt=False, lora=[{"id": 1, "scale": 1}])
    # The cache of the slot is dropped by a list of its own only.
    assert figures(lora=[{"id": 0, "scale": 1}]) == one
    ask(engine, "POST /lora-adapters", [{"id": 0, "scale": 0}, {"id": 1, "scale": 1}])
    assert figures() not in (one, two)
    assert figures(cache_prompt=False) == two
    assert ask(engine, "POST /lora-adapters", [{"id": 7, "scale": 1}]).json == {"success": True}
    assert scales() == [0.0, 0.0]
    assert ask(engine, "POST /lora-adapters", {}).json["error"]["message"] == "Request body must be an array"
    assert ask(engine, "POST /models/load", {"model": "x"}) == (
        404,
        '{"error":{"message":"File Not Found","type":"not_found_error","code":404}}',
        "application/json",
    )


def test_llama_server_router_loads_sections_as_recorded(start: Start, gguf: Release, tmp_path: pathlib.Path) -> None:
    preset = tmp_path / "preset.ini"
    preset.write_text(f"[base]\nmodel = base.gguf\n\n[a@1]\nmodel = base.gguf\nlora = {gguf(1)}\n")
    engine = start("llama_server", preset=str(preset))

    def states(query: str = "") -> dict[str, t.Any]:
        return {row["id"]: row["status"] for row in ask(engine, f"GET /v1/models{query}").json["data"]}

    def model(action: str, name: str) -> Asked:
        return ask(engine, f"POST /models/{action}", {"model": name})

    assert states() == {"base": {"value": "unloaded"}, "a@1": {"value": "unloaded"}}
    assert model("load", "a@1").json == {"success": True}
    assert model("load", "a@1").json["error"]["message"] == "model is already running"
    preset.write_text(f"{preset.read_text()}[a@2]\nlora = {tmp_path}/absent\n")
    assert model("load", "a@2").status == 404
    assert states("?reload=1")["a@2"] == {"value": "unloaded"}
    assert model("load", "a@2").json == {"success": True}
    assert states()["a@2"] == {"value": "unloaded", "failed": True, "exit_code": 1}
    unloaded = ask(engine, "POST /completion", {"model": "base", "prompt": [1]})
    assert (unloaded.status, unloaded.json["error"]["message"]) == (400, "model is not loaded")
    assert ask(engine, "POST /completion", {"model": "a@1", "prompt": [1], "n_predict": 1}).status == 200
    assert model("unload", "a@1").status == 200


def test_restarted_server_serves_adapters_of_its_start(start: Start, release: Release, tmp_path: pathlib.Path) -> None:
    options = tmp_path / "options"
    engine = start("lmdeploy", start=str(options))
    assert ask(engine, "POST /v1/load_lora_adapter", {}).status == 404
    options.write_text(f"LORA_ADAPTERS=a={release(1)}")
    subprocess.run(engine.restart_command, check=True)
    assert [row["id"] for row in ask(engine, "GET /v1/models").json["data"]] == ["base", "a"]


def test_every_vllm_version_starts(start: Start) -> None:
    for version in vllm.VERSIONS:
        assert ask(start("vllm", version), "GET /version").json == {"version": version}
