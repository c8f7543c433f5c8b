# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hashing files and JSON values, and opening only plain files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import signal
import socket
import types
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import open_regular
from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import (
    CHUNK,
    digest_of,
    release_digest,
    sha256_of,
    sha256_of_all,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}[A-Za-z0-9]", fullmatch=True)
HASHES = st.binary(max_size=8).map(lambda data: hashlib.sha256(data).hexdigest())
# As in an adapter, each path occurs once.
FILES = st.lists(st.tuples(NAMES, st.integers(0, 1 << 40), HASHES), max_size=8, unique_by=lambda record: record[0])


@contextlib.contextmanager
def limit(seconds: int) -> t.Iterator[None]:
    """Fail instead of waiting forever."""

    def interrupt(_number: int, _frame: types.FrameType | None) -> None:
        # A TimeoutError is an OSError, which would be handled as an unreadable file.
        pytest.fail(f"still waiting after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_release_digest_format_is_stable() -> None:
    # Written out here: an update of the collection must not rename releases.
    files = [("b", 2, "22" * 32), ("a", 1, "11" * 32)]
    records = b"a\x001\x00" + b"11" * 32 + b"\n" + b"b\x002\x00" + b"22" * 32 + b"\n"
    assert release_digest(files) == hashlib.sha256(records).hexdigest()


@given(FILES, st.randoms())
def test_release_digest_ignores_order_of_files(files: list[tuple[str, int, str]], random: t.Any) -> None:
    shuffled = list(files)
    random.shuffle(shuffled)
    assert release_digest(shuffled) == release_digest(iter(files))


@given(FILES, FILES)
def test_release_digest_differs_for_different_files(one: list[tuple[str, int, str]], other: list[tuple[str, int, str]]) -> None:
    assert (release_digest(one) == release_digest(other)) == (sorted(one) == sorted(other))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_sha256_of_hashes_every_byte(tmp_path: pathlib.Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(str(tmp_path / "file")) == (size, hashlib.sha256(data).hexdigest())


def test_sha256_of_all_keeps_order(tmp_path: pathlib.Path) -> None:
    contents = [bytes([number]) * number for number in range(20)]
    for number, data in enumerate(contents):
        (tmp_path / str(number)).write_bytes(data)
    found = sha256_of_all([str(tmp_path / str(number)) for number in range(20)])
    assert found == [(len(data), hashlib.sha256(data).hexdigest()) for data in contents]
    assert sha256_of_all([]) == []


def test_sha256_of_fsync_syncs_the_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    sha256_of(str(tmp_path / "file"))
    assert synced == []
    sha256_of(str(tmp_path / "file"), fsync=True)
    assert synced == [(tmp_path / "file").stat().st_ino]


def test_sha256_of_failed_fsync_raises(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "file").write_bytes(b"bytes")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        sha256_of_all([str(tmp_path / "file")], fsync=True)


def _link(path: pathlib.Path) -> None:
    (path.parent / "target").write_bytes(b"bytes")
    path.symlink_to("target")


def _dangling_link(path: pathlib.Path) -> None:
    path.symlink_to("nowhere")


def _directory(path: pathlib.Path) -> None:
    path.mkdir()


def _fifo(path: pathlib.Path) -> None:
    os.mkfifo(path)


def _socket(path: pathlib.Path) -> None:
    # The path of a socket has a length limit, which a temporary directory may exceed.
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def _nothing(_path: pathlib.Path) -> None:
    pass


@pytest.mark.parametrize("make", [_link, _dangling_link, _directory, _fifo, _socket, _nothing])
def test_open_regular_special_file_is_rejected(tmp_path: pathlib.Path, make: t.Callable[[pathlib.Path], None]) -> None:
    path = tmp_path / "thing"
    make(path)
    descriptors = os.listdir("/proc/self/fd")
    for read in (open_regular, sha256_of):
        with limit(20), pytest.raises(DeliveryError) as caught:
            read(str(path))
        assert caught.value.problems[0].subject == str(path)
    assert os.listdir("/proc/self/fd") == descriptors


def test_sha256_of_device_is_rejected() -> None:
    with limit(20), pytest.raises(DeliveryError, match="/dev/zero: is not a plain file"):
        sha256_of("/dev/zero")


def test_sha256_of_read_error_names_the_file() -> None:
    # Its mode is that of a plain file, but reading its first byte fails (EIO): it is not mapped.
    with pytest.raises(DeliveryError, match="/proc/self/mem: cannot be read: Input/output error"):
        sha256_of("/proc/self/mem")


def test_digest_of_ignores_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": "1"})
