# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Strict reader of safetensors files: the header, and what one pass over the data tells of every tensor."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import operator
import os
import struct
import typing as t

from .._errors import DeliveryError
from .._files import open_regular
from .._text import count, cut
from .strict_json import is_integer, parse_object

# The format allows 100 MB; the header of an adapter for a base of 8B parameters has 60 kB. Parsed JSON takes many
# times its size in memory.
MAX_HEADER = 1 << 24
# Small enough for a CPU's cache: every block is looked at several times.
_BLOCK = 1 << 18
# Of so many values, or up to twice as many, the norm of a tensor is known to about one percent.
_SAMPLED = 1 << 12

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip

_DAMAGED = "Copy or save the file again and compare its sha256 with the original."


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A tensor as the header describes it; C(start) and C(end) count from the first byte behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Header:
    """A whole header: its tensors in the order of their data, which they cover without gaps."""

    tensors: tuple[TensorInfo, ...]
    metadata: dict[str, str]


@dataclasses.dataclass(frozen=True)
class TensorScan:
    """A tensor with what its bytes tell: their sha256 and norm, where these were asked for, and whether all values are finite.

    What is no F16, BF16, F32 or F64 counts as finite, and has no norm. C(zero) says that all values are zero, of either sign.
    C(norm) is the Euclidean one, as some thousand values of the tensor have it: the same places in each tensor of its shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    finite: bool
    zero: bool
    norm: t.Optional[float]


@dataclasses.dataclass(frozen=True)
class FileScan:
    """A whole file: its size and sha256 and its tensors, sorted by name."""

    size: int
    sha256: str
    tensors: tuple[TensorScan, ...]
    metadata: dict[str, str]


def read_header(path: str) -> Header:
    """Return the header of a safetensors file. Raises DeliveryError when the file is damaged or is none."""
    with open_header(path) as (header, _data, _stream):
        return header


@contextlib.contextmanager
def open_header(path: str) -> t.Iterator[tuple[Header, int, t.BinaryIO]]:
    """The header of a safetensors file, the byte at which its data begin, and the open file. Raises as C(read_header) does."""
    with open_regular(path) as stream:
        prefix, header = _read_header(stream, path)
        yield header, len(prefix), stream


def scan(path: str, tensor_digests: bool = True) -> FileScan:
    """Read a safetensors file once, in small blocks. Raises DeliveryError as C(read_header) does.

    Without C(tensor_digests) every byte is hashed once, not twice, and the tensors have neither sha256 nor norm.
    """
    with open_regular(path) as stream:
        prefix, header = _read_header(stream, path)
        digest = hashlib.sha256(prefix)
        tensors = [_scan_tensor(stream, info, digest, tensor_digests, path) for info in header.tensors]
        size = len(prefix) + (header.tensors[-1].end if header.tensors else 0)
        if stream.read(1):
            raise _changed(path)
    return FileScan(size, digest.hexdigest(), tuple(sorted(tensors, key=lambda found: found.name)), header.metadata)


def _scan_tensor(stream: t.BinaryIO, info: TensorInfo, file_digest: hashlib._Hash, own_digest: bool, path: str) -> TensorScan:
    digest = hashlib.sha256() if own_digest else None
    layout = _FLOATS.get(info.dtype)
    sample = _Sample(layout, (info.end - info.start) // layout.width) if layout and own_digest else None
    finite = zero = True
    left = info.end - info.start
    while left:
        block = _read(stream, min(_BLOCK, left))
        if len(block) < min(_BLOCK, left):
            raise _changed(path)
        left -= len(block)
        file_digest.update(block)
        if digest is not None:
            digest.update(block)
        if sample is not None:
            sample.add(block)
        finite = finite and (layout is None or layout.all_finite(block))
        zero = zero and (layout.all_zero(block) if layout else not block.strip(b"\0"))
    sha256 = digest.hexdigest() if digest else ""
    return TensorScan(info.name, info.dtype, info.shape, sha256, finite, zero, sample.norm() if sample else None)


def _changed(path: str) -> DeliveryError:
    remedy = "Wait until nothing writes to it, then run again."
    return DeliveryError.of(path, "changed its size while it was read.", remedy)


class _Float:
    """How a floating dtype spells NaN, infinity and zero: all bits of the exponent set, all bits but the sign clear.

    The exponent lies in the last two bytes of a (little-endian) value. C(high) and C(low) are the bits of it there.
    """

    def __init__(self, code: str, high: int, low: int) -> None:
        # BF16 is the upper half of an F32.
        self.code, self.widened = ("f", b"\0\0") if code == "bf" else (code, b"")
        self.width = struct.calcsize(self.code) - len(self.widened)
        self.suspects = [byte for byte in range(256) if byte & high == high]
        self.high = bytes(byte & high == high for byte in range(256))
        self.low = bytes(byte & low == low for byte in range(256))

    def values(self, raw: bytes) -> t.Sequence[float]:
        """The values in these bytes, as Python's floats."""
        if self.widened:
            wide = bytearray(2 * len(raw))
            wide[2::4], wide[3::4] = raw[::2], raw[1::2]
            raw = bytes(wide)
        return struct.unpack(f"<{len(raw) // struct.calcsize(self.code)}{self.code}", raw)

    def all_finite(self, block: bytes) -> bool:
        last = block[self.width - 1 :: self.width]
        # Weights of a sane size never have such a last byte, so this is nearly always the whole work.
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


# Something of a value's width that a view can have as its items.
_ITEMS: dict[int, t.Literal["H", "I", "Q"]] = {2: "H", 4: "I", 8: "Q"}


