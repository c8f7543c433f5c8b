# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.contract import Unsupported
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.prompt_text import Texts

# "Ġ" is a space, "Ċ" a line feed, "Ã©" the bytes of "é".
PLAIN: dict[str, t.Any] = {
    "model": {"type": "BPE", "vocab": {"Hi": 0, "\u0120there": 1, "\u010a": 2, "\u00c3": 3, "\u00a9": 4}},
    "decoder": {"type": "ByteLevel"},
    "added_tokens": [{"id": 5, "content": "<|im_start|>"}],
}


def texts(directory: pathlib.Path, **changes: t.Any) -> Texts:
    (directory / "tokenizer.json").write_text(json.dumps({**PLAIN, **changes}))
    return Texts(str(directory))


def test_texts_of_byte_level_tokens(tmp_path: pathlib.Path) -> None:
    found = texts(tmp_path)
    assert found.of([5, 0, 1, 2, 3, 4]) == "<|im_start|>Hi there\n\u00e9"
    assert found.size == 6


def test_texts_of_the_tiny_base_are_read_back_by_its_tokenizer(tiny: pathlib.Path) -> None:
    vocabulary = json.loads((tiny / "base" / "tokenizer.json").read_text())["model"]["vocab"]
    found = Texts(str(tiny / "base"))
    # A word of the text that the tokenizer was trained on, and its space.
    assert found.of([vocabulary["d"], vocabulary["e"], vocabulary["f"], vocabulary["\u0120"]]) == "def "


@pytest.mark.parametrize("ids", [[6], [3], [-1]])
def test_texts_of_tokens_that_are_no_text_are_unsupported(tmp_path: pathlib.Path, ids: list[int]) -> None:
    with pytest.raises(Unsupported, match="these tokens are no text"):
        texts(tmp_path).of(ids)


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder": {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}]}},
        {"decoder": None},
        {"model": {"vocab": [["a", 0.0]]}},
        {"model": {"vocab": {"\u4e2d": 0}}},
        {"added_tokens": [{"id": 5}]},
    ],
)
def test_texts_of_another_tokenizer_are_unsupported(tmp_path: pathlib.Path, changes: dict[str, t.Any]) -> None:
    with pytest.raises(Unsupported, match="has another form"):
        texts(tmp_path, **changes)


@pytest.mark.parametrize("base", [None, "org/base"])
def test_texts_of_base_that_is_not_on_this_host_are_unsupported(base: str | None) -> None:
    with pytest.raises(Unsupported, match="is not known"):
        Texts(base)


@pytest.mark.parametrize("post", [None, {"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": []}, 1])
def test_texts_without_a_token_before_a_text_are_whole(tmp_path: pathlib.Path, post: t.Any) -> None:
    assert texts(tmp_path, post_processor=post).of([5, 0]) == "<|im_start|>Hi"


def test_texts_leave_out_only_the_token_that_is_added(tmp_path: pathlib.Path) -> None:
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|im_start|>"}}, {"Sequence": {"id": "A"}}]}
    found = texts(tmp_path, post_processor=template)
    assert found.of([5, 0]) == "Hi"
    assert found.of([5, 5, 0]) == "<|im_start|>Hi"
    assert found.of([0]) == "Hi"
