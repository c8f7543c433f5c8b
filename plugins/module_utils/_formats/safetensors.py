# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Strict reader of safetensors headers. It rejects everything that the official library rejects.

It accepts what safetensors 0.4.3 and 0.8.0 both read, with these exceptions: a header of more than
16 MiB, a key that occurs twice (readers differ in the one they take), a number of more than 40
digits, and the two spellings that only the library's own deserializer knows (an entry as a list, a
dtype as an object).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
import typing as t

from .._errors import DeliveryError
from .._files import open_regular
from .._text import count, shown
from .file_kinds import kind_of
from .strict_json import is_integer, parse_object
from .tensor_limits import LONGEST, MAX_TENSORS, is_long

# The format allows 100 MB. The header of an adapter for a base of 8B parameters has 60 kB. Parsed
# JSON takes many times its size in memory.
MAX_HEADER = 1 << 24
# Names and texts together. Tools write some lines, such as the commit of the training.
MAX_METADATA = 1 << 20

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip

_JSON_SPACE = b" \t\r\n"
_DAMAGED = "Copy or save the file again and compare its sha256 with the original."


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A tensor in the header. ``start`` and ``end`` are offsets from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Header:
    """A complete header: its tensors in the order of their data, which they cover without gaps."""

    tensors: tuple[TensorInfo, ...]
    metadata: dict[str, str]


@contextlib.contextmanager
def open_header(path: str) -> t.Iterator[tuple[bytes, Header, t.BinaryIO]]:
    """Open a file at the start of its data. Yield the bytes before the data, header, and file.

    Raises DeliveryError when the file is damaged or not a safetensors file.
    """
    with open_regular(path) as stream:
        prefix, header = _read_header(stream, path)
        yield prefix, header, stream


def read_up_to(stream: t.BinaryIO, size: int) -> bytes:
    """Read ``size`` bytes, or fewer at the end of the file, from an unbuffered stream."""
    parts = []
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def bit_count(dtype: str, shape: t.Sequence[int]) -> int | None:
    """Return the size of a tensor's data, or None if its dtype is unknown or it is too large."""
    if dtype not in _BITS:
        return None
    bits = _BITS[dtype]
    for length in shape:
        bits *= length
        # Checked at every step: 64-bit readers overflow even when a later length is 0.
        if bits >= 1 << 63:
            return None
    return bits


def size_changed(path: str) -> DeliveryError:
    remedy = "Wait until nothing writes to it, then run again."
    return DeliveryError.of(path, "changed its size while it was read.", remedy)


def _read_header(stream: t.BinaryIO, path: str) -> tuple[bytes, Header]:
    """Return the bytes before the data, and the header they contain."""
    size = os.fstat(stream.fileno()).st_size
    head = read_up_to(stream, 8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 2 <= length <= MAX_HEADER or 8 + length > size:
        raise _no_header(path, head + read_up_to(stream, 504), size, length)
    raw = read_up_to(stream, length)
    if not raw.lstrip(_JSON_SPACE).startswith(b"{"):
        raise _no_header(path, head + raw[:504], size, length)
    if len(raw) < length:
        raise size_changed(path)
    # Before it is parsed, which takes time and memory. An entry has four values after colons.
    if raw.count(b":") > 5 * MAX_TENSORS:
        raise _too_much(path, "values", raw.count(b":"), 5 * MAX_TENSORS)
    entries = parse_object(raw, f"{path} (header)", _DAMAGED)
    metadata = entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise _too_much(path, "tensors", len(entries), MAX_TENSORS)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DeliveryError.of(path, "has a __metadata__ that does not map text to text.", _DAMAGED)
    metadata_size = sum(len(key) + len(value) for key, value in metadata.items())
    if metadata_size > MAX_METADATA:
        raise _too_much(path, "characters of __metadata__", metadata_size, MAX_METADATA)
    tensors = sorted((_tensor(path, name, entry) for name, entry in entries.items()), key=lambda info: (info.start, info.end))
    position = 0
    for info in tensors:
        if info.start != position:
            problem = f"begins at byte {info.start} of the data, expected {position}: a gap or an overlap."
            raise DeliveryError.of(f"{path}, tensor {shown(info.name)}", problem, _DAMAGED)
        position = info.end
    expected = 8 + length + position
    if size != expected:
        if size < expected:
            difference = f"is truncated by {count(expected - size, 'byte')}"
        else:
            difference = f"is too long by {count(size - expected, 'byte')}"
        problem = f"{difference}: its header describes {expected} bytes, it has {size}."
        raise DeliveryError.of(path, problem, _DAMAGED)
    return head + raw, Header(tuple(tensors), metadata)


def _tensor(path: str, name: str, entry: t.Any) -> TensorInfo:
    def wrong(problem: str) -> DeliveryError:
        return DeliveryError.of(f"{path}, tensor {shown(name)}", problem, _DAMAGED)

    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry) or _is_deep(entry):
        raise wrong("is not described by dtype, shape and data_offsets.")
    if is_long(name):
        raise wrong(f"has a name of {len(name)} characters and {name.count('.')} dots; at most {LONGEST} are accepted.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise wrong(f"has the unknown dtype {shown(dtype)}.")
    if not _are_naturals(shape):
        raise wrong(f"has the shape {shown(shape)}, expected a list of numbers.")
    if not _are_naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise wrong(f"has the data_offsets {shown(offsets)}, expected a start and an end.")
    bits = bit_count(dtype, shape)
    if bits is None:
        raise wrong(f"has the shape {shown(shape)}, which is too large.")
    if bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        raise wrong(f"has {count(offsets[1] - offsets[0], 'byte')}, expected {bits / 8:.15g} for {dtype} {shown(shape)}.")
    return TensorInfo(name, dtype, tuple(shape), offsets[0], offsets[1])


def _are_naturals(value: t.Any) -> bool:
    return isinstance(value, list) and all(is_integer(number) and 0 <= number < 1 << 63 for number in value)


def _is_deep(value: t.Any, levels: int = 120) -> bool:
    """Return whether a value nests deeper than the official library reads, which is 127 levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not levels or any(_is_deep(item, levels - 1) for item in inner)


def _too_much(path: str, what: str, found: int, limit: int) -> DeliveryError:
    return DeliveryError.of(f"{path} (header)", f"has {found} {what}; at most {limit} are accepted.", _DAMAGED)


def _no_header(path: str, head: bytes, size: int, length: int) -> DeliveryError:
    """Return the error for a file that does not begin like a safetensors file."""
    other = kind_of(head)
    if other is not None:
        return DeliveryError.of(path, f"{other.what}; expected a safetensors file.", other.remedy)
    if not size:
        problem = "is empty; expected a safetensors file."
    elif not head.strip(b"\0"):
        problem = f"is filled with zeros where its header should be ({size} bytes in all)."
    elif size < 10:
        problem = f"is truncated: it has {count(size, 'byte')}, the smallest safetensors file has 10."
    elif length > MAX_HEADER:
        problem = f"is not a safetensors file: its header would have {length} bytes, at most {MAX_HEADER} are accepted."
    elif 8 + length > size:
        problem = f"is truncated within its header, which ends at byte {8 + length}; the file has {size} bytes."
    else:
        problem = "is not a safetensors file: its header is not a JSON object."
    return DeliveryError.of(path, problem, _DAMAGED)
