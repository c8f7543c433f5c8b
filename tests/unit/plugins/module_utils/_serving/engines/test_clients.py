# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contract of an engine's client, with every client and a fake of its engine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shlex
import shutil
import threading
import types
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import declared_engines
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.calls import Calls
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.contract import (
    PROVES_BYTES,
    PROVES_NAME,
    PROVES_NOTHING,
    PROVES_PATH,
    Busy,
    Dead,
    NotFinite,
    Question,
    Refused,
    ServingEngine,
    Unanswered,
    Unauthorized,
    Unsupported,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines import llama_router, mistralrs
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.engines.table import client_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.http import Client

from tests.support import releases
from tests.support.fake_engine import model as fake_model
from tests.support.fake_engine.running import CONVERT, FakeEngine

NAME = releases.NAME
PROMPT = [3, 14, 15, 92]
ANSWER = [65, 35, 89]
QUESTIONS = [Question((*PROMPT, *ANSWER[:place]), token) for place, token in enumerate(ANSWER)]
LONG = [(7 * place) % 500 for place in range(40)]


class Case(t.NamedTuple):
    """An engine, its fake, and what the two of them can do."""

    engine: str
    personality: str
    version: str
    proves: str
    settings: t.Mapping[str, t.Any] = types.MappingProxyType({})
    declared: t.Mapping[str, t.Any] = types.MappingProxyType({})
    switches: bool = True
    restarts: bool = False
    figures: bool = True
    # Whether it says so when no answer is being generated.
    tells_idle: bool = True

    @property
    def lists(self) -> bool:
        return self.proves != PROVES_NOTHING


CASES = {
    "vllm 0.14": Case("vllm", "vllm", "0.14.1", PROVES_PATH, switches=False),
    "vllm 0.29": Case("vllm", "vllm", "0.29.0", PROVES_PATH, switches=False),
    "vllm 0.32": Case("vllm", "vllm", "0.32.0", PROVES_PATH),
    "sglang": Case("sglang", "sglang", "0.5.23", PROVES_PATH),
    "mistralrs": Case("mistralrs", "mistralrs", "0.9.5", PROVES_BYTES),
    "llama_server": Case(
        "llama-server", "llama_server", "", PROVES_PATH, {"prefix_caching": False}, restarts=True, tells_idle=False
    ),
    "llama_router": Case("llama-server", "llama_server", "", PROVES_NAME, declared={"preset": ""}, switches=False),
    "lmdeploy": Case("lmdeploy", "lmdeploy", "", PROVES_NAME, restarts=True, figures=False, tells_idle=False),
    "tgi": Case("tgi", "tgi", "3.3.7", PROVES_NOTHING, restarts=True, tells_idle=False),
    "own": Case("own", "own", "", PROVES_NAME, restarts=True, tells_idle=False),
    "own without a list": Case(
        "own",
        "own",
        "",
        PROVES_NOTHING,
        {"lists_adapters": False, "ready": "/up"},
        {"lists_adapters": False, "ready": "/up"},
        restarts=True,
        tells_idle=False,
    ),
    "own without figures": Case(
        "own", "own", "", PROVES_NAME, {"max_logprobs": 0}, restarts=True, figures=False, tells_idle=False
    ),
}


def cases(chosen: t.Callable[[Case], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [name for name, case in CASES.items() if chosen(case)])


every_client = cases(lambda case: True)
listing_client = cases(lambda case: case.lists)
runtime_client = cases(lambda case: not case.restarts)
telling_client = cases(lambda case: case.figures)


@dataclasses.dataclass
class Site:
    """A node with a fake engine, a client of it, and a store with releases."""

    root: pathlib.Path
    case: Case
    fake: FakeEngine
    client: ServingEngine
    options: pathlib.Path

    def directory(self, version: int) -> str:
        path = self.root / "store" / NAME / "releases" / releases.release_of(version)
        if not path.exists():
            releases.write_version(path, version)
        return str(path)

    def name(self, version: int) -> str:
        """Return a name for a release: a public one where the engine has no other."""
        return NAME if self.case.restarts else f"{NAME}@{releases.release_of(version)}"

    def bring(self, version: int, name: str | None = None) -> str:
        """Bring a release into the engine, in the way of this engine."""
        name = name or self.name(version)
        if self.case.restarts:
            self.restart([(name, self.directory(version))])
        else:
            self.client.load(name, self.directory(version))
        return name

    def restart(self, rows: list[tuple[str, str]]) -> None:
        self.client.prepare(rows)
        self.write_options(rows)
        self.client.restart(rows)

    def write_options(self, rows: list[tuple[str, str]]) -> None:
        options = " ".join(self.client.start_options(rows))
        self.options.write_text(f"LORAFLEET_OPTIONS={shlex.quote(options)}\n")

    def truth(self, version: int | None, ids: list[int]) -> list[float]:
        """Return the log-probabilities of all tokens after these, by a release or the base."""
        weights = fake_model.NONE if version is None else fake_model.weights_in(self.directory(version))
        engine = fake_model.Model(self.root / "base")
        return engine.next_token(ids, [weights] * len(ids))

    def answers(self, model: str | None) -> int | None:
        """Return the release that a name answers from, None for the base."""
        (row,) = self.client.log_probabilities(model, QUESTIONS[:1])
        # vLLM tells the likeliest tokens, others that of the answer.
        truths = {version: self.truth(version, PROMPT) for version in (None, 1, 2)}
        found = [version for version, truth in truths.items() if all(abs(row[one] - truth[one]) < 1e-9 for one in row)]
        assert row and len(found) == 1, row
        return found[0]


@pytest.fixture
def site_of(tmp_path: pathlib.Path, fake_engine: t.Callable[..., FakeEngine]) -> t.Callable[..., Site]:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    vocabulary = {f"\u0120t{number}": number for number in range(512)}
    tokenizer = {"model": {"type": "BPE", "vocab": vocabulary}, "decoder": {"type": "ByteLevel"}, "added_tokens": []}
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))

    def start(case: Case, declared: t.Mapping[str, t.Any] = types.MappingProxyType({}), **settings: t.Any) -> Site:
        options = tmp_path / "options"
        more = {**case.settings, **settings}
        stated = {**case.declared, **declared}
        if case.personality == "mistralrs":
            more["base_name"] = str(base)
        if "preset" in stated:
            stated["preset"] = more["preset"] = str(tmp_path / "preset.ini")
            (tmp_path / "preset.ini").write_text("; of the site\n\n[base]\nmodel = base.gguf\nctx-size = 512\n")
        fake = fake_engine(case.personality, base, case.version, start=str(options), **more)
        if "preset" in stated:
            # The site starts the base.
            site_engine = Client(fake.url, "secret")
            assert site_engine.post("/models/load", {"model": "base"}).status == 200
        form = {"name": case.engine, "url": fake.url, "restart": fake.restart_command, "convert": CONVERT, "start_timeout": 30}
        (one,) = declared_engines([{**form, **stated}], "engines")
        return Site(tmp_path, case, fake, client_of(one), options)

    return start


