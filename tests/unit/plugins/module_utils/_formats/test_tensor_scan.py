# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hashes, non-finite and zero values and norms, as one pass over a safetensors file finds them."""

from __future__ import annotations

import os
import pathlib
import struct
import typing as t

import numpy as np
import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats import safetensors, tensor_scan
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats.tensor_scan import TensorScan, scan
from hypothesis import given
from hypothesis import strategies as st

from tests.support.safetensors_files import build, entry


@pytest.fixture
def weights(adapter: pathlib.Path) -> pathlib.Path:
    return adapter / "adapter_model.safetensors"


def test_scan_tail_of_zeros_from_the_middle_of_a_tensor_is_damage(weights: pathlib.Path) -> None:
    content = weights.read_bytes()
    with safetensors.open_header(str(weights)) as (prefix, header, _stream):
        cut, last = header.tensors[-2], header.tensors[-1]
    middle = len(prefix) + (cut.start + cut.end) // 2
    weights.write_bytes(content[:middle] + bytes(len(content) - middle))
    with pytest.raises(DeliveryError, match=f'from the middle of tensor "{cut.name}"'):
        scan(str(weights))
    # Whole tensors without a value are no damage.
    whole = len(prefix) + last.start
    weights.write_bytes(content[:whole] + bytes(len(content) - whole))
    assert [tensor.name for tensor in scan(str(weights)).tensors if tensor.zero] == [last.name]


def test_scan_flipped_bit_changes_one_tensor(weights: pathlib.Path) -> None:
    before = scan(str(weights))
    with safetensors.open_header(str(weights)) as (_prefix, header, _stream):
        victim = header.tensors[5]
    content = bytearray(weights.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    content[8 + length + victim.start] ^= 1
    weights.write_bytes(content)
    after = scan(str(weights))
    changed = [new.name for old, new in zip(before.tensors, after.tensors) if old != new]
    assert changed == [victim.name]
    assert before.sha256 != after.sha256


@pytest.mark.parametrize("change", [-100, 1])
def test_scan_size_changing_while_read_is_rejected(weights: pathlib.Path, monkeypatch: pytest.MonkeyPatch, change: int) -> None:
    real = safetensors._read_header

    def and_change(stream: t.BinaryIO, path: str) -> t.Any:
        result = real(stream, path)
        os.truncate(path, os.path.getsize(path) + change)
        return result

    monkeypatch.setattr(safetensors, "_read_header", and_change)
    # Small blocks, so that the end of the file has not been read ahead.
    monkeypatch.setattr(tensor_scan, "_BLOCK", 64)
    with pytest.raises(DeliveryError, match="changed its size while it was read"):
        scan(str(weights))


# For each dtype: the unsigned integer of its width, the conversion to floats, and its infinity.
VIEWS: dict[str, tuple[str, t.Callable[[t.Any], t.Any], int]] = {
    "F16": ("<u2", lambda raw: raw.view("<f2"), 0x7C00),
    "BF16": ("<u2", lambda raw: (raw.astype("<u4") << 16).view("<f4"), 0x7F80),
    "F32": ("<u4", lambda raw: raw.view("<f4"), 0x7F800000),
    "F64": ("<u8", lambda raw: raw.view("<f8"), 0x7FF0000000000000),
}


def edges(dtype: str) -> list[int]:
    """Zeros, extreme values, infinities, NaNs, and infinities without one of their bits."""
    code, _view, infinity = VIEWS[dtype]
    sign = 1 << (np.dtype(code).itemsize * 8 - 1)
    lacking = [infinity & ~(1 << bit) for bit in range(sign.bit_length())]
    return [s | value for s in (0, sign) for value in (0, 1, 0x80, infinity - 1, infinity + 1, sign - 1, *lacking)]


def scan_values(path: pathlib.Path, dtype: str, raw: t.Any) -> TensorScan:
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
        # Few enough values that all of them are sampled.
        assert found.norm == pytest.approx(np.linalg.norm(view(raw).astype("f8")), rel=1e-3)
    else:
        assert np.abs(view(raw).astype("f8")).max() > 1e150


@pytest.mark.parametrize("dtype", sorted(VIEWS))
def test_scan_edge_value_agrees_with_numpy(tmp_path: pathlib.Path, dtype: str) -> None:
    for value in edges(dtype):
        check_values(tmp_path / "values.safetensors", dtype, [value])


@pytest.mark.parametrize(
    ("dtype", "not_finite"), [("F8_E4M3", {0x7F, 0xFF}), ("F8_E5M2", {*range(0x7C, 0x80), *range(0xFC, 0x100)})]
)
def test_scan_float_of_one_byte_has_its_own_non_finite_values(tmp_path: pathlib.Path, dtype: str, not_finite: set[int]) -> None:
    for value in range(256):
        found = scan_values(tmp_path / "values.safetensors", dtype, np.array([0, value], dtype="u1"))
        assert (found.finite, found.zero, found.norm) == (value not in not_finite, value in (0, 0x80), None)


@pytest.mark.fuzz
@given(data=st.data(), dtype=st.sampled_from(sorted(VIEWS)))
def test_scan_finite_and_zero_agree_with_numpy(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, dtype: str) -> None:
    value = st.one_of(st.sampled_from(edges(dtype)), st.integers(0, int(np.iinfo(VIEWS[dtype][0]).max)))
    bits = data.draw(st.lists(value, min_size=1, max_size=6))
    check_values(tmp_path_factory.getbasetemp() / "values.safetensors", dtype, bits)


@pytest.mark.parametrize("where", ["first", "before edge", "at edge", "last"])
@pytest.mark.parametrize("dtype", sorted(VIEWS))
def test_scan_single_value_is_found_anywhere(tmp_path: pathlib.Path, dtype: str, where: str) -> None:
    code, view, _infinity = VIEWS[dtype]
    per_block = tensor_scan._BLOCK // np.dtype(code).itemsize
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
def test_scan_large_tensor_norm_is_accurate_to_a_few_percent(tmp_path: pathlib.Path, dtype: str) -> None:
    code, view, _infinity = VIEWS[dtype]
    # Values of growing size: the sample must be spread over all of them, and over all blocks.
    count = 3 * tensor_scan._BLOCK + 5
    values = np.random.default_rng(1).standard_normal(count) * np.linspace(0.01, 0.1, count)
    if dtype == "BF16":
        raw = (values.astype("<f4").view("<u4") >> 16).astype(code)
    else:
        raw = values.astype(f"<f{np.dtype(code).itemsize}").view(code)
    found = scan_values(tmp_path / "values.safetensors", dtype, raw)
    assert found.norm == pytest.approx(np.linalg.norm(view(raw).astype("f8")), rel=0.04)
    step = len(raw) // tensor_scan._SAMPLED
    taken = view(raw).astype("f8")[::step]
    assert found.norm == pytest.approx(np.linalg.norm(taken) * np.sqrt(len(raw) / len(taken)), rel=1e-3)


def test_scan_integer_tensor_has_no_norm(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "values.safetensors"
    path.write_bytes(build({"a": entry("I8", [4], [0, 4])}, b"abcd"))
    assert scan(str(path)).tensors[0].norm is None
