# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The safetensors reader: it names the damage, and is never laxer than the official library."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
import pickle
import struct
import typing as t

import numpy as np
import pytest
import safetensors
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats import safetensors as reader
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats.tensor_scan import scan
from hypothesis import given
from hypothesis import strategies as st

from tests.support.safetensors_files import build, entry

NESTED: list[t.Any] = functools.reduce(lambda inner, _level: [inner], range(130), [])


def officially(content: bytes) -> dict[str, tuple[str, tuple[int, ...], str]] | None:
    try:
        found = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError:
        return None
    return {name: (info["dtype"], tuple(info["shape"]), hashlib.sha256(info["data"]).hexdigest()) for name, info in found}


def ours(path: pathlib.Path) -> dict[str, tuple[str, tuple[int, ...], str]] | None:
    try:
        tensors = scan(str(path)).tensors
    except DeliveryError as exc:
        assert exc.problems
        return None
    return {info.name: (info.dtype, info.shape, info.sha256) for info in tensors}


@pytest.fixture
def weights(adapter: pathlib.Path) -> pathlib.Path:
    return adapter / "adapter_model.safetensors"


def read_header(path: pathlib.Path) -> reader.Header:
    with reader.open_header(str(path)) as (_prefix, header, _stream):
        return header


def error_of(path: pathlib.Path) -> str:
    """The message with which both ways to read it reject the file."""
    with pytest.raises(DeliveryError) as by_header:
        read_header(path)
    with pytest.raises(DeliveryError) as by_scan:
        scan(str(path))
    message = str(by_header.value)
    assert message == str(by_scan.value)
    assert str(path) in message
    assert len(message) < 1000
    assert "\n" not in message
    return message