@pytest.fixture
def site(case: str, site_of: t.Callable[..., Site]) -> Site:
    return site_of(CASES[case])


Sites = t.Callable[..., Site]


@every_client
def test_client_state_names_version_and_base(site: Site) -> None:
    state = site.client.state()
    base = str(site.root / "base")
    assert state.version == (site.case.version or None)
    assert state.base == (base if site.case.engine in ("mistralrs", "tgi") else "base")
    known = {
        "vllm": base,
        "sglang": base,
        "mistralrs": base,
        "tgi": base,
        "llama-server": "base.gguf" if site.case.declared else base,
    }
    assert state.root == known.get(site.case.engine)
    assert state.warnings == () or site.case.version < "0.26"
    assert (site.client.proves, site.client.restarts) == (site.case.proves, site.case.restarts)


@cases(lambda case: not case.lists)
def test_client_of_engine_without_list_names_nothing(site: Site) -> None:
    site.bring(1)
    assert site.client.listed() == []


@listing_client
def test_client_list_has_what_was_brought(site: Site) -> None:
    assert site.client.listed() == []
    name = site.bring(1)
    (row,) = site.client.listed()
    assert row.name == name
    assert row.root == (None if site.case.engine in ("lmdeploy", "own") else site.directory(1))
    assert row.parent == ("base" if site.case.engine in ("vllm", "sglang") else None)
    assert row.generation == site.client.expected_generation(site.directory(1))
    assert (row.generation is not None) is (site.case.proves == PROVES_BYTES)


