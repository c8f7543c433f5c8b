# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tokenizer of an adapter: no code, no huge template."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.tokenizer import (
    MAX_TEMPLATE,
    read_tokenizer,
    tokenizer_problems,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

NAMES = ("tokenizer_config.json", "chat_template.jinja")
HUGE = "x" * MAX_TEMPLATE + "ä"


def messages(adapter: pathlib.Path, names: t.Collection[str] = NAMES) -> list[str]:
    problems = tokenizer_problems({name: str(adapter / name) for name in names}, "adapter")
    assert all(problem.remedy and len(str(problem)) < 1000 for problem in problems)
    return list(map(str, problems))


def change(adapter: pathlib.Path, **keys: t.Any) -> None:
    path = adapter / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **keys}), encoding="utf-8")


def test_tokenizer_saved_by_transformers_is_accepted(adapter: pathlib.Path) -> None:
    assert messages(adapter) == []
    assert messages(adapter, ()) == []
    change(adapter, auto_map=None, trust_remote_code=False, chat_template="{{ x }}", added_tokens_decoder={"x": "y" * 2_000_000})
    (adapter / "chat_template.jinja").write_text("x" * MAX_TEMPLATE, encoding="utf-8")
    assert messages(adapter) == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}, 'has auto_map = {"AutoTokenizer": ["evil.Tokenizer", null]}'),
        ({"trust_remote_code": True}, "has trust_remote_code = true, which can make transformers load code"),
        (
            {"chat_template": HUGE},
            f"chat_template in tokenizer_config.json: has {MAX_TEMPLATE + 2} bytes; a chat template may ",
        ),
        ({"chat_template": [{"name": "a", "template": "b"}, {"name": "c", "template": HUGE}]}, f"has {MAX_TEMPLATE + 2} bytes"),
    ],
)
def test_tokenizer_with_code_or_huge_template_is_rejected(adapter: pathlib.Path, keys: dict[str, t.Any], words: str) -> None:
    change(adapter, **keys)
    (message,) = messages(adapter)
    assert message.startswith("adapter adapter, ")
    assert words in message


def test_tokenizer_huge_template_file_is_rejected(adapter: pathlib.Path) -> None:
    (adapter / "chat_template.jinja").write_text(HUGE, encoding="utf-8")
    (message,) = messages(adapter)
    assert f"chat_template.jinja: has {MAX_TEMPLATE + 2} bytes" in message


def test_tokenizer_config_with_duplicate_key_is_rejected(adapter: pathlib.Path) -> None:
    (adapter / "tokenizer_config.json").write_text('{"a": 1, "a": 2}', encoding="utf-8")
    (message,) = messages(adapter)
    assert 'has the key "a" twice' in message


@pytest.mark.parametrize("name", ["tokenizer.json", "special_tokens_map.json", "vocab.json", "added_tokens.json", "tekken.json"])
def test_read_tokenizer_file_that_is_not_json_is_rejected(adapter: pathlib.Path, name: str) -> None:
    (adapter / name).write_text('{"a": ', encoding="utf-8")
    (adapter / "merges.txt").write_text("not JSON", encoding="utf-8")
    with pytest.raises(DeliveryError, match=f"{name}: is not valid JSON") as caught:
        read_tokenizer({name: str(adapter / name), "merges.txt": str(adapter / "merges.txt")}, "adapter")
    assert [problem.adapter for problem in caught.value.problems] == ["adapter"]


def test_read_tokenizer_returns_vocabulary(adapter: pathlib.Path) -> None:
    vocabulary = read_tokenizer({name: str(adapter / name) for name in ("tokenizer.json", "tokenizer_config.json")}, "adapter")
    assert vocabulary is not None
    assert (vocabulary.highest, vocabulary.added) == (511, {0: "<s>", 1: "</s>"})


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_tokenizer_processor_with_code_is_rejected(adapter: pathlib.Path, name: str) -> None:
    (adapter / name).write_text('{"auto_map": {"AutoProcessor": "evil.P"}}', encoding="utf-8")
    (message,) = messages(adapter, (name,))
    assert f"{name}: has auto_map" in message


def test_tokenizer_template_of_the_directory_has_a_limit(adapter: pathlib.Path) -> None:
    name = "additional_chat_templates/tool_use.jinja"
    (adapter / name).parent.mkdir()
    (adapter / name).write_text(HUGE, encoding="utf-8")
    (message,) = messages(adapter, (name,))
    assert f"{name}: has {MAX_TEMPLATE + 2} bytes" in message
