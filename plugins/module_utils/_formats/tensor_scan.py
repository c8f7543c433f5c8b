# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""One pass over a safetensors file: hashes, non-finite values, all-zero tensors, and norms."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import operator
import struct
import typing as t

from .._errors import DeliveryError
from .._text import shown
from .safetensors import TensorInfo, open_header, read_up_to, size_changed

# Small enough for a CPU's cache: every block is examined several times.
_BLOCK = 1 << 18
# So many zeros at the end of a tensor are no coincidence.
_ZEROS = bytes(512)
# A norm computed from this many values, or up to twice as many, is accurate to about one percent.
_SAMPLED = 1 << 12


@dataclasses.dataclass(frozen=True)
class TensorScan:
    """A tensor and the properties of its values.

    ``sha256`` and ``norm`` are empty and None when they were not requested. ``finite`` is true when
    no value is NaN or infinite; integers and dtypes that torch does not read count as finite.
    ``zero`` is true when all values are zero, of either sign. ``norm`` is the Euclidean norm,
    estimated from some thousand values at the same places in every tensor of the same shape; only
    F16, BF16, F32 and F64 have one.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    finite: bool
    zero: bool
    norm: float | None


@dataclasses.dataclass(frozen=True)
class FileScan:
    """A complete file: its size, sha256 and metadata, and its tensors sorted by name."""

    size: int
    sha256: str
    tensors: tuple[TensorScan, ...]
    metadata: dict[str, str]


def scan(path: str, tensor_digests: bool = True) -> FileScan:
    """Read a safetensors file once, in small blocks. Raises DeliveryError when it is damaged.

    Without ``tensor_digests`` every byte is hashed once instead of twice, and the tensors have
    neither sha256 nor norm.
    """
    with open_header(path) as (prefix, header, stream):
        digest = hashlib.sha256(prefix)
        tensors = []
        # The tensor within which zeros begin that cover every tensor after it.
        cut, covered = "", 0
        for info in header.tensors:
            tensor, ends_in_zeros = _scan_tensor(stream, info, digest, tensor_digests, path)
            tensors.append(tensor)
            if tensor.zero and cut:
                covered += 1
            elif not tensor.zero:
                cut, covered = tensor.name if ends_in_zeros else "", 0
        size = len(prefix) + (header.tensors[-1].end if header.tensors else 0)
        if stream.read(1):
            raise size_changed(path)
    if covered:
        # A crash of the host that wrote the file leaves such a tail. Layers without a change, which
        # are zero as a whole, are legitimate.
        problem = f"has only zeros from the middle of tensor {shown(cut)} to its end."
        raise DeliveryError.of(path, problem, "The file was damaged when it was written: save the adapter again.")
    return FileScan(size, digest.hexdigest(), tuple(sorted(tensors, key=lambda found: found.name)), header.metadata)


def _scan_tensor(
    stream: t.BinaryIO, info: TensorInfo, file_digest: hashlib._Hash, own_digest: bool, path: str
) -> tuple[TensorScan, bool]:
    """Return the tensor, and whether it ends in zeros."""
    digest = hashlib.sha256() if own_digest else None
    wide = _FLOATS.get(info.dtype)
    layout = wide or _FLOATS8.get(info.dtype)
    sample = _Sample(wide, (info.end - info.start) // wide.width) if wide and own_digest else None
    finite = zero = True
    block = b""
    left = info.end - info.start
    while left:
        block = read_up_to(stream, min(_BLOCK, left))
        if len(block) < min(_BLOCK, left):
            raise size_changed(path)
        left -= len(block)
        file_digest.update(block)
        if digest is not None:
            digest.update(block)
        if sample is not None:
            sample.add(block)
        finite = finite and (layout is None or layout.all_finite(block))
        zero = zero and (layout.all_zero(block) if layout else not block.strip(b"\0"))
    sha256 = digest.hexdigest() if digest else ""
    found = TensorScan(info.name, info.dtype, info.shape, sha256, finite, zero, sample.norm() if sample else None)
    return found, block.endswith(_ZEROS)


class _Float:
    """How a floating-point dtype encodes NaN, infinity and zero.

    NaN and infinity have all bits of the exponent set; zero has all bits but the sign clear. The
    exponent lies in the last two bytes of a (little-endian) value: ``high`` masks its bits in the
    last byte, ``low`` those in the byte before.
    """

    def __init__(self, code: str, high: int, low: int) -> None:
        # BF16 is the upper half of an F32.
        self.code, self.widened = ("f", b"\0\0") if code == "bf" else (code, b"")
        self.width = struct.calcsize(self.code) - len(self.widened)
        self.suspects = [byte for byte in range(256) if byte & high == high]
        self.high = bytes(byte & high == high for byte in range(256))
        self.low = bytes(byte & low == low for byte in range(256))

    def values(self, raw: bytes) -> t.Sequence[float]:
        """The values in these bytes, as Python floats."""
        if self.widened:
            wide = bytearray(2 * len(raw))
            wide[2::4], wide[3::4] = raw[::2], raw[1::2]
            raw = bytes(wide)
        return struct.unpack(f"<{len(raw) // struct.calcsize(self.code)}{self.code}", raw)

    def all_finite(self, block: bytes) -> bool:
        last = block[self.width - 1 :: self.width]
        # Weights of a sane size never have such a last byte, so the check nearly always ends here.
        if not any(byte in last for byte in self.suspects):
            return True
        before = block[self.width - 2 :: self.width]
        high = int.from_bytes(last.translate(self.high), "little")
        low = int.from_bytes(before.translate(self.low), "little")
        return not high & low

    def all_zero(self, block: bytes) -> bool:
        if block.strip(b"\x00\x80"):
            return False
        return not any(0x80 in block[offset :: self.width] for offset in range(self.width - 1))


_FLOATS = {
    "F16": _Float("e", 0x7C, 0x00),
    "BF16": _Float("bf", 0x7F, 0x80),
    "F32": _Float("f", 0x7F, 0x80),
    "F64": _Float("d", 0x7F, 0xF0),
}


class _Float8:
    """How a floating-point dtype of one byte encodes NaN, infinity and zero."""

    def __init__(self, not_finite: t.Iterable[int]) -> None:
        self.not_finite = bytes(not_finite)

    def all_finite(self, block: bytes) -> bool:
        return not any(byte in block for byte in self.not_finite)

    def all_zero(self, block: bytes) -> bool:
        return not block.strip(b"\x00\x80")


_FLOATS8 = {
    # All bits but the sign set is NaN; there is no infinity.
    "F8_E4M3": _Float8((0x7F, 0xFF)),
    "F8_E5M2": _Float8((*range(0x7C, 0x80), *range(0xFC, 0x100))),
}


# The item format with which a memoryview steps through values of this width.
_ITEMS: dict[int, t.Literal["H", "I", "Q"]] = {2: "H", 4: "I", 8: "Q"}


class _Sample:
    """Evenly spaced values of a tensor: all of a small one, some thousand of a large one."""

    def __init__(self, layout: _Float, count: int) -> None:
        self.layout, self.count = layout, count
        self.step = max(1, count // _SAMPLED)
        self.squares = 0.0
        self.sampled = self.seen = 0

    def add(self, block: bytes) -> None:
        """Sample the next part of the tensor, which must be a whole number of values."""
        # The first item is at the next multiple of ``step`` values of the tensor.
        items = memoryview(block).cast(_ITEMS[self.layout.width])
        values = self.layout.values(items[-self.seen % self.step :: self.step].tobytes())
        self.squares += sum(map(operator.mul, values, values))
        self.sampled += len(values)
        self.seen += len(items)

    def norm(self) -> float | None:
        """Return the estimated norm, rounded to four digits; None if a value is not finite."""
        square = self.squares * self.count / self.sampled if self.sampled else 0.0
        return float(f"{math.sqrt(square):.4g}") if math.isfinite(square) else None
