# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Preparation of staging directories and verification of the received files."""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import stat
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils import _hashing
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.fetch import plan_fetches
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.staging import drop_other_offers, prepare, verify_staged

from tests.support.releases import NAME, WEIGHTS, content, manifest_of, write_version
from tests.support.staging import CONFIG, TOKENIZER, StagingNode, names, receive, staged

ALL = [CONFIG, WEIGHTS, TOKENIZER]
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def node(tmp_path: pathlib.Path) -> StagingNode:
    return StagingNode(tmp_path)


@pytest.fixture
def victim(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file elsewhere on the node, owned by another user if the tests run as root."""
    path = tmp_path / "victim"
    path.write_text("precious")
    path.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    return path


def assert_untouched(victim: pathlib.Path) -> None:
    assert victim.read_text() == "precious"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644
    if os.geteuid() == 0:
        assert victim.stat().st_uid == NOBODY


def test_verify_staged_complete_transfer_succeeds(node: StagingNode) -> None:
    fetch = node.prepared()
    receive(fetch)
    assert verify_staged(fetch) == []
    assert staged(fetch) == content(1)
    assert node.one().missing == []


def test_prepare_creates_directories_that_cannot_be_listed(node: StagingNode) -> None:
    before = os.umask(0o077)
    try:
        fetch = node.prepared()
    finally:
        os.umask(before)
    modes = {
        str(node.store): 0o711,
        fetch.paths.root: 0o711,
        fetch.paths.staging: 0o711,
        fetch.staging: 0o700,
    }
    assert {path: stat.S_IMODE(os.stat(path).st_mode) for path in modes} == modes


def test_verify_staged_makes_files_private(node: StagingNode) -> None:
    fetch = node.prepared()
    receive(fetch)
    os.chmod(fetch.staging, 0o777)  # noqa: S103
    for name in ALL:
        os.chmod(os.path.join(fetch.staging, name), 0o666)  # noqa: S103
    assert verify_staged(fetch) == []
    assert stat.S_IMODE(os.stat(fetch.staging).st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in pathlib.Path(fetch.staging).iterdir()} == {0o600}


@as_root
def test_prepare_as_root_discards_files_of_other_users(node: StagingNode) -> None:
    """The other user may still have the files open for writing."""
    first = node.prepared()
    receive(first)
    for path in (first.staging, os.path.join(first.staging, CONFIG), os.path.join(first.staging, WEIGHTS)):
        os.chown(path, NOBODY, NOBODY)
    fetch = node.prepared()
    assert names(fetch.to_download) == [CONFIG, WEIGHTS]
    assert staged(fetch) == {TOKENIZER: content(1)[TOKENIZER]}
    assert os.stat(fetch.staging).st_uid == 0
    receive(fetch)
    assert verify_staged(fetch) == []


@pytest.mark.parametrize("length", [0, 1, 511])
def test_prepare_keeps_partial_files(node: StagingNode, length: int) -> None:
    beginning = content(1)[WEIGHTS][:length]
    first = node.prepared()
    pathlib.Path(first.staging, WEIGHTS).write_bytes(beginning)
    receive(first, 1, CONFIG)
    fetch = node.prepared()
    assert names(fetch.to_download) == [WEIGHTS, TOKENIZER]
    assert staged(fetch) == {CONFIG: content(1)[CONFIG], WEIGHTS: beginning}
    assert fetch.staged_bytes == length


@pytest.mark.parametrize("data", [content(2)[WEIGHTS], content(1)[WEIGHTS] + b"more"])
def test_prepare_removes_wrong_content_of_full_size(node: StagingNode, data: bytes) -> None:
    first = node.prepared()
    pathlib.Path(first.staging, WEIGHTS).write_bytes(data)
    fetch = node.prepared()
    assert WEIGHTS in names(fetch.to_download)
    assert WEIGHTS not in staged(fetch)
    assert fetch.staged_bytes == 0


def test_prepare_removes_unwanted_entries(node: StagingNode, victim: pathlib.Path) -> None:
    staging = pathlib.Path(node.prepared().staging)
    (staging / "handler.py").write_text("code")
    (staging / ".hidden").write_text("")
    (staging / "checkpoint").mkdir()
    (staging / "checkpoint" / "file").write_text("")
    (staging / "link").symlink_to(victim)
    (staging / CONFIG).symlink_to(victim)
    (staging / WEIGHTS).mkdir()
    os.mkfifo(staging / TOKENIZER)
    (staging / "other.json").hardlink_to(victim)
    fetch = node.prepared()
    assert staged(fetch) == {}
    assert_untouched(victim)


def test_prepare_removes_complete_hard_link(node: StagingNode, tmp_path: pathlib.Path) -> None:
    # The other name could be used to write to the file after it has become part of a release.
    (tmp_path / "other").write_bytes(content(1)[WEIGHTS])
    staging = pathlib.Path(node.prepared().staging)
    (staging / WEIGHTS).hardlink_to(tmp_path / "other")
    fetch = node.prepared()
    assert names(fetch.to_download) == ALL
    assert staged(fetch) == {}
    receive(fetch)
    assert verify_staged(fetch) == []


def test_prepare_removes_partial_hard_link(node: StagingNode, victim: pathlib.Path) -> None:
    # Resuming the transfer would write to the other file.
    staging = pathlib.Path(node.prepared().staging)
    (staging / WEIGHTS).hardlink_to(victim)
    assert staged(node.prepared()) == {}
    assert_untouched(victim)


def test_verify_staged_reports_missing_file(node: StagingNode) -> None:
    fetch = node.prepared()
    receive(fetch, 1, CONFIG, TOKENIZER)
    [problem] = verify_staged(fetch)
    assert problem.adapter == NAME
    assert "missing" in problem.problem
    assert WEIGHTS in problem.problem
    assert "The served files were not changed" in problem.remedy


def test_verify_staged_reports_and_keeps_wrong_content(node: StagingNode) -> None:
    fetch = node.prepared()
    receive(fetch)
    pathlib.Path(fetch.staging, WEIGHTS).write_bytes(content(2)[WEIGHTS])
    [problem] = verify_staged(fetch)
    assert WEIGHTS in problem.problem
    assert "sha256" in problem.problem
    assert staged(fetch)[WEIGHTS] == content(2)[WEIGHTS]
    assert names(node.one().to_download) == [WEIGHTS]


def test_verify_staged_hashes_each_file_once(node: StagingNode, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(node.prepared())
    opened: list[str] = []
    open_regular = _hashing.open_regular

    def note(path: str) -> t.BinaryIO:
        opened.append(os.path.basename(path))
        return open_regular(path)

    monkeypatch.setattr(_hashing, "open_regular", note)
    [fetch] = node.plan(manifest_of(1), transferred=True)
    assert verify_staged(fetch) == []
    assert sorted(opened) == ALL


def test_verify_staged_reports_extra_file(node: StagingNode) -> None:
    fetch = node.prepared()
    receive(fetch)
    pathlib.Path(fetch.staging, "handler.py").write_text("code")
    [problem] = verify_staged(fetch)
    assert "extra" in problem.problem
    assert "handler.py" in problem.problem


def test_verify_staged_replaces_planted_link_of_reusable_file(node: StagingNode, victim: pathlib.Path) -> None:
    write_version(node.models / NAME, 1)
    fetch = node.prepared()
    for name in ALL:
        os.symlink(victim, os.path.join(fetch.staging, name))
    assert verify_staged(fetch) == []
    assert staged(fetch) == content(1)
    assert not any(os.path.islink(os.path.join(fetch.staging, name)) for name in ALL)
    assert_untouched(victim)


def test_verify_staged_replaces_planted_directory(node: StagingNode) -> None:
    write_version(node.models / NAME, 1)
    fetch = node.prepared()
    os.mkdir(os.path.join(fetch.staging, TOKENIZER))
    assert verify_staged(fetch) == []
    assert staged(fetch) == content(1)


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_verify_staged_reports_planted_link_of_download(
    node: StagingNode, victim: pathlib.Path, plant: t.Callable[..., None]
) -> None:
    fetch = node.prepared()
    receive(fetch, 1, CONFIG, TOKENIZER)
    plant(victim, os.path.join(fetch.staging, WEIGHTS))
    problems = verify_staged(fetch)
    assert problems
    assert all(WEIGHTS in problem.problem for problem in problems)
    assert_untouched(victim)


def test_verify_staged_does_not_follow_new_link_at_reusable_file(node: StagingNode, victim: pathlib.Path) -> None:
    write_version(node.models / NAME, 1)
    fetch = node.prepared()
    served = node.models / NAME / TOKENIZER
    served.unlink()
    served.symlink_to(victim)
    with pytest.raises(DeliveryError, match=str(served)):
        verify_staged(fetch)
    assert_untouched(victim)


def test_verify_staged_reports_changed_reusable_file(node: StagingNode) -> None:
    write_version(node.models / NAME, 1)
    fetch = node.prepared()
    (node.models / NAME / WEIGHTS).write_bytes(content(2)[WEIGHTS])
    [problem] = verify_staged(fetch)
    assert WEIGHTS in problem.problem


def test_verify_staged_names_vanished_reusable_file(node: StagingNode) -> None:
    write_version(node.models / NAME, 1)
    fetch = node.prepared()
    shutil.rmtree(node.models / NAME)
    with pytest.raises(DeliveryError, match="cannot be read: No such file"):
        verify_staged(fetch)


def test_verify_staged_flushes_files_and_directory(node: StagingNode, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = node.prepared()
    receive(fetch)
    synced: set[int] = set()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    verify_staged(fetch)
    staging = pathlib.Path(fetch.staging)
    assert {path.stat().st_ino for path in [staging, *staging.iterdir()]} <= synced


def test_verify_staged_failed_fsync_is_error(node: StagingNode, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = node.prepared()
    receive(fetch)

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DeliveryError, match="Input/output error"):
        verify_staged(fetch)


def test_prepare_refuses_directory_with_active_receiver(node: StagingNode) -> None:
    fetch = node.prepared()
    beginning = pathlib.Path(fetch.staging, "handler.py")
    beginning.write_text("")
    descriptor = os.open(fetch.staging, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(DeliveryError, match="is being transferred to this node by another run"):
            prepare(fetch)
        assert beginning.exists()
    finally:
        os.close(descriptor)
    prepare(fetch)
    assert not beginning.exists()


def test_prepare_with_file_as_store_is_error(node: StagingNode) -> None:
    node.store.write_text("")
    with pytest.raises(DeliveryError, match=f"{NAME}: cannot be staged in .*: Not a directory"):
        prepare(node.one())


def test_prepare_on_read_only_store_is_error(node: StagingNode, file_system: t.Callable[[str], pathlib.Path]) -> None:
    [fetch] = plan_fetches([manifest_of(1)], str(node.models), str(file_system("size=1m,ro") / "store"))
    with pytest.raises(DeliveryError, match=f"{NAME}: cannot be staged in .*: Read-only file system") as caught:
        prepare(fetch)
    assert "The served files were not changed" in str(caught.value)


def test_verify_staged_on_full_store_is_error(node: StagingNode, file_system: t.Callable[[str], pathlib.Path]) -> None:
    write_version(node.models / NAME, 1)
    mounted = file_system("size=1m")
    [fetch] = plan_fetches([manifest_of(1)], str(node.models), str(mounted / "store"))
    prepare(fetch)
    with open(mounted / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(b"\1" * 4096)
    with pytest.raises(DeliveryError, match=f"{NAME}: cannot be staged in .*: No space left on device"):
        verify_staged(fetch)


def test_drop_other_offers_keeps_this_one_and_those_being_received(node: StagingNode) -> None:
    for version in (1, 2, 3):
        receive(node.prepared(manifest_of(version)), version)
    fetch = node.one(manifest_of(3))
    staging = pathlib.Path(fetch.paths.staging)
    (staging / "file").touch()
    descriptor = os.open(staging / manifest_of(2).release, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        drop_other_offers(fetch)
        assert {path.name for path in staging.iterdir()} == {manifest_of(2).release, manifest_of(3).release}
    finally:
        os.close(descriptor)
    drop_other_offers(fetch)
    assert [path.name for path in staging.iterdir()] == [manifest_of(3).release]
    assert staged(fetch) == content(3)


def test_drop_other_offers_without_a_store_does_nothing(node: StagingNode) -> None:
    drop_other_offers(node.one())
    assert not node.store.exists()


@as_root
def test_drop_other_offers_in_a_directory_of_another_user_is_error(node: StagingNode) -> None:
    fetch = node.prepared()
    os.chown(fetch.paths.staging, NOBODY, NOBODY)
    with pytest.raises(DeliveryError, match="belongs to user nobody"):
        drop_other_offers(node.one(manifest_of(2)))
    assert os.listdir(fetch.paths.staging) == [fetch.manifest.release]
