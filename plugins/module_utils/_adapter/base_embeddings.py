# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Embeddings of the base in an adapter's file, against those of the base on this host."""

from __future__ import annotations

import hashlib
import os
import typing as t

from .._base.weights import base_weights
from .._errors import DeliveryError, Problem
from .._formats.safetensors import open_header, read_up_to
from .._formats.tensor_scan import TensorScan
from .._text import first
from .declaration import Declaration
from .module_selection import Config
from .structure import base_embeddings, base_name

_BLOCK = 1 << 20


def embedding_problems(tensors: t.Sequence[TensorScan], config: Config, declared: Declaration) -> list[Problem]:
    """Return the problem of embeddings that PEFT would put in the place of the base's.

    Only tensors of the dtype that the base has are compared; level model compares all of them. A
    base that cannot be read is reported where its identity is determined.
    """
    found = {tensor.name: tensor for tensor in tensors}
    copies = {base_name(name): found[name] for name in base_embeddings(tensors, config, declared.base_config)}
    if not copies or not declared.base_path:
        return []
    try:
        other = sorted(_differing(copies, declared.base_path))
    except (DeliveryError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    if not other:
        return []
    problem = f"has embeddings other than those of its base, which PEFT would overwrite with them: {first(other)}."
    remedy = "Save it with save_embedding_layers=False, or train the embeddings with modules_to_save."
    return [Problem("", problem, remedy, declared.name)]


def _differing(copies: t.Mapping[str, TensorScan], base_path: str) -> t.Iterator[str]:
    """Yield the names of the tensors that differ from those of the base.

    ``copies`` are the tensors by their names in the base.
    """
    for shard in base_weights(base_path):
        # A snapshot in the Hub's cache consists of links.
        with open_header(os.path.realpath(shard)) as (prefix, header, stream):
            for info in header.tensors:
                copy = copies.get(info.name)
                if copy is not None and (copy.dtype, copy.shape) == (info.dtype, info.shape):
                    stream.seek(len(prefix) + info.start)
                    if _sha256(stream, info.end - info.start) != copy.sha256:
                        yield copy.name


def _sha256(stream: t.BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    while size and (block := read_up_to(stream, min(_BLOCK, size))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()