@telling_client
def test_client_replays_answer_of_adapter_and_base(site: Site) -> None:
    name = site.bring(1)
    tokens = [[1, 2], list(range(300, 400)), []]
    for model, version in ((name, 1), (None, None)):
        asked = [one._replace(others=tuple(others)) for one, others in zip(QUESTIONS, tokens)]
        rows = Calls(site.client, 30).replay(model, asked)
        assert len(rows) == len(asked)
        for place, row in enumerate(rows):
            truth = site.truth(version, [*PROMPT, *ANSWER[:place]])
            assert row == pytest.approx({token: truth[token] for token in row}, abs=1e-9)
            wanted = {ANSWER[place], *tokens[place]}
            if site.case.engine == "vllm":
                # It tells the likeliest tokens only, and all of them where none are wanted.
                likeliest = set(sorted(range(len(truth)), key=truth.__getitem__)[-20:])
                assert set(row) == (wanted & likeliest if tokens[place] else likeliest)
            elif site.case.engine == "tgi":
                likeliest = set(sorted(range(len(truth)), key=truth.__getitem__)[-5:])
                assert set(row) == (wanted & likeliest if tokens[place] else likeliest)
            elif site.case.engine == "own":
                assert set(row) == {ANSWER[place]}
            else:
                assert set(row) == wanted


@cases(lambda case: case.engine == "vllm")
def test_client_of_vllm_asks_for_figures_as_users_do(site: Site) -> None:
    """A busy engine bears the requests that its users send."""
    site.client.log_probabilities(site.bring(1), QUESTIONS)
    (body,) = [json.loads(seen.body) for seen in site.fake.calls() if seen.route == "POST /v1/completions"]
    assert body["prompt"] == [[*PROMPT, *ANSWER[:place]] for place in range(len(ANSWER))]
    assert (body["max_tokens"], "prompt_logprobs" in body, "echo" in body) == (1, False, False)
    # A cache that no other request has.
    assert body["cache_salt"]


@telling_client
def test_client_first_token_is_that_of_users(site: Site) -> None:
    name = site.bring(1)
    for model, version in ((name, 1), (None, None)):
        plain = site.client.first_token(model, LONG, None)
        if site.case.engine == "own":
            with pytest.raises(Unsupported):
                site.client.first_token(model, LONG, "salt")
        else:
            assert site.client.first_token(model, LONG, "salt") == plain
        assert max(plain.values()) == pytest.approx(max(site.truth(version, LONG)), abs=1e-9)
        assert len(plain) >= 5


@cases(lambda case: case.engine == "tgi")
def test_client_of_tgi_asked_for_unknown_name_gets_the_answer_of_the_base(site: Site) -> None:
    site.bring(1)
    assert site.answers("absent") is None


@cases(lambda case: case.figures and case.engine != "tgi")
def test_client_asked_for_unknown_name_is_refused(site: Site) -> None:
    site.bring(1)
    with pytest.raises(Refused):
        site.client.log_probabilities("absent", QUESTIONS[:1])
    with pytest.raises(Refused):
        site.client.first_token("absent", PROMPT, None)