class _Sample:
    """Values at equal distances in a tensor of C(count) values: all of a small one, and never so many that it takes time."""

    def __init__(self, layout: _Float, count: int) -> None:
        self.layout, self.count = layout, count
        self.step = max(1, count // _SAMPLED)
        self.squares = 0.0
        self.taken = self.passed = 0

    def add(self, block: bytes) -> None:
        """Take what is to be taken of the next part of the tensor, which is whole values."""
        items = memoryview(block).cast(_ITEMS[self.layout.width])
        values = self.layout.values(items[-self.passed % self.step :: self.step].tobytes())
        self.squares += sum(map(operator.mul, values, values))
        self.taken += len(values)
        self.passed += len(items)

    def norm(self) -> t.Optional[float]:
        """The norm of the whole tensor, None where a value is not finite; four digits are more than it is good for."""
        square = self.squares * self.count / self.taken if self.taken else 0.0
        return float(f"{math.sqrt(square):.4g}") if math.isfinite(square) else None


def _read_header(stream: t.BinaryIO, path: str) -> tuple[bytes, Header]:
    """Return the bytes up to the data, and the header in them."""
    size = os.fstat(stream.fileno()).st_size
    head = _read(stream, 8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 2 <= length <= MAX_HEADER or 8 + length > size:
        raise _no_header(path, head + _read(stream, 504), size, length)
    raw = _read(stream, length)
    if not raw.startswith(b"{"):
        raise _no_header(path, head + raw[:504], size, length)
    if len(raw) < length:
        raise _changed(path)
    entries = parse_object(raw, f"{path} (header)", _DAMAGED, naturals_only=True)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DeliveryError.of(path, "has a __metadata__ that does not map text to text.", _DAMAGED)
    tensors = sorted((_tensor(path, name, entry) for name, entry in entries.items()), key=lambda info: (info.start, info.end))
    position = 0
    for info in tensors:
        if info.start != position:
            problem = f"begins at byte {info.start} of the data, expected {position}: a gap or an overlap."
            raise DeliveryError.of(f"{path}, tensor {_shown(info.name)}", problem, _DAMAGED)
        position = info.end
    expected = 8 + length + position
    if size != expected:
        what = (
            f"is truncated by {count(expected - size, 'byte')}"
            if size < expected
            else f"is too long by {count(size - expected, 'byte')}"
        )
        problem = f"{what}: its header describes {expected} bytes, it has {size}."
        raise DeliveryError.of(path, problem, _DAMAGED)
    return head + raw, Header(tuple(tensors), metadata)


def _read(stream: t.BinaryIO, count: int) -> bytes:
    """Up to C(count) bytes, fewer only at the end of the file (a raw stream may give fewer at any time)."""
    parts = []
    while count and (part := stream.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _tensor(path: str, name: str, entry: t.Any) -> TensorInfo:
    def wrong(problem: str) -> DeliveryError:
        return DeliveryError.of(f"{path}, tensor {_shown(name)}", problem, _DAMAGED)

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong("is not described by exactly dtype, shape and data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise wrong(f"has the unknown dtype {_shown(dtype)}.")
    if not _are_naturals(shape):
        raise wrong(f"has the shape {_shown(shape)}, expected a list of numbers.")
    if not _are_naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise wrong(f"has the data_offsets {_shown(offsets)}, expected a start and an end.")
    bits = _BITS[dtype]
    for length in shape:
        bits *= length
        # Checked at every step: readers that count in 64 bits overflow even where a later length is 0.
        if bits >= 1 << 63:
            raise wrong(f"has the shape {_shown(shape)}, which is too large.")
    if bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        raise wrong(f"has {count(offsets[1] - offsets[0], 'byte')}, expected {bits / 8:.15g} for {dtype} {_shown(shape)}.")
    return TensorInfo(name, dtype, tuple(shape), offsets[0], offsets[1])


def _are_naturals(value: t.Any) -> bool:
    # The JSON reader has refused negative numbers already.
    return isinstance(value, list) and all(is_integer(number) and number < 1 << 63 for number in value)


def _shown(value: t.Any) -> str:
    """A value from the file on one line, whatever is in it."""
    return cut(ascii(value))


_BEGINNINGS: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    (
        (b"version https://git-lfs",),
        "is a Git LFS pointer, not the weights themselves",
        "Fetch the weights in the place it was cloned to, with 'git lfs pull'.",
    ),
    (
        (b"<!doctype html", b"<html"),
        "is an HTML page, probably the error page of a download",
        "Download the file again and look at the answer.",
    ),
    (
        (b"pk\x03\x04",),
        "is a zip archive, probably a pickle that torch.save wrote",
        "Save the adapter as safetensors (safe_serialization=True).",
    ),
    (
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "is a pickle",
        "Save the adapter as safetensors (safe_serialization=True).",
    ),
)


def _no_header(path: str, head: bytes, size: int, length: int) -> DeliveryError:
    """The error for a file that does not begin as a safetensors file does: by its name, where it is known."""
    for beginnings, problem, remedy in _BEGINNINGS:
        if head.lstrip().lower().startswith(beginnings):
            return DeliveryError.of(path, f"{problem}; expected a safetensors file.", remedy)
    if not size:
        problem = "is empty; expected a safetensors file."
    elif not head.strip(b"\0"):
        problem = f"is filled with zeros where its header should be ({size} bytes in all)."
    elif size < 10:
        problem = f"is truncated: it has {count(size, 'byte')}, the smallest safetensors file has 10."
    elif length > MAX_HEADER:
        problem = f"is no safetensors file: its header would have {length} bytes, at most {MAX_HEADER} are accepted."
    elif 8 + length > size:
        problem = f"is truncated within its header: that ends at byte {8 + length}, the file has {size}."
    else:
        problem = "is no safetensors file: its header is no JSON object."
    return DeliveryError.of(path, problem, _DAMAGED)
