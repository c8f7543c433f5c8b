# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bytes of safetensors files that no library would write."""

from __future__ import annotations

import json
import struct
import typing as t


def build(header: bytes | dict[str, t.Any], data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: t.Sequence[t.Any] = (2,), offsets: t.Sequence[t.Any] = (0, 8)) -> dict[str, t.Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}