@runtime_client
def test_client_load_of_missing_release_is_refused(site: Site) -> None:
    with pytest.raises(Refused) as raised:
        site.client.load("absent", str(site.root / "store" / NAME / "releases" / ("0" * 12)))
    assert "\n" not in raised.value.message
    assert site.client.listed() == []


@runtime_client
def test_client_load_of_listed_name_is_refused(site: Site) -> None:
    name = site.bring(1)
    with pytest.raises(Refused):
        site.client.load(name, site.directory(2))
    assert site.answers(name) == 1


@runtime_client
def test_client_unload_removes_name_only_once(site: Site) -> None:
    name = site.bring(1)
    site.client.unload(name)
    assert site.client.listed() == []
    with pytest.raises(Refused):
        site.client.unload(name)


@cases(lambda case: case.switches and not case.restarts)
def test_client_switch_answers_from_new_release(site: Site) -> None:
    assert site.client.state() and site.client.why_not_switch() is None
    site.bring(1, "truth")
    site.client.switch(NAME, site.directory(2))
    site.client.first_token(NAME, LONG, None)
    site.client.switch(NAME, site.directory(1))
    assert site.answers(NAME) == 1
    # Users get no answer from the cache of the other release.
    assert site.client.first_token(NAME, LONG, None) == site.client.first_token("truth", LONG, None)


@cases(lambda case: not case.switches)
def test_client_of_engine_that_mixes_releases_says_why_not_to_switch(site: Site) -> None:
    site.client.state()
    why = site.client.why_not_switch()
    assert why is not None and why.endswith(".")


@cases(lambda case: case.restarts)
def test_client_of_engine_without_loading_does_not_pretend_to_load(site: Site) -> None:
    for call in (site.client.load, site.client.switch):
        with pytest.raises(Unsupported):
            call(NAME, site.directory(1))
    with pytest.raises(Unsupported):
        site.client.unload(NAME)
    assert "POST /lora-adapters" not in {seen.route for seen in site.fake.calls()}


@cases(lambda case: case.restarts)
def test_client_restart_replaces_release(site: Site) -> None:
    site.bring(1)
    site.bring(2)
    assert [row.name for row in site.client.listed()] == ([NAME] if site.case.lists else [])
    if site.case.figures:
        assert site.answers(NAME) == 2
        assert site.answers(None) is None


@cases(lambda case: not case.figures)
def test_client_without_figures_says_so(site: Site) -> None:
    name = site.bring(1)
    with pytest.raises(Unsupported):
        site.client.log_probabilities(name, QUESTIONS[:1])
    with pytest.raises(Unsupported):
        site.client.first_token(name, PROMPT, None)


@cases(lambda case: "preset" not in case.declared and case.lists)
def test_client_options_bring_adapters_back_after_restart(site: Site) -> None:
    name = site.bring(1)
    rows = [(name, site.directory(1))]
    site.write_options(rows)
    site.fake.restart()
    assert [row.name for row in site.client.listed()] == [name]
    site.write_options([])
    site.fake.restart()
    assert site.client.listed() == []


@every_client
def test_client_of_dead_engine_raises_dead(site: Site) -> None:
    site.fake.fault("dies")
    with pytest.raises(Dead):
        site.client.state()
    if site.case.lists:
        with pytest.raises(Dead):
            site.client.listed()


@every_client
def test_client_of_stopped_engine_raises_dead(site: Site) -> None:
    site.fake.fault("stops", on="health")
    for _time in range(2):
        with pytest.raises(Dead):
            site.client.state()


@listing_client
def test_client_of_engine_without_answer_raises_unanswered(site: Site) -> None:
    site.fake.fault("hold", on="list")
    t.cast(t.Any, site.client)._client.timeout = 0.2
    with pytest.raises(Unanswered):
        site.client.listed()


@listing_client
@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthorized), (403, Unauthorized), (429, Busy), (503, Dead), (404, Refused)]
)
def test_client_understands_status(site: Site, status: int, error: type[Exception]) -> None:
    site.fake.fault("status", on="list", status=status, body="flat")
    with pytest.raises(error):
        site.client.listed()


