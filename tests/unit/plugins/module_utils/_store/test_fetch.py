# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be downloaded, what can be reused, and the space for it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.fetch import check_space
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.staging import prepare, verify_staged

from tests.support.releases import NAME, WEIGHTS, content, manifest_of, write_version
from tests.support.staging import CONFIG, TOKENIZER, StagingNode, names, receive, staged

ALL = [CONFIG, WEIGHTS, TOKENIZER]


@pytest.fixture
def node(tmp_path: pathlib.Path) -> StagingNode:
    return StagingNode(tmp_path)


def test_plan_fetches_on_new_node_downloads_everything(node: StagingNode) -> None:
    fetch = node.one()
    assert not fetch.stored
    assert names(fetch.missing) == names(fetch.to_download) == ALL
    assert fetch.reusable == {}
    # Planning writes nothing.
    assert not node.store.exists()


def test_plan_fetches_stored_release_needs_nothing(node: StagingNode) -> None:
    node.add_release(1)
    fetch = node.one()
    assert fetch.stored
    assert fetch.missing == fetch.to_download == []


def test_plan_fetches_damaged_release_downloads_only_damaged_files(node: StagingNode) -> None:
    release = node.add_release(1)
    (release / WEIGHTS).write_bytes(content(2)[WEIGHTS])
    fetch = node.prepared()
    assert not fetch.stored
    assert names(fetch.to_download) == [WEIGHTS]
    assert fetch.reusable == {CONFIG: str(release / CONFIG), TOKENIZER: str(release / TOKENIZER)}
    receive(fetch)
    assert verify_staged(fetch) == []
    assert staged(fetch) == content(1)


def test_plan_fetches_release_with_extra_file_is_not_stored(node: StagingNode) -> None:
    (node.add_release(1) / "handler.py").write_text("code")
    fetch = node.prepared()
    assert not fetch.stored
    assert fetch.to_download == []
    assert verify_staged(fetch) == []
    assert staged(fetch) == content(1)


def test_plan_fetches_reuses_files_of_other_release(node: StagingNode) -> None:
    release = node.add_release(1)
    fetch = node.prepared(manifest_of(2))
    assert names(fetch.to_download) == [CONFIG, WEIGHTS]
    assert fetch.reusable == {TOKENIZER: str(release / TOKENIZER)}
    receive(fetch, 2)
    assert verify_staged(fetch) == []
    assert staged(fetch) == content(2)
    assert (release / TOKENIZER).stat().st_nlink == 1


def test_plan_fetches_reuses_files_of_other_adapter(node: StagingNode) -> None:
    release = node.add_release(1, "another_lora")
    fetch = node.prepared(manifest_of(2))
    assert fetch.reusable == {TOKENIZER: str(release / TOKENIZER)}


def test_plan_fetches_reuses_served_files(node: StagingNode) -> None:
    write_version(node.models / NAME, 1)
    fetch = node.prepared()
    assert fetch.to_download == []
    assert sorted(fetch.reusable) == ALL
    assert verify_staged(fetch) == []
    assert staged(fetch) == content(1)


def test_plan_fetches_reuses_files_served_through_link(node: StagingNode) -> None:
    write_version(node.models / "elsewhere", 1)
    (node.models / NAME).symlink_to("elsewhere")
    assert node.one().to_download == []


def test_plan_fetches_reuses_only_matching_content(node: StagingNode) -> None:
    write_version(node.models / NAME, 2)
    release = node.add_release(3)
    (release / TOKENIZER).write_bytes(b"x" * len(content(1)[TOKENIZER]))
    fetch = node.one()
    assert names(fetch.to_download) == [CONFIG, WEIGHTS]
    assert fetch.reusable == {TOKENIZER: str(node.models / NAME / TOKENIZER)}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/hostname", path)])
def test_plan_fetches_reuses_only_plain_files(node: StagingNode, make: t.Callable[[str], None]) -> None:
    write_version(node.models / NAME, 1)
    (node.models / NAME / WEIGHTS).unlink()
    make(str(node.models / NAME / WEIGHTS))
    assert names(node.one().to_download) == [WEIGHTS]


def test_plan_fetches_ignores_link_to_matching_content(node: StagingNode, tmp_path: pathlib.Path) -> None:
    write_version(node.models / NAME, 1)
    (node.models / NAME / WEIGHTS).rename(tmp_path / "weights")
    (node.models / NAME / WEIGHTS).symlink_to(tmp_path / "weights")
    assert names(node.one().to_download) == [WEIGHTS]


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]"])
def test_plan_fetches_ignores_release_with_damaged_manifest(node: StagingNode, damage: str) -> None:
    manifest = manifest_of(1, "another_lora")
    node.add_release(1, "another_lora")
    path = AdapterPaths("", str(node.store), "another_lora").manifest(manifest.release)
    pathlib.Path(path).write_text(damage)
    assert names(node.one(manifest_of(2)).to_download) == ALL


def test_plan_fetches_ignores_other_entries_of_store(node: StagingNode) -> None:
    node.store.mkdir()
    (node.store / "lost+found").mkdir()
    (node.store / ".hidden").mkdir()
    (node.store / "file").write_text("")
    assert names(node.one().to_download) == ALL


