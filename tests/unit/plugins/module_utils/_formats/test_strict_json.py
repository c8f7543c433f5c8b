# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Strict JSON: nothing that readers interpret differently is accepted."""

from __future__ import annotations

import json
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats.strict_json import (
    MAX_CONFIG,
    is_integer,
    parse_object,
    read_object,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not valid JSON"),
        (b'{"r": 16', "not valid JSON"),
        (b'{"r": 16} x', "not valid JSON"),
        (b"[]", "list; expected an object"),
        (b"null", "expected an object"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"r": 8, "r": 16}', 'the key "r" twice'),
        (b'{"a": {"r": 8, "r": 16}}', 'the key "r" twice'),
        (b'{"alpha": NaN}', "NaN"),
        (b'{"alpha": -Infinity}', "-Infinity"),
        (b'{"alpha": 1e999}', "too large"),
        (b'{"r": 99999999999999999999999999999999999999999}', "too large"),
        (b'{"a": ["\\ud800"]}', "not valid JSON"),
        (b'{"a": ' + b"[" * 100_000, "not valid JSON"),
    ],
)
def test_parse_object_invalid_text_is_rejected(text: bytes, words: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        parse_object(text, "file.json", "Do this.")
    assert words in str(caught.value)
    assert str(caught.value).startswith("file.json: ")
    assert str(caught.value).endswith(" Do this.")


def test_parse_object_negative_zero_is_no_integer() -> None:
    assert parse_object(b'{"n": [0, -1, 1.5]}', "file.json", "") == {"n": [0, -1, 1.5]}
    assert not is_integer(parse_object(b'{"n": -0}', "file.json", "")["n"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:6b9e\nsize 1049\n",
            "is a Git LFS pointer, not the file itself",
        ),
        (b"\n<!DOCTYPE html>\n<html>", "is an HTML page"),
    ],
)
def test_parse_object_of_another_kind_names_it_and_its_remedy(text: bytes, words: str) -> None:
    with pytest.raises(DeliveryError, match=words) as caught:
        parse_object(text, "file.json", "Do this.")
    assert "Do this." not in str(caught.value)


PIECES = [
    b"", b" ", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b'"a"', b'"b":', b"0", b"-1", b"1.5", b"1e400", b"9" * 50, b"NaN",
    b"-Infinity", b"null", b"true", b'"\\ud800"', b"\xff", b"\xef\xbb\xbf", b"\x00", b'{"a":1,"a":1}', b"\xc3\xa9", b"/*",
]  # fmt: skip


@st.composite
def damaged_texts(draw: st.DrawFn) -> bytes:
    """A JSON object with some spans replaced."""
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    keys = st.text(max_size=2)
    value = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
    text = json.dumps(draw(st.dictionaries(keys, value, max_size=4)), ensure_ascii=draw(st.booleans()))
    data = text.encode("utf-8", "surrogatepass")
    for _cut in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 5)))
        data = data[:start] + draw(st.sampled_from(PIECES)) + data[end:]
    return data


@pytest.mark.fuzz
@given(data=damaged_texts())
def test_parse_object_accepted_text_is_unambiguous(data: bytes) -> None:
    try:
        found = parse_object(data, "file.json", "Do this.")
    except DeliveryError:
        return
    assert found == json.loads(data)
    # All readers agree about it: every key occurs once, and all numbers are finite.
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_read_object_size_limit_and_missing_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b'{"a": "' + b"x" * (MAX_CONFIG - 9) + b'"}')
    assert len(read_object(str(path), "")["a"]) == MAX_CONFIG - 9
    path.write_bytes(b'{"a": "' + b"x" * (MAX_CONFIG - 8) + b'"}')
    with pytest.raises(DeliveryError, match=f"larger than {MAX_CONFIG} bytes"):
        read_object(str(path), "")
    path.unlink()
    with pytest.raises(DeliveryError, match="cannot be read"):
        read_object(str(path), "")
