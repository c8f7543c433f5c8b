# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vocabulary of a tokenizer against that of the model."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.vocabulary import (
    Vocabulary,
    read_vocabulary,
    vocabulary_problems,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats.tensor_scan import TensorScan

from tests.support.describing import Declare

# The tiny base has 512 tokens, and its tokenizer uses all of them.
EXTRA = {512: "<|im_start|>", 513: "<|im_end|>"}


def add_tokens(adapter: pathlib.Path, tokens: dict[int, str] | None = None) -> dict[str, str]:
    path = adapter / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] += [{"id": number, "content": text} for number, text in (EXTRA if tokens is None else tokens).items()]
    path.write_text(json.dumps(content), encoding="utf-8")
    return {name: str(adapter / name) for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")}


def check(
    adapter: pathlib.Path, declare: Declare, paths: dict[str, str], tensors: t.Sequence[TensorScan] = (), **row: t.Any
) -> tuple[list[str], list[str]]:
    problems, notes = vocabulary_problems(read_vocabulary(paths["tokenizer.json"]), paths, tensors, declare(**row))
    return [str(problem) for problem in problems], notes


def test_vocabulary_of_the_base_fits(adapter: pathlib.Path, declare: Declare, tiny: pathlib.Path) -> None:
    paths = add_tokens(adapter, {})
    assert check(adapter, declare, paths) == check(adapter, declare, paths, base_path=str(tiny / "base")) == ([], [])


def test_vocabulary_with_tokens_that_base_lacks_is_rejected(adapter: pathlib.Path, declare: Declare, tiny: pathlib.Path) -> None:
    [message], notes = check(adapter, declare, add_tokens(adapter), base_path=str(tiny / "base"))
    assert 'has 2 tokens beyond the vocabulary of the model, which has 512: 512 ("<|im_start|>"), 513' in message
    assert notes == []


def test_vocabulary_with_tokens_of_the_bases_own_tokenizer_is_accepted(
    adapter: pathlib.Path, declare: Declare, tmp_path: pathlib.Path
) -> None:
    paths = add_tokens(adapter)
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer.json").symlink_to(paths["tokenizer.json"])
    assert check(adapter, declare, paths, base_path=str(base)) == ([], [])


def test_vocabulary_unused_token_of_unknown_base_is_a_note(adapter: pathlib.Path, declare: Declare) -> None:
    problems, [note] = check(adapter, declare, add_tokens(adapter, {512: "<image_soft_token>"}))
    assert problems == []
    assert note.startswith("tokenizer.json has 1 token beyond the vocabulary of the model")


@pytest.mark.parametrize("place", ["eos_token", "template", "template in settings"])
def test_vocabulary_used_token_of_unknown_base_is_rejected(adapter: pathlib.Path, declare: Declare, place: str) -> None:
    paths = add_tokens(adapter)
    settings = adapter / "tokenizer_config.json"
    if place == "template":
        (adapter / "chat_template.jinja").write_text("{{ '<|im_end|>' }}", encoding="utf-8")
    else:
        key, value = ("eos_token", {"content": "<|im_end|>"}) if place == "eos_token" else ("chat_template", "<|im_start|>")
        settings.write_text(json.dumps({**json.loads(settings.read_text(encoding="utf-8")), key: value}), encoding="utf-8")
    [_message], _notes = check(adapter, declare, paths)


def test_vocabulary_with_saved_embeddings_fits(adapter: pathlib.Path, declare: Declare, tiny: pathlib.Path) -> None:
    tensor = TensorScan("base_model.model.lm_head.weight", "F32", (514, 64), "", True, False, None)
    assert check(adapter, declare, add_tokens(adapter), [tensor], base_path=str(tiny / "base")) == ([], [])


def test_vocabulary_of_unknown_model_is_not_compared(adapter: pathlib.Path, declare: Declare) -> None:
    assert check(adapter, declare, add_tokens(adapter), base_config=None) == ([], [])
    assert check(adapter, declare, add_tokens(adapter), base_config={"vocab_size": None}) == ([], [])
    [_message], _notes = check(
        adapter, declare, add_tokens(adapter, {600: "</s>"}), base_config={"text_config": {"vocab_size": 512}}
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"model": {"vocab": {"a": 0, "b": 7}}, "added_tokens": [{"id": 9, "content": "x"}]}, Vocabulary(7, {9: "x"})),
        # A Unigram model has a list.
        ({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}, Vocabulary(1, {})),
        ({"model": {"vocab": {}}, "added_tokens": None}, Vocabulary(-1, {})),
        ({}, None),
        ([], None),
        ({"model": {"vocab": {"a": "0"}}}, None),
        ({"model": {"vocab": {}}, "added_tokens": [{"id": "9", "content": "x"}]}, None),
    ],
)
def test_read_vocabulary_forms(tmp_path: pathlib.Path, content: t.Any, expected: Vocabulary | None) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    found = read_vocabulary(str(path))
    assert found == expected
    assert Vocabulary.from_json(json.loads(json.dumps(found and found.to_json()))) == expected


def test_vocabulary_huge_ids_are_listed_up_to_a_limit() -> None:
    assert len(Vocabulary(1 << 62, {}).beyond(10)) == 1000