def test_scan_real_file_agrees_with_official_library(weights: pathlib.Path) -> None:
    content = weights.read_bytes()
    result = scan(str(weights))
    assert ours(weights) == officially(content)
    assert len(result.tensors) == 28
    assert [info.name for info in result.tensors] == sorted(info.name for info in result.tensors)
    assert (result.size, result.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert result.metadata == {"format": "pt"}
    assert all(info.finite and not info.zero for info in result.tensors)
    once = scan(str(weights), tensor_digests=False)
    assert (once.size, once.sha256) == (result.size, result.sha256)
    assert once.tensors == tuple(dataclasses.replace(info, sha256="", norm=None) for info in result.tensors)
    header = read_header(weights)
    scanned = {(info.name, info.dtype, info.shape) for info in result.tensors}
    assert {(info.name, info.dtype, info.shape) for info in header.tensors} == scanned


def test_scan_file_without_tensors_is_accepted(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(build({}))
    assert officially(build({})) == ours(path) == {}
    assert scan(str(path)).size == len(build({}))


@pytest.mark.parametrize("dtype", sorted(reader._BITS))
def test_scan_dtype_sizes_agree_with_official_library(tmp_path: pathlib.Path, dtype: str) -> None:
    path = tmp_path / "adapter_model.safetensors"
    # Eight values fill whole bytes, however few bits each has.
    data = bytes(range(reader._BITS[dtype]))
    path.write_bytes(build({"a": entry(dtype, [8], [0, len(data)])}, data))
    assert ours(path) == officially(path.read_bytes())
    assert ours(path)


@pytest.mark.parametrize(
    "header",
    [
        {"__metadata__": None, "a": entry()},
        {"a": {**entry(), "quantization": {"scale": -1.5, "axis": [0, None, "x"]}}},
        b" \t\r\n" + json.dumps({"a": entry()}).encode() + b"\n",
    ],
    ids=["metadata null", "further key", "white space"],
)
def test_scan_unusual_header_is_read_like_official_library(tmp_path: pathlib.Path, header: t.Any) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(build(header, bytes(8)))
    assert ours(path) == officially(path.read_bytes())
    assert ours(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: b"", "is empty"),
        (lambda content: content[:5], "is truncated: it has 5 bytes"),
        (lambda content: content[:1000], "is truncated within its header"),
        (lambda content: content[: len(content) // 2], "is truncated by"),
        (lambda content: content[:-1], "is truncated by 1 byte:"),
        (lambda content: content + b"\0", "is too long by 1 byte:"),
        (lambda content: bytes(len(content)), "is filled with zeros"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 97307544\n", "Git LFS pointer"),
        (lambda content: b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page"),
        (lambda content: b"<html>" + bytes(20), "an HTML page"),
        (lambda content: pickle.dumps({"lora_A": [1.0]}, protocol=2), "is a pickle"),
        (lambda content: pickle.dumps({"lora_A": [1.0]}, protocol=5), "is a pickle"),
        (lambda content: b"PK\x03\x04" + bytes(100), "is a zip archive"),
        (lambda content: b'{"error": "not found"}', "is not a safetensors file"),
        (lambda content: struct.pack("<Q", (1 << 24) + 1) + bytes(1 << 25), "at most 16777216 are accepted"),
        (lambda content: struct.pack("<Q", 1 << 24) + bytes(1000), "is truncated within its header"),
        (lambda content: build(b"[]"), "its header is not a JSON object"),
    ],
)
def test_read_header_damaged_file_names_the_damage(weights: pathlib.Path, damage: t.Callable[[bytes], bytes], words: str) -> None:
    weights.write_bytes(damage(weights.read_bytes()))
    assert words in error_of(weights)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (build(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}', bytes(8)), 'the key "a" twice'),
        (build(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)), '"dtype" twice'),
        (build(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}', bytes(8)), "data_offsets [-0.0, 8]"),
        (build(b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', bytes(8)), "has the shape [2.0]"),
        (build(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)), "NaN"),
        (build(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)), "not valid JSON"),
        (build(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"), "not valid JSON"),
        (build(b'{"a":\xff}'), "not valid JSON"),
        (build({"__metadata__": {"format": 1}}), "__metadata__"),
        (build({"a": []}), 'tensor "a": is not described by'),
        (build(json.dumps({"a": {**entry(), "x": NESTED}}).encode(), bytes(8)), 'tensor "a": is not described by'),
        (build({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), 'tensor "a": is not described by'),
        (build({"a": entry(offsets=[-8, 0])}, bytes(8)), "data_offsets [-8, 0]"),
        (build({"a": entry("F33")}, bytes(8)), 'unknown dtype "F33"'),
        (build({"a": {**entry(), "dtype": ["F32"]}}, bytes(8)), "unknown dtype"),
        (build({"a": {**entry(), "shape": 2}}, bytes(8)), "has the shape 2"),
        (build({"a": entry(shape=[True, 2])}, bytes(8)), "has the shape [true, 2]"),
        (build({"a": entry(shape=[1 << 62, 1 << 62, 0], offsets=[0, 0])}), "too large"),
        (build({"a": entry("F64", [1 << 57, 0], [0, 0])}), "too large"),
        (build({"a": entry(offsets=[0])}, bytes(8)), "data_offsets [0]"),
        (build({"a": entry(offsets=[8, 0])}, bytes(8)), "data_offsets [8, 0]"),
        (build({"a": entry(offsets=[0, 12])}, bytes(12)), "has 12 bytes, expected 8 for F32 [2]"),
        (build({"a": entry(), "b": entry(offsets=[8, 20])}, bytes(20)), 'tensor "b": has 12 bytes, expected 8 for F32 [2]'),
        (build({"a": entry("F4", [1], [0, 1])}, bytes(1)), "has 1 byte, expected 0.5"),
        (build({"a": entry(offsets=[4, 12])}, bytes(12)), "begins at byte 4 of the data, expected 0"),
        (build({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), 'tensor "b": begins at byte 4 of the data, expected 8'),
        (build({"a": entry(), "b": entry()}, bytes(8)), 'tensor "b": begins at byte 0 of the data, expected 8'),
        (build({"x" * 10_000 + "\n": entry(offsets=[4, 12])}, bytes(12)), "xxx..."),
    ],
)
def test_read_header_invalid_header_is_rejected(tmp_path: pathlib.Path, content: bytes, words: str) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(content)
    assert words in error_of(path)


def test_read_header_link_or_missing_file_is_rejected(weights: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(weights)
    assert "cannot be read" in error_of(link)
    assert "cannot be read" in error_of(tmp_path / "nothing")


DTYPES = sorted(reader._BITS)
FRAGMENTS = [
    b"", b" ", b"\n", b"0", b"1", b"-0", b"-1", b"8", b"00", b"1.0", b"1e0", b"9" * 25, b"NaN", b"null", b"true", b'""',
    b'"a"', b'"\\ud800"', b'"\\u0000"', b"\\", b'"', b"{", b"}", b"[", b"]", b",", b":", b"{}", b"[]", b'"a":1,', b"[0,0]",
    b'"__metadata__":null,', b'"__metadata__":{"a":"b"},', b'"__metadata__":{"a":1},', b'"dtype":"F32",', b"\xff", b"\xc3\xa9",
]  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A valid file of up to three tensors."""
    header: dict[str, t.Any] = {}
    position = 0
    for name in draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=4), max_size=3, unique=True)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        bits = reader._BITS[dtype] * int(np.prod(shape, dtype=int))
        if bits % 8 or name == "__metadata__":
            continue
        header[name] = entry(dtype, shape, [position, position + bits // 8])
        position += bits // 8
    if draw(st.booleans()):
        header["__metadata__"] = {"format": "pt"}
    text = json.dumps(header, ensure_ascii=draw(st.booleans())).encode() + b" " * draw(st.integers(0, 9))
    return build(text, draw(st.binary(min_size=position, max_size=position)))


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """A valid file with some spans replaced, mostly with a header length that fits again."""
    content = draw(files())
    (length,) = struct.unpack("<Q", content[:8])
    text, data = content[8 : 8 + length], content[8 + length :]
    for _cut in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 6)))
        text = text[:start] + draw(st.sampled_from(FRAGMENTS)) + text[end:]
    wrong = draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
    data = data[: len(data) - draw(st.sampled_from([0, 0, 0, 1]))] + draw(st.sampled_from([b"", b"", b"", b"\0"]))
    return build(text, data, max(0, len(text) + wrong))


@pytest.mark.fuzz
@given(content=files())
def test_scan_valid_file_agrees_with_official_library(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "valid.safetensors"
    path.write_bytes(content)
    found = ours(path)
    assert found is not None
    assert found == officially(content)


@pytest.mark.fuzz
@given(content=damaged_files())
def test_scan_damaged_file_agrees_with_official_library(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    found = ours(path)
    if found is not None or not is_exception(content):
        assert found == officially(content)


def is_exception(content: bytes) -> bool:
    """Return whether a file is one of those that only the official library reads."""
    (length,) = struct.unpack("<Q", content[:8])
    keys: list[bool] = []

    def unique(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
        keys.append(len(dict(pairs)) == len(pairs))
        return dict(pairs)

    try:
        header = json.loads(content[8 : 8 + length], object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and (not all(keys) or any(isinstance(found, list) for found in header.values()))


def test_read_header_beyond_bounds_is_rejected(weights: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_TENSORS", 10)
    monkeypatch.setattr(reader, "MAX_METADATA", 20)

    def empty(number: int) -> dict[str, t.Any]:
        return {f"t{index}": entry("U8", (0,), (0, 0)) for index in range(number)}

    weights.write_bytes(build({"__metadata__": {"k" * 10: "v" * 10}, **empty(10)}))
    assert len(read_header(weights).tensors) == 10
    weights.write_bytes(build(empty(11)))
    assert "(header): has 11 tensors; at most 10 are accepted" in error_of(weights)
    weights.write_bytes(build({"a." * 257: entry("U8", (0,), (0, 0))}))
    assert "has a name of 514 characters and 257 dots; at most 512 characters and 40 dots" in error_of(weights)
    weights.write_bytes(build({"__metadata__": {"k" * 10: "v" * 11}}))
    assert "has 21 characters of __metadata__; at most 20 are accepted" in error_of(weights)
    # Before anything is parsed: this is no JSON.
    weights.write_bytes(build(b"{" + b":" * 51))
    assert "has 51 values; at most 50 are accepted" in error_of(weights)