@every_client
@pytest.mark.parametrize("body", [[], "text", {"data": 1}, {"data": [1], "generations": []}, {"object": "list"}])
def test_client_of_another_server_raises_nothing_else(site: Site, body: t.Any) -> None:
    site.fake.fault("status", on="*", status=200, body=body)
    for call in (site.client.state, site.client.listed, site.client.capacity):
        with contextlib.suppress(Refused, NotFinite):
            call()


@telling_client
def test_client_of_adapter_that_is_not_finite_raises_not_finite(site: Site) -> None:
    name = site.bring(1)
    site.fake.fault("not finite", on="*")
    with pytest.raises(NotFinite):
        site.client.log_probabilities(name, QUESTIONS[:1])
    with pytest.raises(NotFinite):
        site.client.first_token(name, PROMPT, None)


@every_client
def test_client_waits_until_idle(site: Site) -> None:
    name = site.bring(1)
    assert site.client.wait_until_idle(name, 0) is site.case.tells_idle


@cases(lambda case: case.engine in ("vllm", "mistralrs") or "preset" in case.declared)
def test_client_waits_for_answer_in_flight(site: Site) -> None:
    name = site.bring(1)
    site.client.state()
    site.fake.fault("hold", on="answer", times=1)
    flight = threading.Thread(target=site.client.first_token, args=[name, PROMPT, None])
    flight.start()
    site.fake.wait_until_held()
    assert not site.client.wait_until_idle(name, 0)
    site.fake.release()
    flight.join()
    assert site.client.wait_until_idle(name, 30)


