# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that become part of a path."""

from __future__ import annotations

import os
import string

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._names import check_name, check_path, is_release_name
from hypothesis import given
from hypothesis import strategies as st

SAFE = string.ascii_letters + string.digits + "._-"

HOSTILE = [
    "",
    ".",
    "..",
    "../etc",
    "/etc",
    "a/b",
    "a/",
    "a//b",
    "a\\b",
    ".hidden",
    "-rf",
    "--delete",
    "_leading",
    "name.",
    "name..",
    "name\n",
    "\nname",
    "na\nme",
    "na\rme",
    "na\0me",
    "na me",
    " name",
    "name ",
    "na\tme",
    "~",
    "~root",
    "*",
    "na?me",
    "na[me]",
    "$HOME",
    "$(id)",
    "`id`",
    "na;me",
    "na|me",
    "na&me",
    "na'me",
    'na"me',
    "host:name",
    "user@host",
    "{{ name }}",
    "%n",
    "name\u2024",  # one dot leader
    "na\u2215me",  # division slash
    "na\u2044me",  # fraction slash
    "n\u0430me",  # Cyrillic a
    "name\u200b",  # zero width space
    "na\u0301me",  # combining accent
    "\uff0e\uff0e",  # full-width dots
    "\u0661\u0662",  # digits for str.isdigit()
    "\udcff",  # what os.listdir returns for a byte that is not UTF-8
    "a" * 129,
]


@pytest.mark.parametrize("name", [*HOSTILE, None, 7, 1.5, True, b"name", ["name"], {"name": 1}], ids=ascii)
def test_check_name_hostile_name_is_rejected(name: object) -> None:
    with pytest.raises(DeliveryError) as caught:
        check_name(name)
    # The message must stay on one line, whatever the name is.
    assert str(caught.value).isprintable()
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["llama32_3b_grammar_lora", "a", "7", "A-b.c_d", "adapter_model.safetensors", "a..b", "a-", "a_", "CON", "a" * 128],
)
def test_check_name_usual_name_is_accepted(name: str) -> None:
    assert check_name(name) == name


def test_check_name_error_has_kind_of_name() -> None:
    with pytest.raises(DeliveryError, match=r"^file '\.\./x': is not a valid name"):
        check_name("../x", "file")


@given(st.text() | st.text(SAFE, max_size=130) | st.text(SAFE + "/\n ", max_size=8))
def test_check_name_accepted_name_is_one_safe_component(name: str) -> None:
    try:
        check_name(name)
    except DeliveryError:
        return
    assert os.path.split(os.path.normpath(os.path.join("/models", name))) == ("/models", name)
    assert set(name) <= set(SAFE)
    assert name[0] not in "-._"
    assert not name.endswith(".")
    assert 1 <= len(name) <= 128


@given(st.text(SAFE, max_size=126), st.sampled_from(string.ascii_letters + string.digits))
def test_check_name_plain_name_is_accepted(middle: str, end: str) -> None:
    assert check_name(end + middle + end) == end + middle + end


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0123456789ab", True),
        ("0123456789a", False),
        ("0123456789abc", False),
        ("0123456789AB", False),
        ("0123456789ag", False),
        ("0123456789ab\n", False),
        ("", False),
        ("..", False),
    ],
)
def test_is_release_name(name: str, expected: bool) -> None:
    assert is_release_name(name) is expected


def test_check_path_relative_path_of_safe_names_is_accepted() -> None:
    assert check_path("tokenizer.json") == "tokenizer.json"
    assert check_path("additional_chat_templates/tool_use.jinja") == "additional_chat_templates/tool_use.jinja"
    assert check_path("runs/a/checkpoint-10", "directory", depth=3) == "runs/a/checkpoint-10"


@pytest.mark.parametrize("path", ["a/b/c", "/a", "a/", "a//b", "../a", "a/..", "a/.b", "a/-b", "a\0/b", None, ["a"], ""])
def test_check_path_hostile_path_is_rejected(path: object) -> None:
    with pytest.raises(DeliveryError, match="is not a valid name"):
        check_path(path)
