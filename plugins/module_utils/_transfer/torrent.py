# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""The description of an adapter's files for a swarm: a torrent of version 2 (BEP 52).

The source computes the hashes, and the controller passes them on. Everything else in the torrent
comes from the controller, so no end can name a file to another one: files are numbered.
"""

from __future__ import annotations

import hashlib
import typing as t

# The certificate of every member is made out to this name.
NAME = "adapter"
# The unit of the hash trees, which the protocol fixes.
_BLOCK = 1 << 14
_LEAF = bytes(32)
# Pieces are the units that peers offer. Smaller ones spread faster, but each takes 32 bytes of the
# controller's link to each node.
_SMALLEST_PIECE = 1 << 15
_MOST_PIECES = 1 << 11


class Hashes(t.NamedTuple):
    """Those of a file: the root of its tree, and 32 bytes for each piece if it has several."""

    root: bytes
    layer: bytes


def piece_size(total: int) -> int:
    """Return the size of the pieces of files with so many bytes in all."""
    size = _SMALLEST_PIECE
    while total > size * _MOST_PIECES:
        size *= 2
    return size


def layer_size(size: int, piece: int) -> int:
    """Return the length of the ``layer`` of a file with ``size`` bytes."""
    return 32 * -(-size // piece) if size > piece else 0


def hashes_of(read: t.Callable[[int], bytes], size: int, piece: int) -> Hashes:
    """Return the hashes of a file, which ``read`` returns by the given number of bytes."""
    layer, left = [], size
    while left > 0:
        leaves = []
        for _number in range(-(-min(piece, left) // _BLOCK)):
            leaves.append(hashlib.sha256(read(min(_BLOCK, left))).digest())
            left -= _BLOCK
        # A file of one piece has a tree of its own height.
        layer.append(_root(leaves, _LEAF, piece // _BLOCK if size > piece else 1))
    empty = _root([], _LEAF, piece // _BLOCK)
    return Hashes(_root(layer, empty, 1), b"".join(layer) if size > piece else b"")


def _root(hashes: list[bytes], padding: bytes, width: int) -> bytes:
    """The root of a binary tree with at least ``width`` leaves, a power of two."""
    while width < len(hashes):
        width *= 2
    hashes = hashes + [padding] * (width - len(hashes))
    while len(hashes) > 1:
        hashes = [hashlib.sha256(left + right).digest() for left, right in zip(hashes[::2], hashes[1::2])]
    return hashes[0]


def torrent_of(sizes: t.Sequence[int], hashes: t.Sequence[Hashes], piece: int, authority: str) -> dict[bytes, t.Any]:
    """Return the torrent of files without empty ones.

    Its peers need certificates of ``authority`` (PEM), unless that is empty.
    """
    # A single file gives its name to the torrent.
    names = [b"%06d" % number for number in range(len(sizes))] if len(sizes) > 1 else [NAME.encode()]
    tree = {name: {b"": {b"length": size, b"pieces root": of.root}} for name, size, of in zip(names, sizes, hashes)}
    info = {b"file tree": tree, b"meta version": 2, b"name": NAME.encode(), b"piece length": piece, b"private": 1}
    if authority:
        info[b"ssl-cert"] = authority.encode()
    return {b"info": info, b"piece layers": {of.root: of.layer for of in hashes if of.layer}}
