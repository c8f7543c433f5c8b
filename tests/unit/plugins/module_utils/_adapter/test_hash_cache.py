# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cache of a described adapter: when an entry is used, and when the files are read again."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter import hash_cache
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.hash_cache import CacheEntry, read_entry, write_entry
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry

from tests.support.describing import CONFIG, WEIGHTS, Describe, error_of, wait_until_cacheable


def test_cache_unchanged_files_are_not_read_again(adapter: pathlib.Path, describe_it: Describe, cache: pathlib.Path) -> None:
    wait_until_cacheable(adapter)
    first = describe_it()
    again = describe_it()
    assert (first.cached, again.cached) == (False, True)
    assert again.manifest == first.manifest
    assert cache.stat().st_mode & 0o777 == 0o600
    assert cache.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(cache.parent)) == [cache.name]


def test_cache_hit_is_still_compared_with_inventory(adapter: pathlib.Path, describe_it: Describe) -> None:
    wait_until_cacheable(adapter)
    describe_it()
    assert "declares rank 32" in error_of(describe_it, rank=32)
    assert "declares alpha 64" in error_of(describe_it, alpha=64.0)
    assert "mixes" not in error_of(describe_it, target_modules=["q_proj"])


def test_cache_excluded_files_do_not_invalidate(adapter: pathlib.Path, describe_it: Describe) -> None:
    wait_until_cacheable(adapter)
    describe_it()
    (adapter / "README.md").write_text("card")
    found = describe_it()
    assert found.cached
    assert [item.path for item in found.excluded] == ["README.md"]


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "tokenizer.json"])
def test_cache_same_size_and_mtime_other_bytes_are_read_again(adapter: pathlib.Path, describe_it: Describe, name: str) -> None:
    wait_until_cacheable(adapter)
    before = describe_it()
    status = (adapter / name).stat()
    data = bytearray((adapter / name).read_bytes())
    if name == CONFIG:
        data = data.replace(b'"lora_dropout": 0.0', b'"lora_dropout": 0.1')
    elif name == WEIGHTS:
        data[-1] ^= 1
    else:
        data[data.index(b" ")] = ord("\n")
    with open(adapter / name, "r+b") as stream:
        stream.write(data)
    os.utime(adapter / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = (adapter / name).stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (status.st_ino, status.st_size, status.st_mtime_ns)
    found = describe_it()
    assert not found.cached
    assert found.manifest.digest != before.manifest.digest
    assert {entry.path: entry.sha256 for entry in found.manifest.files}[name] == hashlib.sha256(data).hexdigest()


def test_cache_added_or_removed_file_invalidates(adapter: pathlib.Path, describe_it: Describe) -> None:
    wait_until_cacheable(adapter)
    describe_it()
    (adapter / "special_tokens_map.json").write_text("{}")
    wait_until_cacheable(adapter)
    more = describe_it()
    assert not more.cached
    (adapter / "special_tokens_map.json").unlink()
    less = describe_it()
    assert not less.cached
    assert len(less.manifest.files) == len(more.manifest.files) - 1


def test_cache_file_changed_just_now_is_not_cached(describe_it: Describe, monkeypatch: pytest.MonkeyPatch) -> None:
    # A second write within one tick of the file system's clock could leave size and times equal.
    monkeypatch.setattr(hash_cache, "_CLOCK_TICK_NS", 3600 * 10**9)
    assert not describe_it().cached
    assert not describe_it().cached


def test_cache_without_write_cache_is_read_only(adapter: pathlib.Path, describe_it: Describe, cache: pathlib.Path) -> None:
    wait_until_cacheable(adapter)
    describe_it(write_cache=False)
    assert not cache.parent.exists()
    describe_it()
    assert describe_it(write_cache=False).cached


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "null",
        lambda text: "[]",
        lambda text: '"text"',
        lambda text: "7",
        lambda text: "{}",
        lambda text: text.replace('"schema": 3', '"schema": 2'),
        lambda text: text.replace('"sha256"', '"sha"'),
        lambda text: text.replace('"files"', '"file"'),
        lambda text: json.dumps({**json.loads(text), "files": 7}),
        lambda text: json.dumps({**json.loads(text), "files": [7]}),
        lambda text: json.dumps({**json.loads(text), "tensors": [7]}),
        lambda text: json.dumps({**json.loads(text), "tensors": {"shape": 7}}),
    ],
)
def test_cache_damaged_entry_is_replaced(
    adapter: pathlib.Path, describe_it: Describe, cache: pathlib.Path, damage: t.Callable[[str], str]
) -> None:
    wait_until_cacheable(adapter)
    expected = describe_it()
    text = cache.read_text(encoding="utf-8")
    cache.write_text(damage(text), encoding="utf-8")
    found = describe_it()
    assert not found.cached
    assert found.manifest == expected.manifest
    assert describe_it().cached


def test_cache_unwritable_directory_is_ignored(adapter: pathlib.Path, describe_it: Describe, cache: pathlib.Path) -> None:
    wait_until_cacheable(adapter)
    cache.parent.write_text("a file where its directory should be")
    expected = describe_it()
    assert describe_it() == expected
    assert not expected.cached


def test_cache_rejected_adapter_is_not_cached(adapter: pathlib.Path, describe_it: Describe, cache: pathlib.Path) -> None:
    wait_until_cacheable(adapter)
    error_of(describe_it, rank=32)
    assert not cache.exists()


def write_many(path: str, number: int) -> None:
    """Write the same entry again and again; entries of different numbers differ in size."""
    for _round in range(200):
        write_entry(path, [[number]], CacheEntry((FileEntry("f" * 5000 * number, number, "0"),), (), {}))


def test_cache_concurrent_writers_leave_an_intact_entry(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "cache" / "entry.json")
    writers = [multiprocessing.get_context("fork").Process(target=write_many, args=(path, number)) for number in (1, 2, 3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if os.path.exists(path):
            assert json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["signature"] in ([[1]], [[2]], [[3]])
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    entries = [read_entry(path, [[number]]) for number in (1, 2, 3)]
    assert [entry.files[0].size for entry in entries if entry] == [number for number, entry in enumerate(entries, 1) if entry]
    assert sum(entry is not None for entry in entries) == 1
    assert os.listdir(tmp_path / "cache") == ["entry.json"]


def test_cache_interrupted_write_leaves_no_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TypeError):
        write_entry(str(tmp_path / "entry.json"), [[object()]], CacheEntry((), (), {}))
    assert os.listdir(tmp_path) == []
