# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Strict JSON: nothing that readers understand differently gets through."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._strict_json import MAX_CONFIG, parse_object, read_object


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not valid JSON"),
        (b'{"r": 16', "not valid JSON"),
        (b'{"r": 16} x', "not valid JSON"),
        (b"[]", "list, expected an object"),
        (b"null", "expected an object"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"r": 8, "r": 16}', "the key 'r' twice"),
        (b'{"a": {"r": 8, "r": 16}}', "the key 'r' twice"),
        (b'{"alpha": NaN}', "NaN"),
        (b'{"alpha": -Infinity}', "-Infinity"),
        (b'{"alpha": 1e999}', "too large"),
        (b'{"r": 99999999999999999999999999999999999999999}', "too large"),
        (b'{"a": ["\\ud800"]}', "not valid JSON"),
        (b'{"a": ' + b"[" * 100_000, "not valid JSON"),
    ],
)
def test_refused(text: bytes, words: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        parse_object(text, "file.json", "Do this.")
    assert words in str(caught.value)
    assert str(caught.value).startswith("file.json: ")
    assert str(caught.value).endswith(" Do this.")


@pytest.mark.parametrize("number", [b"-1", b"-0", b"1.0", b"1e2"])
def test_only_naturals_where_asked_for(number: bytes) -> None:
    text = b'{"n": [%s]}' % number
    parse_object(text, "file.json", "")
    with pytest.raises(DeliveryError, match=r"only 0, 1, 2 \.\.\. are allowed"):
        parse_object(text, "file.json", "", naturals_only=True)


def test_files(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b'{"a": "' + b"x" * (MAX_CONFIG - 9) + b'"}')
    assert len(read_object(str(path), "")["a"]) == MAX_CONFIG - 9
    path.write_bytes(b'{"a": "' + b"x" * (MAX_CONFIG - 8) + b'"}')
    with pytest.raises(DeliveryError, match=f"larger than {MAX_CONFIG} bytes"):
        read_object(str(path), "")
    path.unlink()
    with pytest.raises(DeliveryError, match="cannot be read"):
        read_object(str(path), "")
