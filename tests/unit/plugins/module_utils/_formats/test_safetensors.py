# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The safetensors reader: damaged files are named for what they are, and it is never laxer than the official library."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import pickle
import struct
import typing as t

import numpy as np
import pytest
import safetensors
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats import safetensors as reader
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats.safetensors import read_header, scan
from hypothesis import given
from hypothesis import strategies as st


def build(header: bytes | dict[str, t.Any], data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: t.Sequence[t.Any] = (2,), offsets: t.Sequence[t.Any] = (0, 8)) -> dict[str, t.Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


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


def refusal(path: pathlib.Path) -> str:
    """The message with which both ways to read refuse the file."""
    with pytest.raises(DeliveryError) as by_header:
        read_header(str(path))
    with pytest.raises(DeliveryError) as by_scan:
        scan(str(path))
    message = str(by_header.value)
    assert message == str(by_scan.value)
    assert str(path) in message
    assert len(message) < 1000
    assert "\n" not in message
    return message


def test_a_real_file_is_read_as_the_official_library_reads_it(weights: pathlib.Path) -> None:
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
    header = read_header(str(weights))
    scanned = {(info.name, info.dtype, info.shape) for info in result.tensors}
    assert {(info.name, info.dtype, info.shape) for info in header.tensors} == scanned


def test_a_file_without_tensors_is_one_too(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(build({}))
    assert officially(build({})) == ours(path) == {}
    assert scan(str(path)).size == len(build({}))


@pytest.mark.parametrize("dtype", sorted(reader._BITS))
def test_every_dtype_has_the_size_that_the_official_library_gives_it(tmp_path: pathlib.Path, dtype: str) -> None:
    path = tmp_path / "adapter_model.safetensors"
    # Eight values fill whole bytes, however few bits each has.
    data = bytes(range(reader._BITS[dtype]))
    path.write_bytes(build({"a": entry(dtype, [8], [0, len(data)])}, data))
    assert ours(path) == officially(path.read_bytes())
    assert ours(path)


def test_a_flipped_bit_shows_in_the_one_tensor(weights: pathlib.Path) -> None:
    before = scan(str(weights))
    victim = read_header(str(weights)).tensors[5]
    content = bytearray(weights.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    content[8 + length + victim.start] ^= 1
    weights.write_bytes(content)
    after = scan(str(weights))
    changed = [new.name for old, new in zip(before.tensors, after.tensors) if old != new]
    assert changed == [victim.name]
    assert before.sha256 != after.sha256


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
        (lambda content: b'{"error": "not found"}', "is no safetensors file"),
        (lambda content: struct.pack("<Q", (1 << 24) + 1) + bytes(1 << 25), "at most 16777216 are accepted"),
        (lambda content: struct.pack("<Q", 1 << 24) + bytes(1000), "is truncated within its header"),
        (lambda content: build(b" {}"), "its header is no JSON object"),
        (lambda content: build(b"[]"), "its header is no JSON object"),
    ],
)
def test_damaged_files_are_named_for_what_they_are(weights: pathlib.Path, damage: t.Callable[[bytes], bytes], words: str) -> None:
    weights.write_bytes(damage(weights.read_bytes()))
    assert words in refusal(weights)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (build(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}', bytes(8)), "the key 'a' twice"),
        (build(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)), "'dtype' twice"),
        (build(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}', bytes(8)), "the number -0"),
        (build(b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', bytes(8)), "the number 2.0"),
        (build(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)), "NaN"),
        (build(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)), "not valid JSON"),
        (build(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"), "not valid JSON"),
        (build(b'{"a":\xff}'), "not valid JSON"),
        (build({"__metadata__": None}), "__metadata__"),
        (build({"__metadata__": {"format": 1}}), "__metadata__"),
        (build({"a": []}), "tensor 'a': is not described by"),
        (build({"a": {**entry(), "extra": 1}}, bytes(8)), "tensor 'a': is not described by"),
        (build({"a": entry("F33")}, bytes(8)), "unknown dtype 'F33'"),
        (build({"a": {**entry(), "dtype": ["F32"]}}, bytes(8)), "unknown dtype"),
        (build({"a": {**entry(), "shape": 2}}, bytes(8)), "has the shape 2"),
        (build({"a": entry(shape=[True, 2])}, bytes(8)), "has the shape [True, 2]"),
        (build({"a": entry(shape=[1 << 62, 1 << 62, 0], offsets=[0, 0])}), "too large"),
        (build({"a": entry("F64", [1 << 57, 0], [0, 0])}), "too large"),
        (build({"a": entry(offsets=[0])}, bytes(8)), "data_offsets [0]"),
        (build({"a": entry(offsets=[8, 0])}, bytes(8)), "data_offsets [8, 0]"),
        (build({"a": entry(offsets=[0, 12])}, bytes(12)), "has 12 bytes, expected 8 for F32 [2]"),
        (build({"a": entry(), "b": entry(offsets=[8, 20])}, bytes(20)), "tensor 'b': has 12 bytes, expected 8 for F32 [2]"),
        (build({"a": entry("F4", [1], [0, 1])}, bytes(1)), "has 1 byte, expected 0.5"),
        (build({"a": entry(offsets=[4, 12])}, bytes(12)), "begins at byte 4 of the data, expected 0"),
        (build({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "tensor 'b': begins at byte 4 of the data, expected 8"),
        (build({"a": entry(), "b": entry()}, bytes(8)), "tensor 'b': begins at byte 0 of the data, expected 8"),
        (build({"x" * 10_000 + "\n": entry(offsets=[4, 12])}, bytes(12)), "xxx..."),
    ],
)
def test_bad_headers_are_refused(tmp_path: pathlib.Path, content: bytes, words: str) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(content)
    assert words in refusal(path)


def test_links_and_missing_files_are_refused(weights: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(weights)
    assert "cannot be read" in refusal(link)
    assert "cannot be read" in refusal(tmp_path / "nothing")


@pytest.mark.parametrize("change", [-100, 1])
def test_a_file_that_changes_its_size_meanwhile_is_refused(
    weights: pathlib.Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    real = reader._read_header

    def and_change(stream: t.BinaryIO, path: str) -> t.Any:
        result = real(stream, path)
        os.truncate(path, os.path.getsize(path) + change)
        return result

    monkeypatch.setattr(reader, "_read_header", and_change)
    # So that the end of the file has not been read ahead.
    monkeypatch.setattr(reader, "_BLOCK", 64)
    with pytest.raises(DeliveryError, match="changed its size while it was read"):
        scan(str(weights))


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
    """A valid file in which some spans were replaced, mostly with the length of the header set right again."""
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
def test_valid_files_are_read_alike(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "valid.safetensors"
    path.write_bytes(content)
    found = ours(path)
    assert found is not None
    assert found == officially(content)


@pytest.mark.fuzz
@given(content=damaged_files())
def test_nothing_is_accepted_that_the_official_library_refuses(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    found = ours(path)
    if found is not None:
        assert found == officially(content)


# Per dtype: the unsigned integer of its width, how numpy sees values of it, and the bits of its infinity.
VIEWS: dict[str, tuple[str, t.Callable[[t.Any], t.Any], int]] = {
    "F16": ("<u2", lambda raw: raw.view("<f2"), 0x7C00),
    "BF16": ("<u2", lambda raw: (raw.astype("<u4") << 16).view("<f4"), 0x7F80),
    "F32": ("<u4", lambda raw: raw.view("<f4"), 0x7F800000),
    "F64": ("<u8", lambda raw: raw.view("<f8"), 0x7FF0000000000000),
}


def edges(dtype: str) -> list[int]:
    """Zeros, the smallest and the largest values, infinities, NaNs, and infinities that lack one bit."""
    code, _view, infinity = VIEWS[dtype]
    sign = 1 << (np.dtype(code).itemsize * 8 - 1)
    lacking = [infinity & ~(1 << bit) for bit in range(sign.bit_length())]
    return [s | value for s in (0, sign) for value in (0, 1, 0x80, infinity - 1, infinity + 1, sign - 1, *lacking)]


def scan_values(path: pathlib.Path, dtype: str, raw: t.Any) -> reader.TensorScan:
    data = raw.tobytes()
    path.write_bytes(build({"a": entry(dtype, [len(raw)], [0, len(data)])}, data))
    return scan(str(path)).tensors[0]


def check_values(path: pathlib.Path, dtype: str, bits: list[int]) -> None:
    code, view, _infinity = VIEWS[dtype]
    raw = np.array(bits, dtype=code)
    found = scan_values(path, dtype, raw)
    assert found.finite == bool(np.isfinite(view(raw)).all())
    assert found.zero == bool((view(raw) == 0).all())
    if not found.finite:
        assert found.norm is None
    elif found.norm is not None:
        # Of so few values all are taken.
        assert found.norm == pytest.approx(np.linalg.norm(view(raw).astype("f8")), rel=1e-3)
    else:
        assert np.abs(view(raw).astype("f8")).max() > 1e150


@pytest.mark.parametrize("dtype", sorted(VIEWS))
def test_every_edge_alone_is_what_numpy_says(tmp_path: pathlib.Path, dtype: str) -> None:
    for value in edges(dtype):
        check_values(tmp_path / "values.safetensors", dtype, [value])


@pytest.mark.fuzz
@given(data=st.data(), dtype=st.sampled_from(sorted(VIEWS)))
def test_finite_and_zero_are_what_numpy_says(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, dtype: str) -> None:
    value = st.one_of(st.sampled_from(edges(dtype)), st.integers(0, int(np.iinfo(VIEWS[dtype][0]).max)))
    bits = data.draw(st.lists(value, min_size=1, max_size=6))
    check_values(tmp_path_factory.getbasetemp() / "values.safetensors", dtype, bits)


@pytest.mark.parametrize("where", ["first", "before edge", "at edge", "last"])
@pytest.mark.parametrize("dtype", sorted(VIEWS))
def test_one_bad_value_is_found_anywhere(tmp_path: pathlib.Path, dtype: str, where: str) -> None:
    code, view, _infinity = VIEWS[dtype]
    per_block = reader._BLOCK // np.dtype(code).itemsize
    raw = np.zeros(2 * per_block + 3, dtype=code)
    index = {"first": 0, "before edge": per_block - 1, "at edge": per_block, "last": len(raw) - 1}[where]
    path = tmp_path / "values.safetensors"
    assert (scan_values(path, dtype, raw).finite, scan_values(path, dtype, raw).zero) == (True, True)
    raw[index] = 1
    assert (scan_values(path, dtype, raw).finite, scan_values(path, dtype, raw).zero) == (True, False)
    raw[index] = np.iinfo(code).max
    assert np.isnan(view(raw)[index])
    assert (scan_values(path, dtype, raw).finite, scan_values(path, dtype, raw).zero) == (False, False)


@pytest.mark.parametrize("dtype", sorted(VIEWS))
def test_the_norm_of_a_large_tensor_is_known_to_a_few_percent(tmp_path: pathlib.Path, dtype: str) -> None:
    code, view, _infinity = VIEWS[dtype]
    # Parts of different size: what is taken must be spread over all of them, and over the blocks that are read.
    count = 3 * reader._BLOCK + 5
    values = np.random.default_rng(1).standard_normal(count) * np.linspace(0.01, 0.1, count)
    if dtype == "BF16":
        raw = (values.astype("<f4").view("<u4") >> 16).astype(code)
    else:
        raw = values.astype(f"<f{np.dtype(code).itemsize}").view(code)
    found = scan_values(tmp_path / "values.safetensors", dtype, raw)
    assert found.norm == pytest.approx(np.linalg.norm(view(raw).astype("f8")), rel=0.04)
    step = len(raw) // reader._SAMPLED
    taken = view(raw).astype("f8")[::step]
    assert found.norm == pytest.approx(np.linalg.norm(taken) * np.sqrt(len(raw) / len(taken)), rel=1e-3)


def test_what_has_no_floats_has_no_norm(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "values.safetensors"
    path.write_bytes(build({"a": entry("I8", [4], [0, 4])}, b"abcd"))
    assert scan(str(path)).tensors[0].norm is None
