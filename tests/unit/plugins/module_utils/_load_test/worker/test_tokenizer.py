# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loading tokenizers in the PEFT interpreter, as an engine would."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import WorkerRun, run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Target

from tests.support import tiny_adapters

Edit = t.Callable[[pathlib.Path], t.Any]
TEKKEN = {
    "config": {
        "pattern": "[a-z]+",
        "num_vocab_tokens": 1,
        "default_vocab_size": 512,
        "default_num_special_tokens": 2,
        "version": "v3",
    },
    "vocab": [{"rank": 0, "token_bytes": "YQ==", "token_str": "a"}],
}


def settings(**keys: t.Any) -> Edit:
    def edit(adapter: pathlib.Path) -> None:
        path = adapter / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **keys}), encoding="utf-8")

    return edit


def put(name: str, text: str) -> Edit:
    def edit(adapter: pathlib.Path) -> None:
        (adapter / name).parent.mkdir(exist_ok=True)
        (adapter / name).write_text(text, encoding="utf-8")

    return edit


def tekken(adapter: pathlib.Path) -> None:
    (adapter / "tokenizer.json").unlink()
    put("tekken.json", json.dumps(TEKKEN))(adapter)


def vocab_and_merges(adapter: pathlib.Path) -> None:
    model = json.loads((adapter / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (adapter / "tokenizer.json").unlink()
    put("vocab.json", json.dumps(model["vocab"]))(adapter)
    put("merges.txt", "\n".join(pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]))(adapter)
    settings(tokenizer_class="GPT2Tokenizer")(adapter)


# What is done to an adapter, and words of the failure, or of a check or note.
FAILURES: dict[str, tuple[Edit, str]] = {
    "special token that does not exist": (
        settings(eos_token="<|im_end|>"),  # noqa: S106
        "eos_token '<|im_end|>' has id 512, beyond the vocabulary of the model, which has 512",
    ),
    "tokenizer.json of another form": (put("tokenizer.json", "{}"), "its tokenizer cannot be loaded: KeyError"),
    "template with an error": (put("chat_template.jinja", "{% for %}"), "its chat template does not compile"),
    "further template with an error": (
        put("additional_chat_templates/tool_use.jinja", "{{ tools "),
        "its chat template tool_use does not compile",
    ),
}
PASSES: dict[str, tuple[Edit, str]] = {
    "as saved": (lambda _adapter: None, "transformers loads its tokenizer without code from it: 512 tokens"),
    "two templates": (
        put("additional_chat_templates/tool_use.jinja", "{{ tools }}"),
        "2 chat templates compile in the sandbox of transformers",
    ),
    "vocab and merges": (vocab_and_merges, "transformers loads its tokenizer without code from it"),
    "without settings": (
        lambda adapter: (adapter / "tokenizer_config.json").unlink(),
        "Its tokenizer is incomplete (chat_template.jinja, tokenizer.json)",
    ),
    "package missing": (tekken, "Its tokenizer was not loaded, because python lacks a package"),
}


@pytest.fixture(scope="module")
def loaded(tiny: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> WorkerRun:
    """The load test of all of them at level adapter, in one process."""
    work = tmp_path_factory.mktemp("tokenizers")
    config = json.loads((tiny / "base" / "config.json").read_text(encoding="utf-8"))
    targets = []
    for number, (name, (edit, _words)) in enumerate({**FAILURES, **PASSES}.items()):
        adapter = work / str(number)
        shutil.copytree(tiny / "adapter", adapter)
        edit(adapter)
        targets.append(Target(name, str(adapter), "adapter_model.safetensors", "adapter", config, None, False))
    outcome = run_worker(tiny_adapters.PEFT_PYTHON, "cpu", targets, 300, str(work))
    assert outcome.problems == ()
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILURES)
def test_check_tokenizer_unusable_tokenizer_fails(loaded: WorkerRun, name: str) -> None:
    report = loaded.reports[name]
    [failure] = report.failures
    assert FAILURES[name][1] in failure.problem
    assert failure.remedy
    assert not report.passed


@pytest.mark.slow
@pytest.mark.parametrize("name", PASSES)
def test_check_tokenizer_usable_or_incomplete_tokenizer_passes(loaded: WorkerRun, name: str) -> None:
    report = loaded.reports[name]
    assert (report.passed, report.failures) == (True, [])
    assert any(PASSES[name][1] in line for line in (*report.result.checks, *report.result.notes))
