# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Fold a weights file: multiply values by factors and pad matrices with zeros. Streams the file.

A program of the PEFT interpreter, for its numpy, beside the load test. It reads a fold.json with a
``FoldRequest`` and writes a folded.json with a ``Folded``. It knows nothing of adapters:
``_source/fold_plan.py`` decides what becomes of each tensor.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import struct
import sys
import typing as t

from .main import limit_memory

# Values in a block. Small enough for a CPU's cache, in which several passes are made over a block.
_BLOCK = 1 << 16


@dataclasses.dataclass(frozen=True)
class FoldTensor:
    """A matrix of the source: what it is, and what it becomes.

    ``rows`` and ``columns`` are those of the source, ``folded_rows`` and ``folded_columns`` with
    the zeros. ``start`` is where the folded data begin in the target's data.
    """

    name: str
    dtype: str
    rows: int
    columns: int
    factor: float
    folded_dtype: str
    folded_rows: int
    folded_columns: int
    start: int


@dataclasses.dataclass(frozen=True)
class FoldRequest:
    """What to fold, in the form of ``fold.json``.

    ``tensors`` are all tensors of ``source`` in the order of their data. ``header`` is the header
    of ``target``, which must not exist. With ``exact``, a value that would be rounded ends the
    folding.
    """

    source: str
    target: str
    header: str
    tensors: tuple[FoldTensor, ...]
    exact: bool

    @classmethod
    def from_json(cls, data: dict[str, t.Any]) -> FoldRequest:
        return cls(**{**data, "tensors": tuple(FoldTensor(**tensor) for tensor in data["tensors"])})


@dataclasses.dataclass
class Folded:
    """What was done, in the form of ``folded.json``.

    ``sha256`` is that of the source as it was read. ``rounded`` is the number of products that were
    rounded. ``inexact`` and ``too_large`` name a tensor that ended the folding: one with a value
    that ``exact`` forbids, and one with a product beyond its dtype. ``missing`` is a package that
    the interpreter lacks.
    """

    sha256: str = ""
    rounded: int = 0
    inexact: str | None = None
    too_large: str | None = None
    missing: str | None = None


class _Layout(t.NamedTuple):
    """A floating-point dtype: its bytes, and the bits of its fraction and of its exponent."""

    width: int
    fraction: int
    exponent: int


_LAYOUTS = {"F32": _Layout(4, 23, 8), "BF16": _Layout(2, 7, 8), "F16": _Layout(2, 10, 5)}


class _Ended(Exception):
    """The folding ended early, for the reason in ``Folded``."""


def fold(request: FoldRequest) -> Folded:
    """Write the target, all of it on the disk. Raises OSError and EOFError.

    Whatever the reason, a target that is not the whole result may be left.
    """
    result = Folded()
    try:
        with open(request.source, "rb", buffering=0) as source, open(request.target, "xb", buffering=0) as target:
            _fold(request, source, target, result)
            os.fsync(target.fileno())
    except _Ended:
        pass
    return result


