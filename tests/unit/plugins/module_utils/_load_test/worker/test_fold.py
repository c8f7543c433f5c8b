# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The arithmetic of folding: every product in float64, rounded once, and the zeros around it."""

from __future__ import annotations

import dataclasses
import fractions
import hashlib
import pathlib
import struct
import tempfile
import tracemalloc
import typing as t

import numpy as np
import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker import fold as worker
from hypothesis import given
from hypothesis import strategies as st

from tests.support.safetensors_files import build, entry

WIDTH = {"F32": 4, "BF16": 2, "F16": 2}
INFINITE = {"F32": 0x7F800000, "BF16": 0x7F80, "F16": 0x7C00}
Bits = t.Any


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Values as the bits of a dtype, and what is to become of them."""

    bits: Bits
    dtype: str
    factor: float
    folded_dtype: str
    rows: int
    columns: int


def fold(matrix: Matrix, exact: bool = False) -> tuple[worker.Folded, Bits, bytes]:
    """Fold a file with the one matrix; returns the result, the folded bits and the source."""
    rows, columns = matrix.bits.shape
    source = build({"w": entry(matrix.dtype, [rows, columns], [0, matrix.bits.nbytes])}, matrix.bits.tobytes())
    tensor = worker.FoldTensor(
        "w", matrix.dtype, rows, columns, matrix.factor, matrix.folded_dtype, matrix.rows, matrix.columns, 0
    )
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory)
        (path / "source").write_bytes(source)
        request = worker.FoldRequest(str(path / "source"), str(path / "target"), "{}", (tensor,), exact)
        result = worker.fold(request)
        data = (path / "target").read_bytes()
    if result.inexact or result.too_large:
        return result, None, source
    assert data[:10] == struct.pack("<Q", 2) + b"{}"
    folded = np.frombuffer(data[10:], f"<u{WIDTH[matrix.folded_dtype]}").reshape(matrix.rows, matrix.columns)
    return result, folded, source


def values_of(bits: Bits, dtype: str) -> Bits:
    if dtype == "BF16":
        return (bits.astype("<u4") << 16).view("<f4").astype("<f8")
    return bits.view("<f4" if dtype == "F32" else "<f2").astype("<f8")


def nearest(value: float, dtype: str) -> int:
    """The bits of a float64 rounded to the nearest value of a dtype, by comparing fractions."""
    sign = 1 << (8 * WIDTH[dtype] - 1) if np.signbit(value) else 0
    magnitude = fractions.Fraction(abs(value))
    low, high = 0, INFINITE[dtype]
    while high - low > 1:
        middle = (low + high) // 2
        if fractions.Fraction(float_of(middle, dtype)) <= magnitude:
            low = middle
        else:
            high = middle
    # The value that would follow the largest one if there were more exponents.
    above = 2 * fractions.Fraction(float_of(low, dtype)) - fractions.Fraction(float_of(low - 1, dtype)) if low else None
    upper = above if above is not None and high == INFINITE[dtype] else fractions.Fraction(float_of(high, dtype))
    distance = (magnitude - fractions.Fraction(float_of(low, dtype)), upper - magnitude)
    up = distance[1] < distance[0] or (distance[0] == distance[1] and low % 2 == 1)
    return sign | (high if up else low)


def float_of(bits: int, dtype: str) -> float:
    return float(values_of(np.array([bits], f"<u{WIDTH[dtype]}"), dtype)[0])


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    dtype = draw(st.sampled_from(sorted(WIDTH)))
    rows, columns = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    last = INFINITE[dtype] - 1
    # Subnormal and small ones, the largest ones, and any.
    magnitudes = st.sampled_from((st.integers(0, last >> 3), st.integers(last - (last >> 3), last), st.integers(0, last)))
    signs = st.sampled_from((0, 1 << (8 * WIDTH[dtype] - 1)))
    finite = st.builds(int.__or__, draw(magnitudes), signs)
    # Most values of a trained adapter are of this size, where a power of two is added to exponents.
    usual = st.floats(1e-3, 1.0).map(lambda value: nearest(value, dtype))
    one = draw(st.sampled_from((finite, usual)))
    bits = draw(st.lists(one, min_size=rows * columns, max_size=rows * columns))
    power = st.integers(-20, 20).map(lambda exponent: 2.0**exponent)
    factor = draw(st.one_of(power, power.map(float.__neg__), st.floats(-100, 100), st.just(1.0)))
    return Matrix(
        np.array(bits, f"<u{WIDTH[dtype]}").reshape(rows, columns),
        dtype,
        factor,
        draw(st.sampled_from((dtype, "F32"))),
        rows + draw(st.integers(0, 3)),
        columns + draw(st.integers(0, 3)),
    )


@given(matrices())
def test_fold_any_matrix_is_product_in_float64_rounded_once(matrix: Matrix) -> None:
    products = values_of(matrix.bits, matrix.dtype) * matrix.factor
    wanted = np.array([[nearest(value, matrix.folded_dtype) for value in row] for row in products])
    magnitudes = wanted & (1 << (8 * WIDTH[matrix.folded_dtype] - 1)) - 1
    result, folded, source = fold(matrix)
    if (magnitudes == INFINITE[matrix.folded_dtype]).any():
        assert result.too_large == "w"
        return
    rows, columns = wanted.shape
    assert folded[:rows, :columns].tolist() == wanted.tolist()
    assert not folded[rows:].any()
    assert not folded[:, columns:].any()
    assert result.rounded == (values_of(folded[:rows, :columns], matrix.folded_dtype) != products).sum()
    assert result.sha256 == hashlib.sha256(source).hexdigest()


@given(matrices())
def test_fold_exact_ends_at_value_that_would_be_rounded(matrix: Matrix) -> None:
    rounded, _folded, _source = fold(matrix)
    result, _folded, _source = fold(matrix, exact=True)
    assert result.inexact == ("w" if rounded.rounded else None)


@pytest.mark.parametrize("dtype", sorted(WIDTH))
@pytest.mark.parametrize("factor", [8.0, 0.25, -2.0])
def test_fold_large_matrix_of_usual_values_is_done_in_blocks(dtype: str, factor: float) -> None:
    random = np.random.default_rng(0)
    values = (random.standard_normal((1000, 200)) * 0.01 + 1).astype("<f4" if dtype == "F32" else "<f2")
    bits = values.view(f"<u{WIDTH[dtype]}") if dtype != "BF16" else (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    result, folded, _source = fold(Matrix(bits, dtype, factor, dtype, 1000, 200), exact=True)
    assert result.inexact is None
    assert (values_of(folded, dtype) == values_of(bits, dtype) * factor).all()


def test_fold_memory_does_not_grow_with_tensor() -> None:
    rows, columns = 40_000, 64
    values = np.full((rows, columns), 0x3F81, "<u2")
    with tempfile.TemporaryDirectory() as directory:
        source, target = pathlib.Path(directory, "source"), pathlib.Path(directory, "target")
        source.write_bytes(build({"w": entry("BF16", [rows, columns], [0, values.nbytes])}, values.tobytes()))
        tensor = worker.FoldTensor("w", "BF16", rows, columns, 1.5, "F32", rows, columns + 1, 0)
        request = worker.FoldRequest(str(source), str(target), "{}", (tensor,), False)
        # numpy reports what it allocates.
        tracemalloc.start()
        try:
            worker.fold(request)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert target.stat().st_size == 10 + rows * (columns + 1) * 4
    # The tensor has 20 MB in float64.
    assert most < 4 << 20


@pytest.mark.parametrize(("beside", "wanted"), [(2.0**-40, 0x3F81), (-(2.0**-40), 0x3F80)])
def test_fold_bfloat16_close_to_a_middle_is_rounded_once(beside: float, wanted: int) -> None:
    """Rounded to float32 first, the product would be the middle, and then go to the even value."""
    bits = np.array([[0x3F80]], "<u2")
    _result, folded, _source = fold(Matrix(bits, "BF16", 1 + 2.0**-8 + beside, "BF16", 1, 1))
    assert folded.tolist() == [[wanted]]


@pytest.mark.parametrize("dtype", sorted(WIDTH))
@pytest.mark.parametrize("power", [1, 5, -1, -5])
def test_fold_power_of_two_next_to_the_limits_of_exponents(dtype: str, power: int) -> None:
    """The smallest and the largest value whose product is a normal one, and those beyond."""
    fraction = {"F32": 23, "BF16": 7, "F16": 10}[dtype]
    lowest, beyond = (1 + max(0, -power)) << fraction, INFINITE[dtype] - (max(0, power) << fraction)
    # Beyond the largest value there is none to multiply.
    for bits in {lowest - 1, lowest, beyond - 1, beyond} - {INFINITE[dtype]}:
        matrix = Matrix(np.array([[bits]], f"<u{WIDTH[dtype]}"), dtype, 2.0**power, dtype, 1, 1)
        wanted = nearest(float_of(bits, dtype) * 2.0**power, dtype)
        result, folded, _source = fold(matrix)
        if wanted == INFINITE[dtype]:
            assert result.too_large == "w"
        else:
            assert folded.tolist() == [[wanted]]


@pytest.mark.parametrize("change", [lambda data: data[:-2], lambda data: data + b"\0"])
def test_fold_file_of_another_size_is_not_taken_for_whole(change: t.Callable[[bytes], bytes], tmp_path: pathlib.Path) -> None:
    source = build({"w": entry("BF16", [2, 2], [0, 8])}, bytes(range(8)))
    (tmp_path / "source").write_bytes(change(source))
    tensor = worker.FoldTensor("w", "BF16", 2, 2, 1.0, "BF16", 2, 2, 0)
    with pytest.raises(EOFError):
        worker.fold(worker.FoldRequest(str(tmp_path / "source"), str(tmp_path / "target"), "{}", (tensor,), False))
