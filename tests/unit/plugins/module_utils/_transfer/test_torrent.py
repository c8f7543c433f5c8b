# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The description of files for a swarm, as libtorrent itself computes it."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib

import libtorrent
import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import torrent

PIECE = 1 << 15


def described(*contents: bytes) -> dict[bytes, object]:
    hashes = [torrent.hashes_of(io.BytesIO(data).read, len(data), PIECE) for data in contents]
    return torrent.torrent_of([len(data) for data in contents], hashes, PIECE, "")


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 49153, PIECE, PIECE + 1, 3 * PIECE, 9 * PIECE - 5])
def test_hashes_of_are_those_that_libtorrent_computes(tmp_path: pathlib.Path, size: int) -> None:
    contents = {"000000": os.urandom(size), "000001": os.urandom(3)}
    storage = libtorrent.file_storage()
    (tmp_path / "adapter").mkdir()
    for name, data in contents.items():
        (tmp_path / "adapter" / name).write_bytes(data)
        storage.add_file(f"adapter/{name}", len(data))
    made = libtorrent.create_torrent(storage, PIECE, libtorrent.create_torrent.v2_only)
    libtorrent.set_piece_hashes(made, str(tmp_path))
    theirs, ours = made.generate(), described(*contents.values())
    tree = theirs[b"info"][b"file tree"]
    assert {name: node[b""] for name, node in tree.items()} == {
        name: node[b""]
        for name, node in ours[b"info"][b"file tree"].items()  # type: ignore[index]
    }
    assert theirs[b"piece layers"] == ours[b"piece layers"]


@pytest.mark.parametrize("count", [1, 2])
def test_torrent_of_files_has_the_name_that_certificates_are_made_out_to(count: int) -> None:
    given = libtorrent.load_torrent_buffer(libtorrent.bencode(described(*[b"some bytes"] * count)))
    assert given.ti.name() == torrent.NAME


def test_piece_size_keeps_the_hashes_short() -> None:
    assert torrent.piece_size(1) == torrent.piece_size(2048 * PIECE) == PIECE
    assert torrent.piece_size(2048 * PIECE + 1) == 2 * PIECE
    assert torrent.layer_size(700 << 20, torrent.piece_size(700 << 20)) <= 32 * 2048
    assert torrent.layer_size(PIECE, PIECE) == 0


def test_hashes_of_one_block_is_its_sha256() -> None:
    assert torrent.hashes_of(io.BytesIO(b"x").read, 1, PIECE) == (hashlib.sha256(b"x").digest(), b"")