def _fold(request: FoldRequest, source: t.BinaryIO, target: t.BinaryIO, result: Folded) -> None:
    digest = hashlib.sha256()
    length = _read(source, bytearray(8))
    digest.update(length)
    digest.update(_read(source, bytearray(struct.unpack("<Q", length)[0])))
    header = request.header.encode()
    data = 8 + len(header)
    _write(target, struct.pack("<Q", len(header)) + header)
    buffer = bytearray(4 * _BLOCK)
    for tensor in request.tensors:
        if target.tell() != data + tensor.start:
            target.seek(data + tensor.start)
        width = _LAYOUTS[tensor.dtype].width
        # A row may be longer than a block.
        rows = max(1, _BLOCK // max(1, tensor.columns))
        if len(buffer) < rows * tensor.columns * width:
            buffer = bytearray(rows * tensor.columns * width)
        for first in range(0, tensor.rows, rows):
            count = min(rows, tensor.rows - first)
            block = _read(source, memoryview(buffer)[: count * tensor.columns * width])
            digest.update(block)
            _write(target, _folded_block(tensor, block, count, request.exact, result))
        _write_zeros(target, (tensor.folded_rows - tensor.rows) * tensor.folded_columns * _LAYOUTS[tensor.folded_dtype].width)
    if source.read(1):
        raise EOFError(f"{request.source} has become longer")
    result.sha256 = digest.hexdigest()


def _read(source: t.BinaryIO, buffer: bytearray | memoryview) -> bytearray | memoryview:
    """Fill the buffer. Raises EOFError."""
    view, done = memoryview(buffer), 0
    while done < len(view):
        read = source.readinto(view[done:])  # type: ignore[attr-defined]
        if not read:
            raise EOFError(f"{source.name} has become shorter")
        done += read
    return buffer


def _write(target: t.BinaryIO, data: t.Any) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[target.write(view) :]


def _write_zeros(target: t.BinaryIO, size: int) -> None:
    while size > 0:
        size -= target.write(bytes(min(size, 4 * _BLOCK)))


def _folded_block(tensor: FoldTensor, block: t.Any, rows: int, exact: bool, result: Folded) -> t.Any:
    """Return the folded values of some rows as bytes."""
    import numpy as np

    values = np.frombuffer(block, f"<u{_LAYOUTS[tensor.dtype].width}").reshape(rows, tensor.columns)
    values = _product(tensor, values, exact, result)
    if tensor.folded_columns != tensor.columns:
        padded = np.zeros((rows, tensor.folded_columns), values.dtype)
        padded[:, : tensor.columns] = values
        values = padded
    return np.ascontiguousarray(values)


def _product(tensor: FoldTensor, bits: t.Any, exact: bool, result: Folded) -> t.Any:
    """Return the bits of the values times the factor, rounded once. Counts what was rounded."""
    import numpy as np

    if tensor.dtype == tensor.folded_dtype:
        shifted = _shifted(bits, tensor.factor, _LAYOUTS[tensor.dtype])
        if shifted is not None:
            return shifted
    elif tensor.factor == 1.0:
        # Only ever to float32, which has all values of the others.
        return _values(bits, tensor.dtype).astype("<f4").view("<u4")
    wanted = _values(bits, tensor.dtype).astype("<f8")
    wanted *= tensor.factor
    folded = _bits(wanted, tensor.folded_dtype)
    found = _values(folded, tensor.folded_dtype)
    rounded = int(np.count_nonzero(found != wanted))
    if rounded:
        if not np.isfinite(found).all():
            result.too_large = tensor.name
            raise _Ended
        if exact:
            result.inexact = tensor.name
            raise _Ended
        result.rounded += rounded
    return folded


def _shifted(bits: t.Any, factor: float, layout: _Layout) -> t.Any:
    """Return the bits of values times a power of two: that is an addition to the exponent.

    Returns None if the factor is another number, or if a value is not one that this is true of:
    zero, a subnormal value, or one whose product is no normal value.
    """
    mantissa, power = math.frexp(factor)
    power -= 1
    if abs(mantissa) != 0.5:
        return None
    if factor == 1.0:
        return bits
    kind = bits.dtype.type
    sign = 1 << (8 * layout.width - 1)
    magnitudes = bits & kind(sign - 1)
    # The smallest normal exponent is 1, the largest is all bits but the last.
    lowest, beyond = 1 + max(0, -power), (1 << layout.exponent) - 1 - max(0, power)
    if beyond <= lowest or not bits.size:
        return None
    if magnitudes.min() < lowest << layout.fraction or magnitudes.max() >= beyond << layout.fraction:
        return None
    # Modulo the width, so that a negative power is subtracted. The sign is never reached.
    shifted = bits + kind((power << layout.fraction) % (1 << (8 * layout.width)))
    return shifted ^ kind(sign) if factor < 0 else shifted


def _values(bits: t.Any, dtype: str) -> t.Any:
    """Return values of a dtype as floats that numpy has, none of them changed."""
    if dtype == "BF16":
        return (bits.astype("<u4") << 16).view("<f4")
    return bits.view("<f4" if dtype == "F32" else "<f2")


def _bits(values: t.Any, dtype: str) -> t.Any:
    """Return float64 values rounded to a dtype, to the nearest and, halfway, to the even one."""
    import numpy as np

    with np.errstate(over="ignore", under="ignore"):
        if dtype == "F16":
            return values.astype("<f2").view("<u2")
        single = values.astype("<f4")
    if dtype == "F32":
        return single.view("<u4")
    # Rounded to float32 and then to bfloat16, a value close to the middle between two could end at
    # the wrong one. Rounded to odd first, it stays on its side of the middle.
    bits = single.view("<u4")
    bits = bits - (np.abs(single) > np.abs(values)).astype("<u4")
    bits |= (single != values).astype("<u4")
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")


def main() -> None:
    request_path, result_path = sys.argv[1:]
    with open(request_path, encoding="utf-8") as stream:
        request = FoldRequest.from_json(json.load(stream))
    limit_memory(())
    try:
        import numpy  # noqa: F401

        result = fold(request)
    except ModuleNotFoundError as exc:
        result = Folded(missing=exc.name or "numpy")
    except EOFError:
        # Without a sha256: the source is being changed.
        result = Folded()
    with open(result_path, "w", encoding="utf-8") as stream:
        json.dump(dataclasses.asdict(result), stream)
