# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Staging on real directories: what is planned, what is cleared away, and what is believed of what arrived."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import shutil
import stat
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils import _hashing
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.fetch import Fetch, check_space, plan_fetches
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.preflight import check_directories
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.staging import prepare, verify_staged

from tests.support.releases import NAME, WEIGHTS, content, manifest_of, write_version

CONFIG, TOKENIZER = "adapter_config.json", "tokenizer.json"
ALL = [CONFIG, WEIGHTS, TOKENIZER]
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


class Node:
    """The directories of a node."""

    def __init__(self, path: pathlib.Path) -> None:
        self.models = path / "models"
        self.store = path / "store"
        self.models.mkdir()

    def plan(self, *manifests: Manifest, transferred: bool = False) -> list[Fetch]:
        return plan_fetches(manifests, str(self.models), str(self.store), transferred)

    def one(self, manifest: t.Optional[Manifest] = None) -> Fetch:
        return self.plan(manifest or manifest_of(1))[0]

    def prepared(self, manifest: t.Optional[Manifest] = None) -> Fetch:
        item = self.one(manifest)
        prepare(item)
        return item

    def keep_release(self, version: int, name: str = NAME) -> pathlib.Path:
        """Put a release with its manifest in the store."""
        manifest = manifest_of(version, name)
        paths = AdapterPaths(str(self.models), str(self.store), name)
        write_version(paths.release(manifest.release), version)
        os.makedirs(paths.manifests, exist_ok=True)
        pathlib.Path(paths.manifest(manifest.release)).write_text(json.dumps(manifest.to_json()))
        return pathlib.Path(paths.release(manifest.release))


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def victim(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file elsewhere on the node, of another user where that can be."""
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


def arrive(item: Fetch, version: int = 1, *names: str) -> None:
    """What a transfer leaves: the missing files, or those that are named."""
    for name in names or [entry.path for entry in item.to_download]:
        pathlib.Path(item.staging, name).write_bytes(content(version)[name])


def names(entries: t.Iterable[FileEntry]) -> list[str]:
    return [entry.path for entry in entries]


def staged(item: Fetch) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in pathlib.Path(item.staging).iterdir()}


def test_a_fresh_node_lacks_everything(node: Node) -> None:
    item = node.one()
    assert not item.stored
    assert names(item.missing) == names(item.to_download) == ALL
    assert item.reusable == {}
    # A plan changes nothing.
    assert not node.store.exists()


def test_a_delivery_from_nothing(node: Node) -> None:
    item = node.prepared()
    arrive(item)
    assert verify_staged(item) == []
    assert staged(item) == content(1)
    assert node.one().missing == []


def test_directories_are_for_passing_through_alone(node: Node) -> None:
    before = os.umask(0o077)
    try:
        item = node.prepared()
    finally:
        os.umask(before)
    modes = {
        str(node.store): 0o711,
        item.paths.root: 0o711,
        item.paths.staging: 0o711,
        item.staging: 0o700,
    }
    assert {path: stat.S_IMODE(os.stat(path).st_mode) for path in modes} == modes


def test_what_is_staged_is_nobodys_to_read(node: Node) -> None:
    item = node.prepared()
    arrive(item)
    os.chmod(item.staging, 0o777)  # noqa: S103
    for name in ALL:
        os.chmod(os.path.join(item.staging, name), 0o666)  # noqa: S103
    assert verify_staged(item) == []
    assert stat.S_IMODE(os.stat(item.staging).st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in pathlib.Path(item.staging).iterdir()} == {0o600}


@as_root
def test_root_goes_on_with_nothing_of_another_user(node: Node) -> None:
    """Who began it, before another user was become there, may still have it open for writing."""
    first = node.prepared()
    arrive(first)
    for path in (first.staging, os.path.join(first.staging, CONFIG), os.path.join(first.staging, WEIGHTS)):
        os.chown(path, NOBODY, NOBODY)
    item = node.prepared()
    assert names(item.to_download) == [CONFIG, WEIGHTS]
    assert staged(item) == {TOKENIZER: content(1)[TOKENIZER]}
    assert os.stat(item.staging).st_uid == 0
    arrive(item)
    assert verify_staged(item) == []


@pytest.mark.parametrize("length", [0, 1, 511])
def test_a_beginning_is_kept_to_go_on_from(node: Node, length: int) -> None:
    beginning = content(1)[WEIGHTS][:length]
    first = node.prepared()
    pathlib.Path(first.staging, WEIGHTS).write_bytes(beginning)
    arrive(first, 1, CONFIG)
    item = node.prepared()
    assert names(item.to_download) == [WEIGHTS, TOKENIZER]
    assert staged(item) == {CONFIG: content(1)[CONFIG], WEIGHTS: beginning}
    assert item.staged_bytes == length


@pytest.mark.parametrize("data", [content(2)[WEIGHTS], content(1)[WEIGHTS] + b"more"])
def test_wrong_bytes_of_full_size_are_no_beginning(node: Node, data: bytes) -> None:
    first = node.prepared()
    pathlib.Path(first.staging, WEIGHTS).write_bytes(data)
    item = node.prepared()
    assert WEIGHTS in names(item.to_download)
    assert WEIGHTS not in staged(item)
    assert item.staged_bytes == 0


def test_what_does_not_belong_is_cleared_away(node: Node, victim: pathlib.Path) -> None:
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
    item = node.prepared()
    assert staged(item) == {}
    assert_untouched(victim)


def test_a_file_with_another_name_is_not_taken_over(node: Node, tmp_path: pathlib.Path) -> None:
    # Whoever has the other name could write to it when it is a release already.
    (tmp_path / "other").write_bytes(content(1)[WEIGHTS])
    staging = pathlib.Path(node.prepared().staging)
    (staging / WEIGHTS).hardlink_to(tmp_path / "other")
    item = node.prepared()
    assert names(item.to_download) == ALL
    assert staged(item) == {}
    arrive(item)
    assert verify_staged(item) == []


def test_a_beginning_with_another_name_is_not_gone_on_with(node: Node, victim: pathlib.Path) -> None:
    # To go on with it would be to write to that other file.
    staging = pathlib.Path(node.prepared().staging)
    (staging / WEIGHTS).hardlink_to(victim)
    assert staged(node.prepared()) == {}
    assert_untouched(victim)


def test_what_is_in_the_store_is_not_brought(node: Node) -> None:
    node.keep_release(1)
    item = node.one()
    assert item.stored
    assert item.missing == item.to_download == []


def test_a_damaged_release_is_brought_as_far_as_it_is_damaged(node: Node) -> None:
    release = node.keep_release(1)
    (release / WEIGHTS).write_bytes(content(2)[WEIGHTS])
    item = node.prepared()
    assert not item.stored
    assert names(item.to_download) == [WEIGHTS]
    assert item.reusable == {CONFIG: str(release / CONFIG), TOKENIZER: str(release / TOKENIZER)}
    arrive(item)
    assert verify_staged(item) == []
    assert staged(item) == content(1)


def test_a_release_with_a_file_too_many_is_not_in_the_store(node: Node) -> None:
    (node.keep_release(1) / "handler.py").write_text("code")
    item = node.prepared()
    assert not item.stored
    assert item.to_download == []
    assert verify_staged(item) == []
    assert staged(item) == content(1)


def test_another_release_gives_what_is_the_same(node: Node) -> None:
    release = node.keep_release(1)
    item = node.prepared(manifest_of(2))
    assert names(item.to_download) == [CONFIG, WEIGHTS]
    assert item.reusable == {TOKENIZER: str(release / TOKENIZER)}
    arrive(item, 2)
    assert verify_staged(item) == []
    assert staged(item) == content(2)
    assert (release / TOKENIZER).stat().st_nlink == 1


def test_another_adapter_gives_what_is_the_same(node: Node) -> None:
    release = node.keep_release(1, "another_lora")
    item = node.prepared(manifest_of(2))
    assert item.reusable == {TOKENIZER: str(release / TOKENIZER)}


def test_what_is_served_already_is_taken_from_there(node: Node) -> None:
    write_version(node.models / NAME, 1)
    item = node.prepared()
    assert item.to_download == []
    assert sorted(item.reusable) == ALL
    assert verify_staged(item) == []
    assert staged(item) == content(1)


def test_what_is_served_through_a_link_is_taken_from_there(node: Node) -> None:
    write_version(node.models / "elsewhere", 1)
    (node.models / NAME).symlink_to("elsewhere")
    assert node.one().to_download == []


def test_only_bytes_that_are_right_are_taken(node: Node) -> None:
    write_version(node.models / NAME, 2)
    release = node.keep_release(3)
    (release / TOKENIZER).write_bytes(b"x" * len(content(1)[TOKENIZER]))
    item = node.one()
    assert names(item.to_download) == [CONFIG, WEIGHTS]
    assert item.reusable == {TOKENIZER: str(node.models / NAME / TOKENIZER)}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/hostname", path)])
def test_only_plain_files_are_taken(node: Node, make: t.Callable[[str], None]) -> None:
    write_version(node.models / NAME, 1)
    (node.models / NAME / WEIGHTS).unlink()
    make(str(node.models / NAME / WEIGHTS))
    assert names(node.one().to_download) == [WEIGHTS]


def test_a_link_is_not_taken_even_where_its_target_would_do(node: Node, tmp_path: pathlib.Path) -> None:
    write_version(node.models / NAME, 1)
    (node.models / NAME / WEIGHTS).rename(tmp_path / "weights")
    (node.models / NAME / WEIGHTS).symlink_to(tmp_path / "weights")
    assert names(node.one().to_download) == [WEIGHTS]


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]"])
def test_a_damaged_manifest_in_the_store_only_helps_nobody(node: Node, damage: str) -> None:
    manifest = manifest_of(1, "another_lora")
    node.keep_release(1, "another_lora")
    path = AdapterPaths("", str(node.store), "another_lora").manifest(manifest.release)
    pathlib.Path(path).write_text(damage)
    assert names(node.one(manifest_of(2)).to_download) == ALL


def test_other_things_in_the_store_are_passed_over(node: Node) -> None:
    node.store.mkdir()
    (node.store / "lost+found").mkdir()
    (node.store / ".hidden").mkdir()
    (node.store / "file").write_text("")
    assert names(node.one().to_download) == ALL


def test_what_two_adapters_share_is_sent_once(node: Node) -> None:
    both = [manifest_of(1, "first_lora"), manifest_of(2, "second_lora")]
    first, second = node.plan(*both)
    for item in (first, second):
        prepare(item)
    assert names(first.to_download) == ALL
    assert names(second.to_download) == [CONFIG, WEIGHTS]
    assert names(second.missing) == ALL
    assert second.reusable == {}
    arrive(first, 1)
    arrive(second, 2)
    # As on the node, where what has come is looked at again before it is settled.
    first, second = node.plan(*both)
    assert second.reusable == {TOKENIZER: os.path.join(first.staging, TOKENIZER)}
    assert verify_staged(first) == []
    assert verify_staged(second) == []
    assert staged(first) == content(1)
    assert staged(second) == content(2)


def test_wrong_bytes_in_place_of_what_is_shared_are_replaced(node: Node) -> None:
    both = [manifest_of(1, "first_lora"), manifest_of(2, "second_lora")]
    first, second = node.plan(*both)
    for item in (first, second):
        prepare(item)
    pathlib.Path(second.staging, TOKENIZER).write_bytes(b"x" * len(content(2)[TOKENIZER]))
    first, second = node.plan(*both)
    for item in (first, second):
        prepare(item)
    assert TOKENIZER not in staged(second)
    arrive(first, 1)
    arrive(second, 2)
    for item in node.plan(*both, transferred=True):
        assert verify_staged(item) == []
    assert staged(second) == content(2)


def test_two_files_of_the_same_bytes_are_sent_once(node: Node) -> None:
    one = manifest_of(1)
    entry = next(entry for entry in one.files if entry.path == TOKENIZER)
    manifest = Manifest(NAME, tuple(sorted([*one.files, FileEntry("vocab.json", entry.size, entry.sha256)])), (), {}, {})
    item = node.prepared(manifest)
    assert names(item.to_download) == ALL
    assert names(item.missing) == [*ALL, "vocab.json"]
    arrive(item)
    item = node.one(manifest)
    assert verify_staged(item) == []
    assert sorted(staged(item)) == [*ALL, "vocab.json"]


def test_what_did_not_arrive_is_named(node: Node) -> None:
    item = node.prepared()
    arrive(item, 1, CONFIG, TOKENIZER)
    [problem] = verify_staged(item)
    assert problem.adapter == NAME
    assert "missing" in problem.problem
    assert WEIGHTS in problem.problem
    assert "The served files were not changed" in problem.remedy


def test_wrong_bytes_that_arrived_are_named_and_kept(node: Node) -> None:
    item = node.prepared()
    arrive(item)
    pathlib.Path(item.staging, WEIGHTS).write_bytes(content(2)[WEIGHTS])
    [problem] = verify_staged(item)
    assert WEIGHTS in problem.problem
    assert "sha256" in problem.problem
    assert staged(item)[WEIGHTS] == content(2)[WEIGHTS]
    assert names(node.one().to_download) == [WEIGHTS]


def test_what_has_arrived_is_hashed_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(node.prepared())
    opened: list[str] = []
    open_regular = _hashing.open_regular

    def note(path: str) -> t.BinaryIO:
        opened.append(os.path.basename(path))
        return open_regular(path)

    monkeypatch.setattr(_hashing, "open_regular", note)
    [item] = node.plan(manifest_of(1), transferred=True)
    assert verify_staged(item) == []
    assert sorted(opened) == ALL


def test_a_file_that_nobody_asked_for_is_named(node: Node) -> None:
    item = node.prepared()
    arrive(item)
    pathlib.Path(item.staging, "handler.py").write_text("code")
    [problem] = verify_staged(item)
    assert "extra" in problem.problem
    assert "handler.py" in problem.problem


def test_a_planted_link_is_not_written_through(node: Node, victim: pathlib.Path) -> None:
    write_version(node.models / NAME, 1)
    item = node.prepared()
    for name in ALL:
        os.symlink(victim, os.path.join(item.staging, name))
    assert verify_staged(item) == []
    assert staged(item) == content(1)
    assert not any(os.path.islink(os.path.join(item.staging, name)) for name in ALL)
    assert_untouched(victim)


def test_a_planted_directory_is_replaced(node: Node) -> None:
    write_version(node.models / NAME, 1)
    item = node.prepared()
    os.mkdir(os.path.join(item.staging, TOKENIZER))
    assert verify_staged(item) == []
    assert staged(item) == content(1)


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_a_planted_link_in_place_of_what_should_arrive_is_refused(
    node: Node, victim: pathlib.Path, plant: t.Callable[..., None]
) -> None:
    item = node.prepared()
    arrive(item, 1, CONFIG, TOKENIZER)
    plant(victim, os.path.join(item.staging, WEIGHTS))
    problems = verify_staged(item)
    assert problems
    assert all(WEIGHTS in problem.problem for problem in problems)
    assert_untouched(victim)


def test_a_local_file_that_became_a_link_is_not_followed(node: Node, victim: pathlib.Path) -> None:
    write_version(node.models / NAME, 1)
    item = node.prepared()
    served = node.models / NAME / TOKENIZER
    served.unlink()
    served.symlink_to(victim)
    with pytest.raises(DeliveryError, match=str(served)):
        verify_staged(item)
    assert_untouched(victim)


def test_a_local_file_that_changed_is_seen(node: Node) -> None:
    write_version(node.models / NAME, 1)
    item = node.prepared()
    (node.models / NAME / WEIGHTS).write_bytes(content(2)[WEIGHTS])
    [problem] = verify_staged(item)
    assert WEIGHTS in problem.problem


def test_a_local_file_that_vanished_is_named(node: Node) -> None:
    write_version(node.models / NAME, 1)
    item = node.prepared()
    shutil.rmtree(node.models / NAME)
    with pytest.raises(DeliveryError, match="cannot be read: No such file"):
        verify_staged(item)


def test_bytes_are_on_the_disk_when_they_are_settled(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    item = node.prepared()
    arrive(item)
    synced: set[int] = set()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    verify_staged(item)
    staging = pathlib.Path(item.staging)
    assert {path.stat().st_ino for path in [staging, *staging.iterdir()]} <= synced


def test_a_disk_that_does_not_take_the_bytes_is_an_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    item = node.prepared()
    arrive(item)

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DeliveryError, match="Input/output error"):
        verify_staged(item)


def test_staging_that_another_run_writes_to_is_left_alone(node: Node) -> None:
    item = node.prepared()
    beginning = pathlib.Path(item.staging, "handler.py")
    beginning.write_text("")
    descriptor = os.open(item.staging, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(DeliveryError, match="is being transferred to this node by another run"):
            prepare(item)
        assert beginning.exists()
    finally:
        os.close(descriptor)
    prepare(item)
    assert not beginning.exists()


def test_a_store_that_may_not_be_read_is_named_with_its_remedy(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.keep_release(1)

    def refused(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(DeliveryError, match=rf"^{node.store}: cannot be inspected: Permission denied\. Run with become"):
        node.one()


def test_enough_space(node: Node) -> None:
    check_space(str(node.store), [node.one()])


def test_too_little_space_names_both(node: Node, file_system: t.Callable[[str], pathlib.Path]) -> None:
    store = file_system("size=1m") / "not" / "yet"
    with pytest.raises(DeliveryError, match=r": 1\.2 kB and a reserve of 67\.1 MB are needed, \d+\.\d [kM]B are free"):
        check_space(str(store), [node.one()])


def test_space_is_needed_twice(node: Node, file_system: t.Callable[[str], pathlib.Path]) -> None:
    store = file_system("size=100m")
    weights = FileEntry(WEIGHTS, 17 << 20, "0" * 64)
    check_space(str(store), [node.one(Manifest(NAME, (weights,), (), {}, {}))])
    weights = FileEntry(WEIGHTS, 19 << 20, "0" * 64)
    with pytest.raises(DeliveryError, match=r"39\.8 MB and a reserve"):
        check_space(str(store), [node.one(Manifest(NAME, (weights,), (), {}, {}))])


def test_what_has_arrived_has_its_room(node: Node, file_system: t.Callable[[str], pathlib.Path]) -> None:
    store = file_system("size=100m")
    weights = FileEntry(WEIGHTS, 17 << 20, "0" * 64)
    item = node.one(Manifest(NAME, (weights,), (), {}, {}))
    # As an interrupted transfer leaves it, on the file system that is looked at.
    pathlib.Path(store, "arrived").write_bytes(bytes(16 << 20))
    os.makedirs(item.staging)
    pathlib.Path(item.staging, WEIGHTS).write_bytes(bytes(16 << 20))
    check_space(str(store), [item])
    pathlib.Path(item.staging, WEIGHTS).unlink()
    with pytest.raises(DeliveryError, match=r"35\.7 MB and a reserve"):
        check_space(str(store), [item])


def test_too_few_inodes(node: Node, file_system: t.Callable[[str], pathlib.Path]) -> None:
    # Each file twice, and 32 for whoever else writes there; the root has one of all.
    store = file_system("size=100m,nr_inodes=38")
    with pytest.raises(DeliveryError, match=r"has too few free inodes: 37 for 6 new files"):
        check_space(str(store), [node.one()])
    subprocess.run(["mount", "-o", "remount,nr_inodes=39", store], check=True)
    check_space(str(store), [node.one()])


def test_nothing_to_bring_needs_no_space(node: Node, file_system: t.Callable[[str], pathlib.Path]) -> None:
    node.keep_release(1)
    check_space(str(file_system("size=1m")), [node.one()])


def test_space_for_a_relative_store(node: Node, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_space("not/yet", [node.one()])


def test_no_place_for_the_store(tmp_path: pathlib.Path, node: Node) -> None:
    with pytest.raises(DeliveryError, match=r"does not exist.*correct the option store"):
        check_directories(str(node.models), str(tmp_path / "not" / "there"))


def test_a_store_that_is_a_file(node: Node) -> None:
    node.store.write_text("")
    with pytest.raises(DeliveryError, match=f"{NAME}: cannot be staged in .*: Not a directory"):
        prepare(node.one())


def test_a_read_only_store(node: Node, file_system: t.Callable[[str], pathlib.Path]) -> None:
    [item] = plan_fetches([manifest_of(1)], str(node.models), str(file_system("size=1m,ro") / "store"))
    with pytest.raises(DeliveryError, match=f"{NAME}: cannot be staged in .*: Read-only file system") as caught:
        prepare(item)
    assert "The served files were not changed" in str(caught.value)


def test_a_full_store(node: Node, file_system: t.Callable[[str], pathlib.Path]) -> None:
    write_version(node.models / NAME, 1)
    mounted = file_system("size=1m")
    [item] = plan_fetches([manifest_of(1)], str(node.models), str(mounted / "store"))
    prepare(item)
    with open(mounted / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(b"\1" * 4096)
    with pytest.raises(DeliveryError, match=f"{NAME}: cannot be staged in .*: No space left on device"):
        verify_staged(item)