def test_plan_fetches_downloads_shared_file_once(node: StagingNode) -> None:
    both = [manifest_of(1, "first_lora"), manifest_of(2, "second_lora")]
    first, second = node.plan(*both)
    for fetch in (first, second):
        prepare(fetch)
    assert names(first.to_download) == ALL
    assert names(second.to_download) == [CONFIG, WEIGHTS]
    assert names(second.missing) == ALL
    assert second.reusable == {}
    receive(first, 1)
    receive(second, 2)
    # As on a node, which plans again after the transfer.
    first, second = node.plan(*both)
    assert second.reusable == {TOKENIZER: os.path.join(first.staging, TOKENIZER)}
    assert verify_staged(first) == []
    assert verify_staged(second) == []
    assert staged(first) == content(1)
    assert staged(second) == content(2)


def test_plan_fetches_replaces_wrong_content_of_shared_file(node: StagingNode) -> None:
    both = [manifest_of(1, "first_lora"), manifest_of(2, "second_lora")]
    first, second = node.plan(*both)
    for fetch in (first, second):
        prepare(fetch)
    pathlib.Path(second.staging, TOKENIZER).write_bytes(b"x" * len(content(2)[TOKENIZER]))
    first, second = node.plan(*both)
    for fetch in (first, second):
        prepare(fetch)
    assert TOKENIZER not in staged(second)
    receive(first, 1)
    receive(second, 2)
    for fetch in node.plan(*both, transferred=True):
        assert verify_staged(fetch) == []
    assert staged(second) == content(2)


def test_plan_fetches_downloads_duplicate_file_once(node: StagingNode) -> None:
    one = manifest_of(1)
    entry = next(entry for entry in one.files if entry.path == TOKENIZER)
    manifest = Manifest(NAME, tuple(sorted([*one.files, FileEntry("vocab.json", entry.size, entry.sha256)])), (), {}, {})
    fetch = node.prepared(manifest)
    assert names(fetch.to_download) == ALL
    assert names(fetch.missing) == [*ALL, "vocab.json"]
    receive(fetch)
    fetch = node.one(manifest)
    assert verify_staged(fetch) == []
    assert sorted(staged(fetch)) == [*ALL, "vocab.json"]


def test_plan_fetches_unreadable_store_is_error_with_remedy(node: StagingNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.add_release(1)

    def refused(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(DeliveryError, match=rf"^{node.store}: cannot be inspected: Permission denied\. Run with become"):
        node.one()


def test_check_space_accepts_enough_space(node: StagingNode) -> None:
    check_space(str(node.store), [node.one()])


def test_check_space_error_has_needed_and_free_space(node: StagingNode, file_system: t.Callable[[str], pathlib.Path]) -> None:
    store = file_system("size=1m") / "not" / "yet"
    with pytest.raises(DeliveryError, match=r": 1\.2 kB and a reserve of 67\.1 MB are needed, \d+\.\d [kM]B are free"):
        check_space(str(store), [node.one()])


def test_check_space_counts_each_file_twice(node: StagingNode, file_system: t.Callable[[str], pathlib.Path]) -> None:
    store = file_system("size=100m")
    weights = FileEntry(WEIGHTS, 17 << 20, "0" * 64)
    check_space(str(store), [node.one(Manifest(NAME, (weights,), (), {}, {}))])
    weights = FileEntry(WEIGHTS, 19 << 20, "0" * 64)
    with pytest.raises(DeliveryError, match=r"39\.8 MB and a reserve"):
        check_space(str(store), [node.one(Manifest(NAME, (weights,), (), {}, {}))])


def test_check_space_subtracts_staged_bytes(node: StagingNode, file_system: t.Callable[[str], pathlib.Path]) -> None:
    store = file_system("size=100m")
    weights = FileEntry(WEIGHTS, 17 << 20, "0" * 64)
    fetch = node.one(Manifest(NAME, (weights,), (), {}, {}))
    # The bytes that an interrupted transfer has staged, also on the file system whose space is
    # checked.
    pathlib.Path(store, "arrived").write_bytes(bytes(16 << 20))
    os.makedirs(fetch.staging)
    pathlib.Path(fetch.staging, WEIGHTS).write_bytes(bytes(16 << 20))
    check_space(str(store), [fetch])
    pathlib.Path(fetch.staging, WEIGHTS).unlink()
    with pytest.raises(DeliveryError, match=r"35\.7 MB and a reserve"):
        check_space(str(store), [fetch])


def test_check_space_counts_inodes(node: StagingNode, file_system: t.Callable[[str], pathlib.Path]) -> None:
    # Two for each of three files, 32 in reserve, and one for the root directory.
    store = file_system("size=100m,nr_inodes=38")
    with pytest.raises(DeliveryError, match=r"has too few free inodes: 37 for 6 new files"):
        check_space(str(store), [node.one()])
    subprocess.run(["mount", "-o", "remount,nr_inodes=39", store], check=True)
    check_space(str(store), [node.one()])


def test_check_space_without_missing_files_needs_none(node: StagingNode, file_system: t.Callable[[str], pathlib.Path]) -> None:
    node.add_release(1)
    check_space(str(file_system("size=1m")), [node.one()])


def test_check_space_accepts_relative_store(node: StagingNode, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_space("not/yet", [node.one()])