@cases(lambda case: case.engine in ("vllm", "sglang", "llama-server"))
def test_client_sends_key_of_file(case: str, site_of: Sites, tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    site = site_of(CASES[case], {"api_key_file": str(tmp_path / "key")}, api_key="secret")
    assert site.client.listed() == []
    with pytest.raises(Unauthorized):
        site_of(CASES[case], api_key="secret").client.listed()


# SGLang


def test_sglang_salt_is_a_key_of_its_cache(site_of: Sites) -> None:
    site = site_of(CASES["sglang"])
    for salt in (None, "one"):
        site.client.first_token(None, PROMPT, salt)
        assert json.loads(site.fake.calls()[-1].body).get("extra_key") == salt


def test_sglang_half_loaded_adapter_is_unloaded_first(site_of: Sites) -> None:
    site = site_of(CASES["sglang"])
    site.fake.fault("incomplete", on="load", times=1)
    with pytest.raises(Refused):
        site.bring(1)
    name = site.bring(1)
    assert site.answers(name) == 1
    assert [str(seen) for seen in site.fake.calls() if seen.kind in ("load", "unload")] == [
        *[f"load {name}"] * 2,
        f"unload {name}",
        f"load {name}",
    ]


# Text Generation Inference


def test_tgi_whose_text_has_other_tokens_cannot_be_asked(site_of: Sites) -> None:
    site = site_of(CASES["tgi"], begin=1)
    name = site.bring(1)
    with pytest.raises(Unsupported, match="reads this one as other tokens"):
        site.client.first_token(name, PROMPT, None)


@pytest.mark.parametrize("directory", ["/store/a,b", "/store/a@b", "/store/a=b", "/store/a b"])
def test_tgi_cannot_be_given_a_directory_that_it_reads_otherwise(site_of: Sites, directory: str) -> None:
    with pytest.raises(Refused, match="as a separator"):
        site_of(CASES["tgi"]).client.start_options([(NAME, directory)])


def test_tgi_does_not_read_its_prefix_cache_for_figures(site_of: Sites) -> None:
    site = site_of(CASES["tgi"])
    for salt in (None, "salt"):
        site.client.first_token(None, PROMPT, salt)
        parameters = json.loads(site.fake.calls()[-1].body)["parameters"]
        assert parameters.get("decoder_input_details", False) is (salt is not None)


# A server of one's own


@pytest.mark.parametrize("settings", [{"echo": False}, {"max_logprobs": 0}])
def test_own_server_without_echo_or_figures_cannot_be_asked(site_of: Sites, settings: dict[str, t.Any]) -> None:
    site = site_of(CASES["own"], **settings)
    name = site.bring(1)
    with pytest.raises(Unsupported, match="with echo"):
        site.client.log_probabilities(name, QUESTIONS)


def test_own_server_without_completions_cannot_be_asked(site_of: Sites) -> None:
    site = site_of(CASES["own"])
    site.fake.fault("status", on="answer", status=404, body={"error": "no such route"})
    with pytest.raises(Unsupported, match="has no /v1/completions for a probe: no such route"):
        site.client.log_probabilities(None, QUESTIONS)


def test_own_server_without_list_is_asked_for_its_stated_base(site_of: Sites) -> None:
    site = site_of(CASES["own without a list"], {"base": "base"})
    site.bring(1)
    site.fake.fault("status", on="list", status=404, body="no such route")
    assert site.client.state().base == "base"
    assert site.answers(None) is None


def test_own_server_with_list_must_have_one(site_of: Sites) -> None:
    site = site_of(CASES["own"])
    site.fake.fault("status", on="list", status=404, body="no such route")
    with pytest.raises(Refused, match="has no list of models"):
        site.client.state()


def test_own_server_that_is_not_ready_at_its_path_is_refused(site_of: Sites) -> None:
    site = site_of(CASES["own"], {"ready": "/elsewhere"})
    with pytest.raises(Refused, match="has no /elsewhere"):
        site.client.state()


# mistral.rs


def test_mistralrs_release_with_other_bytes_is_refused(site_of: Sites) -> None:
    site = site_of(CASES["mistralrs"])
    site.client.state()
    right = site.directory(1)
    site.fake.fault("status", on="load", status=200, body={"id": "a", "generation": "0" * 64})
    with pytest.raises(Refused, match="other bytes"):
        site.client.load("a", right)


def test_mistralrs_switch_of_name_that_somebody_else_switches_is_refused(site_of: Sites) -> None:
    site = site_of(CASES["mistralrs"])
    site.bring(1, NAME)
    site.fake.fault("other root", name=NAME, directory=site.directory(2))
    with pytest.raises(Refused, match="expected generation"):
        site.client.switch(NAME, site.directory(2))
    assert site.answers(NAME) == 1


def test_mistralrs_path_outside_its_root_is_refused_with_its_reason(site_of: Sites, tmp_path: pathlib.Path) -> None:
    site = site_of(CASES["mistralrs"], adapter_root=str(tmp_path / "base"))
    with pytest.raises(Refused, match="outside the configured LoRA adapter root") as raised:
        site.bring(1)
    assert not isinstance(raised.value, Unauthorized)


def test_mistralrs_busy_with_another_load_asks_to_come_back(site_of: Sites) -> None:
    site = site_of(CASES["mistralrs"])
    site.fake.fault("hold", on="load", times=1)
    flight = threading.Thread(target=site.bring, args=[1])
    flight.start()
    site.fake.wait_until_held()
    with pytest.raises(Busy) as raised:
        site.bring(2)
    assert raised.value.seconds == 1
    site.fake.release()
    flight.join()


def test_mistralrs_of_unknown_formula_falls_back_on_answers(site_of: Sites) -> None:
    site = site_of(CASES["mistralrs"]._replace(version="1.0.0"))
    site.client.state()
    name = site.bring(1)
    (row,) = site.client.listed()
    assert row.generation != mistralrs.generation_of(site.directory(1))
    assert site.client.expected_generation(site.directory(1)) is None
    assert site.answers(name) == 1


def test_mistralrs_of_unknown_version_with_known_formula_proves_bytes(site_of: Sites) -> None:
    site = site_of(CASES["mistralrs"]._replace(version="0.9.9"))
    site.bring(1)
    (row,) = site.client.listed()
    assert row.generation == site.client.expected_generation(site.directory(1))


def test_mistralrs_gets_prompt_without_the_token_that_it_adds(site_of: Sites, tmp_path: pathlib.Path) -> None:
    site = site_of(CASES["mistralrs"], begin=PROMPT[0])
    path = tmp_path / "base" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}]}
    tokenizer["added_tokens"] = [{"id": PROMPT[0], "content": "<s>", "special": True}]
    path.write_text(json.dumps({**tokenizer, "post_processor": {"type": "Sequence", "processors": [template]}}))
    name = site.bring(1)
    assert site.answers(name) == 1
    # Without that token, the prompt is another one to the engine.
    with pytest.raises(Unsupported, match="reads this one as other tokens"):
        site.client.first_token(name, PROMPT[1:], None)


def test_mistralrs_answer_without_generation_is_refused(site_of: Sites) -> None:
    site = site_of(CASES["mistralrs"])
    name = site.bring(1)
    site.fake.fault("status", on="answer", status=200, body={"usage": {"prompt_tokens": len(PROMPT)}})
    with pytest.raises(Refused, match="without an adapter"):
        site.client.first_token(name, PROMPT, None)


def test_mistralrs_without_tokenizer_cannot_be_asked(site_of: Sites, tmp_path: pathlib.Path) -> None:
    site = site_of(CASES["mistralrs"])
    (tmp_path / "base" / "tokenizer.json").unlink()
    name = site.bring(1)
    with pytest.raises(Unsupported, match="takes prompts as text only"):
        site.client.first_token(name, PROMPT, None)


# llama-server


def test_llama_server_that_caches_prompts_is_not_restarted(site_of: Sites) -> None:
    site = site_of(CASES["llama_server"], prefix_caching=True)
    (warning,) = site.client.state().warnings
    assert "--no-cache-prompt" in warning
    with pytest.raises(Refused) as raised:
        site.bring(1)
    assert "--no-cache-prompt" in raised.value.remedy
    assert site.client.listed() == []


def test_llama_server_with_several_adapters_switches_none_on_for_all(site_of: Sites) -> None:
    site = site_of(CASES["llama_server"])
    other = site.root / "store" / "other_lora" / "releases" / releases.release_of(2)
    releases.write_version(other, 2)
    site.restart([(NAME, site.directory(1)), ("other_lora", str(other))])
    assert [row.name for row in site.client.listed()] == [NAME, "other_lora"]
    assert [site.answers(name) for name in (NAME, "other_lora", None)] == [1, 2, None]
    scales = [json.loads(seen.answer) for seen in site.fake.calls() if seen.kind == "list"][-1]
    assert [row["scale"] for row in scales] == [0.0, 0.0]


def test_llama_server_names_every_number_in_each_request(site_of: Sites) -> None:
    site = site_of(CASES["llama_server"])
    site.bring(1)
    site.client.first_token(None, PROMPT, None)
    assert json.loads(site.fake.calls()[-1].body)["lora"] == [{"id": 0, "scale": 0}]


def test_llama_server_converts_release_once(site_of: Sites, tmp_path: pathlib.Path) -> None:
    site = site_of(CASES["llama_server"])
    site.bring(1)
    (file,) = (tmp_path / "store" / ".serving" / "converted").iterdir()
    assert file.name == f"{NAME}@{releases.release_of(1)}.gguf"
    before = file.stat()
    site.bring(1)
    assert (file.stat().st_ino, file.stat().st_mode & 0o777) == (before.st_ino, 0o644)


def test_llama_server_forgets_files_of_releases_that_are_gone(site_of: Sites, tmp_path: pathlib.Path) -> None:
    site = site_of(CASES["llama_server"])
    site.bring(1)
    (tmp_path / "store" / ".serving" / "converted" / f"{NAME}@{releases.release_of(2)}.gguf.new").write_text("of a killed run")
    shutil.rmtree(site.directory(1))
    site.bring(2)
    (file,) = (tmp_path / "store" / ".serving" / "converted").iterdir()
    assert file.name == f"{NAME}@{releases.release_of(2)}.gguf"


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (["/bin/false"], "/bin/false ended with 1"),
        (["/bin/true"], "No such file or directory"),
        (["/nonexistent"], "does not run"),
        (["/bin/sh", "-c", "echo text > $1"], "no GGUF file"),
        (["/bin/sh", "-c", "echo reason >&2; exit 3"], "ended with 3: reason"),
        (["/bin/sh", "-c", "sleep 60"], "did not end within"),
    ],
)
def test_llama_server_failing_conversion_is_refused(site_of: Sites, convert: list[str], message: str) -> None:
    changed = {"convert": convert, "start_timeout": 0.2} if "sleep 60" in convert else {"convert": convert}
    site = site_of(CASES["llama_server"], changed)
    with pytest.raises(Refused, match=message):
        site.bring(1)
    assert site.client.listed() == []


def test_llama_server_that_is_a_router_names_the_setting(site_of: Sites, tmp_path: pathlib.Path) -> None:
    (tmp_path / "preset.ini").write_text("[base]\nmodel = base.gguf\n")
    site = site_of(CASES["llama_server"], preset=str(tmp_path / "preset.ini"))
    with pytest.raises(Refused, match="as a router") as raised:
        site.client.listed()
    assert "preset" in raised.value.remedy


def test_llama_router_that_is_none_names_the_setting(site_of: Sites) -> None:
    router = site_of(CASES["llama_router"])
    plain = site_of(CASES["llama_server"])
    router.client._client = plain.client._client  # type: ignore[attr-defined]
    with pytest.raises(Refused, match="is no router"):
        router.client.listed()


@cases(lambda case: case.restarts)
def test_client_with_failing_restart_command_is_refused(case: str, site_of: Sites) -> None:
    site = site_of(CASES[case], {"restart": ["/bin/sh", "-c", "echo no such unit; exit 5"]})
    with pytest.raises(Refused, match="ended with 5: no such unit"):
        site.bring(1)


def test_llama_router_keeps_what_the_site_has_in_its_file(site_of: Sites, tmp_path: pathlib.Path) -> None:
    site = site_of(CASES["llama_router"])
    before = (tmp_path / "preset.ini").read_text()
    name = site.bring(1)
    text = (tmp_path / "preset.ini").read_text()
    file = tmp_path / "store" / ".serving" / "converted" / f"{name}.gguf"
    assert text == f"{before}\n[{name}]\nmodel = base.gguf\nctx-size = 512\nlora = {file}\n"
    site.client.unload(name)
    assert (tmp_path / "preset.ini").read_text() == before


def test_llama_router_without_slots_gives_answers_the_whole_time(site_of: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_of(CASES["llama_router"])
    name = site.bring(1)
    site.fake.fault("status", on="metrics", status=501, body={"error": {"message": "no slots"}})
    waits = [0.0]
    clock = types.SimpleNamespace(monotonic=lambda: sum(waits), sleep=waits.append)
    monkeypatch.setattr(llama_router, "time", clock)
    assert not site.client.wait_until_idle(name, 60)
    assert waits == [0, 60]


def test_llama_router_names_process_that_does_not_start(site_of: Sites, tmp_path: pathlib.Path) -> None:
    site = site_of(CASES["llama_router"], {"convert": ["/bin/sh", "-c", "printf GGUF > $1"]})
    with pytest.raises(Refused, match="its process ended with 1"):
        site.bring(1)
    assert site.answers(None) is None


def test_llama_router_needs_one_base(site_of: Sites, tmp_path: pathlib.Path) -> None:
    site = site_of(CASES["llama_router"])
    with (tmp_path / "preset.ini").open("a") as stream:
        stream.write("[second]\nmodel = other.gguf\n")
    with pytest.raises(Refused, match="2 sections without an adapter"):
        site.client.state()
