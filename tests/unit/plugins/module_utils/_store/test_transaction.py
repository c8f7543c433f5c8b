# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils import _hashing
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._store import activate
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.lock import locked
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import Permissions
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import ActivationOptions
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.transaction import carry_out

from tests.support.releases import NAME, WEIGHTS, manifest_of, release_of, stage, version_at, write_version
from tests.support.transactions import Method, Node

METHODS: tuple[Method, ...] = ("exchange", "symlink")


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return t.cast("Method", request.param)


def modes(directory: pathlib.Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o7777 for path in (directory, *directory.iterdir())}


# Activation


def test_activate_first_release_creates_store_and_served_copy(node: Node, method: Method) -> None:
    umask = os.umask(0o077)
    try:
        outcome = node.deploy(1, method)
    finally:
        os.umask(umask)
    assert outcome["action"] == "activated"
    assert (outcome["release"], outcome["previous"], outcome["adopted"]) == (release_of(1), None, None)
    assert outcome["activation"] == method
    assert outcome["path"] == str(node.release(1))
    assert outcome["receipt"]["level"] == "model"
    assert (len(outcome["files"]), outcome["size"]) == (3, manifest_of(1).size)
    assert [entry["release"] for entry in outcome["history"]] == [release_of(1)]
    assert version_at(node.served) == version_at(node.release(1)) == 1
    wanted = {"adapter_config.json": 0o644, WEIGHTS: 0o644, "tokenizer.json": 0o644}
    assert modes(node.release(1)) == {release_of(1): 0o755, **wanted}
    assert node.junk() == []
    for directory in (node.store, node.root, node.root / "staging"):
        assert directory.stat().st_mode & 0o7777 == 0o711
    for name in ("releases", "manifests", "receipts"):
        assert (node.root / name).stat().st_mode & 0o7777 == 0o755
    if method == "exchange":
        assert modes(node.served) == {NAME: 0o755, **wanted}
        assert (node.served / WEIGHTS).stat().st_ino != (node.release(1) / WEIGHTS).stat().st_ino
        assert (node.served / WEIGHTS).stat().st_nlink == 1
    else:
        assert os.readlink(node.served) == f"../store/{NAME}/releases/{release_of(1)}"


def test_activate_again_writes_nothing(node: Node, method: Method) -> None:
    node.deploy(1, method)
    before = node.snapshot()
    outcome = node.carry_out(1, method)
    assert outcome["action"] == "unchanged"
    assert not node.changed
    assert node.snapshot() == before


def test_activate_with_extended_manifest_saves_it(node: Node) -> None:
    node.deploy(1)
    request = node.request(1)
    assert request.manifest is not None
    known = dataclasses.replace(request.manifest, golden={"schema": 1}, versions={"torch": "2.13.0"})
    requests = [dataclasses.replace(request, manifest=known)]
    before = node.snapshot()
    assert node.carry_out_all(requests, check_mode=True)[0]["action"] == "unchanged"
    assert node.changed
    assert node.snapshot() == before
    node.carry_out_all(requests)
    assert node.changed
    assert node.paths.read_manifest(known.release) == known
    node.carry_out_all(requests)
    assert not node.changed


def test_activate_with_auto_keeps_exchange(node: Node) -> None:
    node.deploy(1, "auto")
    before = node.snapshot()
    assert node.carry_out(1, "auto")["activation"] == "exchange"
    assert node.snapshot() == before


def test_activate_next_release_keeps_previous(node: Node, method: Method) -> None:
    node.deploy(1, method)
    outcome = node.deploy(2, method)
    assert (outcome["action"], outcome["previous"], outcome["adopted"]) == ("activated", release_of(1), None)
    assert version_at(node.served) == 2
    assert version_at(node.release(1)) == 1
    assert node.junk() == []


def test_activate_deletes_other_staged_releases(node: Node) -> None:
    stage(node.paths, 3)
    node.deploy(1)
    assert not os.listdir(node.root / "staging")
    assert not (node.root / "receipts" / f"{release_of(3)}.json").exists()
    stage(node.paths, 2)
    assert node.carry_out(1)["action"] == "unchanged"
    assert version_at(node.paths.staged(release_of(2))) == 2


def test_activate_keeps_staging_with_active_receiver(node: Node) -> None:
    stage(node.paths, 3)
    receiver = os.open(node.paths.staged(release_of(3)), os.O_RDONLY)
    try:
        fcntl.flock(receiver, fcntl.LOCK_EX)
        node.deploy(1)
        assert version_at(node.paths.staged(release_of(3))) == 3
    finally:
        os.close(receiver)
    node.deploy(2)
    assert not os.listdir(node.root / "staging")


def test_activate_with_auto_keeps_recorded_method(node: Node) -> None:
    node.deploy(1, "symlink")
    assert node.carry_out(1, "auto", check_mode=True)["action"] == "unchanged"
    assert node.carry_out(1, "auto")["action"] == "unchanged"
    assert node.deploy(2, "auto")["activation"] == "symlink"
    assert node.carry_out(2, "exchange")["activation"] == "exchange"
    assert node.deploy(3, "auto")["activation"] == "exchange"


def test_activate_with_other_method_switches(node: Node) -> None:
    node.deploy(1, "exchange")
    outcome = node.carry_out(1, "symlink")
    assert (outcome["action"], outcome["activation"], outcome["adopted"]) == ("repaired", "symlink", None)
    assert outcome["drift"] == [f"changed  {node.served}  a directory instead of a link to {release_of(1)}"]
    assert node.served.is_symlink()
    outcome = node.carry_out(1, "exchange")
    assert (outcome["action"], outcome["activation"]) == ("repaired", "exchange")
    assert outcome["drift"] == [f"changed  {node.served}  a link to {release_of(1)} instead of a directory"]
    assert not node.served.is_symlink()
    assert version_at(node.served) == 1
    assert node.junk() == []


# Manual copies


def test_activate_over_equal_manual_copy_keeps_directory(node: Node) -> None:
    write_version(node.served, 1)
    inode = node.served.stat().st_ino
    outcome = node.deploy(1)
    assert (outcome["action"], outcome["adopted"]) == ("activated", None)
    assert node.served.stat().st_ino == inode
    assert modes(node.served)[WEIGHTS] == 0o644


def test_activate_unstaged_release_from_manual_copy(node: Node) -> None:
    write_version(node.served, 1)
    stage(node.paths, 1)
    shutil.rmtree(node.paths.staged(release_of(1)))
    assert node.carry_out(1)["action"] == "activated"
    assert version_at(node.release(1)) == 1
    assert (node.release(1) / WEIGHTS).stat().st_ino != (node.served / WEIGHTS).stat().st_ino


def test_activate_over_unknown_directory_quarantines_it(node: Node, method: Method) -> None:
    write_version(node.served, 7)
    (node.served / "checkpoint-10").mkdir()
    (node.served / "checkpoint-10" / "optimizer.pt").write_text("state")
    outcome = node.deploy(1, method)
    adopted = pathlib.Path(outcome["adopted"])
    assert adopted.parent == node.root
    assert adopted.name.startswith("adopted-20")
    assert (adopted / "checkpoint-10" / "optimizer.pt").read_text() == "state"
    assert version_at(node.served) == 1


def test_activate_quarantines_two_directories_in_one_second(node: Node) -> None:
    for version in (7, 8):
        if version == 8:
            shutil.rmtree(node.served)
        write_version(node.served, version)
        node.deploy(version - 6)
    assert sorted(filter(None, map(version_at, node.root.glob("adopted-*")))) == [7, 8]


def test_activate_restores_lost_release_from_displaced_copy(node: Node) -> None:
    node.deploy(1)
    shutil.rmtree(node.release(1))
    outcome = node.deploy(2)
    assert outcome["adopted"] is None
    assert version_at(node.release(1)) == 1


def test_activate_restores_damaged_release_from_displaced_copy(node: Node) -> None:
    node.deploy(1)
    (node.release(1) / WEIGHTS).write_bytes(b"damage")
    outcome = node.deploy(2)
    assert version_at(node.release(1)) == 1
    assert (pathlib.Path(outcome["adopted"]) / WEIGHTS).read_bytes() == b"damage"


@pytest.mark.parametrize("make", ["link", "file"])
def test_activate_over_foreign_link_or_file_is_error(node: Node, method: Method, make: str, tmp_path: pathlib.Path) -> None:
    if make == "link":
        write_version(tmp_path / "elsewhere" / release_of(1), 1)
        node.served.symlink_to(tmp_path / "elsewhere" / release_of(1))
    else:
        node.served.write_text("content")
    stage(node.paths, 1)
    with pytest.raises(DeliveryError, match="never replaced"):
        node.carry_out(1, method)
    assert node.served.is_symlink() == (make == "link")


# Drift


def test_repair_of_changed_served_file_uses_store(node: Node) -> None:
    node.deploy(1)
    (node.served / WEIGHTS).write_bytes(b"newer")
    outcome = node.carry_out(1)
    assert outcome["action"] == "repaired"
    assert outcome["drift"] == [f"changed  {node.served / WEIGHTS}  5 bytes instead of 512"]
    assert version_at(node.served) == 1
    assert (pathlib.Path(outcome["adopted"]) / WEIGHTS).read_bytes() == b"newer"
    assert node.carry_out(1)["action"] == "unchanged"


def test_repair_of_incomplete_served_directory_quarantines_nothing(node: Node) -> None:
    node.deploy(1)
    (node.served / WEIGHTS).unlink()
    outcome = node.carry_out(1)
    assert (outcome["action"], outcome["adopted"]) == ("repaired", None)
    assert version_at(node.served) == 1
    assert node.junk() == []


def test_repair_of_absent_served_path(node: Node, method: Method) -> None:
    node.deploy(1, method)
    if method == "symlink":
        node.served.unlink()
    else:
        shutil.rmtree(node.served)
    outcome = node.carry_out(1, method)
    assert (outcome["action"], version_at(node.served)) == ("repaired", 1)
    wanted = f"a link to {release_of(1)}" if method == "symlink" else "a directory"
    assert outcome["drift"] == [f"missing  {node.served}  nothing instead of {wanted}"]


def test_repair_of_modes_keeps_directory(node: Node) -> None:
    node.deploy(1)
    inode = node.served.stat().st_ino
    (node.served / WEIGHTS).chmod(0o600)
    node.release(1).chmod(0o700)
    outcome = node.carry_out(1)
    assert outcome["action"] == "repaired"
    assert [line.split()[0] for line in outcome["drift"]] == ["mode", "mode"]
    assert node.served.stat().st_ino == inode
    assert node.carry_out(1)["action"] == "unchanged"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_activate_with_owner_sets_it(node: Node, method: Method) -> None:
    stage(node.paths, 1)
    os.chown(pathlib.Path(node.paths.staged(release_of(1)), WEIGHTS), 1234, 1234)
    node.carry_out(1, method, uid=4321, gid=4322)
    # The owner of the served copy could change what a rollback returns to.
    for directory, uid in ((node.release(1), 0), (node.served, 0 if method == "symlink" else 4321)):
        for path in (directory, *directory.iterdir()):
            assert (path.stat().st_uid, path.stat().st_gid) == (uid, 4322)
    assert node.carry_out(1, method, uid=4321, gid=4322)["action"] == "unchanged"


def give_away(directory: pathlib.Path, uid: int) -> None:
    """Make a release as earlier versions of the collection did."""
    for path in (directory, *directory.iterdir()):
        os.chown(path, uid, uid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_activate_takes_over_releases_of_the_owner(node: Node, method: Method) -> None:
    for version in (1, 2):
        node.deploy(version, method, uid=4321)
        give_away(node.release(version), 4321)
    outcome = node.carry_out(2, method, uid=4321)
    assert outcome["action"] == "repaired"
    assert "owner 4321 instead of 0" in outcome["drift"][0]
    for version in (1, 2):
        assert {path.lstat().st_uid for path in (node.release(version), *node.release(version).iterdir())} == {0}
    assert node.carry_out(2, method, uid=4321)["action"] == "unchanged"
    assert node.roll_back(method, uid=4321)["action"] == "rolled_back"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_activate_takes_over_no_release_with_hard_links(node: Node, tmp_path: pathlib.Path) -> None:
    node.deploy(1, uid=4321)
    node.deploy(2, uid=4321)
    victim = tmp_path / "victim"
    victim.write_bytes((node.release(1) / WEIGHTS).read_bytes())
    victim.chmod(0o600)
    os.chown(victim, 1, 1)
    (node.release(1) / WEIGHTS).unlink()
    (node.release(1) / WEIGHTS).hardlink_to(victim)
    give_away(node.release(1), 1)
    node.carry_out(2, uid=4321)
    assert (victim.stat().st_uid, victim.stat().st_mode & 0o777) == (1, 0o600)


def test_activate_keeps_the_release_from_other_writers(node: Node) -> None:
    stage(node.paths, 1)
    permissions = Permissions(0o664, 0o775)
    carry_out([node.request(1)], ActivationOptions("model", "exchange", 3, permissions), False, [])
    assert (node.release(1).stat().st_mode & 0o777, node.served.stat().st_mode & 0o777) == (0o755, 0o775)
    modes = [(directory / WEIGHTS).stat().st_mode & 0o777 for directory in (node.release(1), node.served)]
    assert modes == [0o644, 0o664]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(
    ("file_mode", "directory_mode", "gid", "readable"),
    [(0o644, 0o755, None, True), (0o600, 0o755, None, False), (0o644, 0o700, None, False), (0o640, 0o750, 65534, True)],
)
def test_activate_by_symlink_needs_a_release_that_the_owner_can_read(
    node: Node, file_mode: int, directory_mode: int, gid: int | None, readable: bool
) -> None:
    stage(node.paths, 1)
    options = ActivationOptions("model", "symlink", 3, Permissions(file_mode, directory_mode, 65534, gid))
    if readable:
        carry_out([node.request(1)], options, False, [])
        assert node.served.is_symlink()
    else:
        with pytest.raises(DeliveryError, match="owner nobody: could not read releases through the link"):
            carry_out([node.request(1)], options, False, [])
        assert not node.served.is_symlink()


@pytest.mark.parametrize("source", ["name", "staging"])
def test_repair_of_damaged_release_uses_served_or_staged_copy(node: Node, source: str) -> None:
    node.deploy(1)
    (node.release(1) / WEIGHTS).write_bytes(b"damage")
    if source == "staging":
        (node.served / WEIGHTS).write_bytes(b"damage")
        stage(node.paths, 1)
    outcome = node.carry_out(1)
    assert outcome["action"] == "repaired"
    assert version_at(node.served) == version_at(node.release(1)) == 1
    assert node.carry_out(1)["action"] == "unchanged"
    assert node.junk() == []


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO])
def test_repair_of_damaged_release_without_exchange(node: Node, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def fail(_one: str, _other: str) -> None:
        raise OSError(error, os.strerror(error))

    node.deploy(1, "symlink")
    (node.served / WEIGHTS).write_bytes(b"newer")
    monkeypatch.setattr(activate, "exchange", fail)
    if error == errno.EINVAL:
        outcome = node.deploy(1, "symlink")
        assert (pathlib.Path(outcome["adopted"]) / WEIGHTS).read_bytes() == b"newer"
        assert version_at(node.served) == 1
    else:
        with pytest.raises(DeliveryError, match=r"activation failed: Input/output error\. Release \w+ is active"):
            node.deploy(1, "symlink")
        # The staged release is kept, and the damaged one is not hidden.
        assert version_at(node.paths.staged(release_of(1))) == 1
        assert (node.release(1) / WEIGHTS).read_bytes() == b"newer"


def test_repair_of_write_through_link_uses_staging(node: Node) -> None:
    node.deploy(1, "symlink")
    (node.served / WEIGHTS).write_bytes(b"newer")
    stage(node.paths, 1)
    outcome = node.carry_out(1, "symlink")
    assert outcome["action"] == "repaired"
    assert version_at(node.served) == 1
    assert (pathlib.Path(outcome["adopted"]) / WEIGHTS).read_bytes() == b"newer"


def test_repair_without_intact_copy_is_error(node: Node, method: Method) -> None:
    node.deploy(1, method)
    (node.release(1) / WEIGHTS).write_bytes(b"damage")
    if method == "exchange":
        (node.served / WEIGHTS).write_bytes(b"damage")
    with pytest.raises(DeliveryError, match=f"is damaged in the store: changed  {WEIGHTS}") as caught:
        node.carry_out(1, method)
    assert caught.value.problems[0].remedy == "Deploy it again from the training server."


# Rejected releases


def test_activate_without_receipt_is_error(node: Node) -> None:
    stage(node.paths, 1)
    os.unlink(node.paths.receipt(release_of(1)))
    with pytest.raises(DeliveryError, match="was not verified on this node, level structure is required"):
        node.carry_out(1, level="structure")
    assert not node.served.exists()


def test_activate_with_receipt_of_lower_level_is_error(node: Node) -> None:
    stage(node.paths, 1, level="adapter")
    with pytest.raises(DeliveryError, match="was verified at level adapter only on this node, level model is required"):
        node.carry_out(1, level="model")
    assert node.carry_out(1, level="adapter")["action"] == "activated"


@pytest.mark.parametrize("damage", ["changed", "extra", "missing", "link"])
def test_activate_damaged_staging_is_error(node: Node, damage: str, tmp_path: pathlib.Path) -> None:
    stage(node.paths, 1)
    staged = pathlib.Path(node.paths.staged(release_of(1)))
    if damage == "changed":
        (staged / WEIGHTS).write_bytes(bytes(512))
    elif damage == "extra":
        (staged / "evil.py").write_text("")
    elif damage == "missing":
        (staged / WEIGHTS).unlink()
    else:
        (staged / WEIGHTS).rename(tmp_path / "outside")
        (staged / WEIGHTS).symlink_to(tmp_path / "outside")
    with pytest.raises(DeliveryError, match=f"does not match its manifest in {staged}"):
        node.carry_out(1)
    assert not node.served.exists()
    assert staged.exists()


def test_activate_unstaged_release_is_error(node: Node) -> None:
    stage(node.paths, 1)
    shutil.rmtree(node.paths.staged(release_of(1)))
    with pytest.raises(DeliveryError, match="is neither in the store nor staged"):
        node.carry_out(1)


def test_carry_out_checks_all_adapters_first(node: Node) -> None:
    other = Node(node.base, "other_lora")
    stage(node.paths, 1)
    stage(other.paths, 1, level="structure")
    with pytest.raises(DeliveryError) as caught:
        node.carry_out_all([node.request(1), other.request(1)], level="model")
    assert [(problem.adapter, problem.subject) for problem in caught.value.problems] == [
        ("other_lora", f"release {release_of(1)}")
    ]
    assert os.listdir(node.models) == []
    outcomes = node.carry_out_all([other.request(1), node.request(1)], level="structure")
    assert [outcome["name"] for outcome in outcomes] == ["other_lora", NAME]


@pytest.mark.parametrize("fault", ["changed after its test", "no space for its copy"])
def test_carry_out_prepares_all_adapters_before_the_first_is_activated(
    node: Node, method: Method, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Node(node.base, "other_lora")
    for adapter in (node, other):
        adapter.deploy(1, method)
        stage(adapter.paths, 2)
    if fault == "changed after its test":
        weights = pathlib.Path(other.paths.staged(release_of(2)), WEIGHTS)
        weights.write_bytes(bytes(weights.stat().st_size))
        message = f"does not match its manifest in {weights.parent}"
    else:
        message = "No space left on device"
        fsync_directory = activate.fsync_directory

        def full(path: str) -> None:
            if path == other.paths.root:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            fsync_directory(path)

        # It is called for this directory when the copy has been made.
        monkeypatch.setattr(activate, "fsync_directory", full)
    with pytest.raises(DeliveryError, match=f"{message}.* Release {release_of(1)} is active") as caught:
        node.carry_out_all([node.request(2), other.request(2)], method)
    assert [problem.adapter for problem in caught.value.problems] == ["other_lora"]
    for adapter in (node, other):
        assert version_at(adapter.served) == 1
        assert list(adapter.root.glob("incoming-*")) == []


def test_activation_hashes_what_was_staged_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(node.paths, 1)
    opened: list[str] = []
    open_regular = _hashing.open_regular

    def note(path: str, *arguments: t.Any) -> t.BinaryIO:
        opened.append(path)
        return open_regular(path, *arguments)

    monkeypatch.setattr(_hashing, "open_regular", note)
    node.carry_out(1)
    staged, prepared = node.paths.staged(release_of(1)), f"{node.paths.root}/incoming-{release_of(1)}"
    assert [path for path in opened if path.endswith(WEIGHTS)] == [f"{staged}/{WEIGHTS}", f"{prepared}/{WEIGHTS}"]


def test_carry_out_with_repeated_name_is_error(node: Node) -> None:
    stage(node.paths, 1)
    with pytest.raises(DeliveryError, match="more than once"):
        node.carry_out_all([node.request(1), node.request(1)])


def test_carry_out_while_locked_is_error(node: Node) -> None:
    stage(node.paths, 1)
    with locked(node.paths.lock, "deploy by bob", 0), pytest.raises(DeliveryError, match="deploy by bob"):
        node.carry_out(1)
    assert not node.served.exists()
    assert node.carry_out(1)["action"] == "activated"


# Rollback


def test_roll_back_twice_returns(node: Node, method: Method) -> None:
    node.deploy(1, method)
    node.deploy(2, method)
    outcome = node.roll_back(method)
    assert (outcome["action"], outcome["release"], outcome["previous"]) == ("rolled_back", release_of(1), release_of(2))
    assert version_at(node.served) == 1
    outcome = node.roll_back(method)
    assert (outcome["action"], outcome["release"], outcome["previous"]) == ("rolled_back", release_of(2), release_of(1))
    assert version_at(node.served) == 2
    assert node.junk() == []


def test_roll_back_to_named_release(node: Node) -> None:
    for version in (1, 2, 3):
        node.deploy(version)
    assert node.roll_back(release=release_of(1))["action"] == "rolled_back"
    assert version_at(node.served) == 1
    assert node.roll_back(release=release_of(1))["action"] == "unchanged"


def test_roll_back_after_repair_activates_previous_release(node: Node) -> None:
    node.deploy(1)
    node.deploy(2)
    (node.served / WEIGHTS).unlink()
    assert node.carry_out(2)["action"] == "repaired"
    node.roll_back()
    assert version_at(node.served) == 1


def test_roll_back_without_usable_release_is_error(node: Node) -> None:
    with pytest.raises(DeliveryError, match="was never deployed to this node"):
        node.roll_back()
    assert not node.store.exists()
    node.deploy(1)
    with pytest.raises(DeliveryError, match="has no previous release"):
        node.roll_back()
    with pytest.raises(DeliveryError, match=rf"is not in the store of this node \(available: {release_of(1)}\)"):
        node.roll_back(release="0123456789ab")
    node.deploy(2)
    (node.release(1) / WEIGHTS).write_bytes(b"damage")
    with pytest.raises(DeliveryError, match="is damaged in the store"):
        node.roll_back()
    assert version_at(node.served) == 2


def test_roll_back_without_state_names_available_releases(node: Node) -> None:
    node.deploy(1)
    node.deploy(2)
    os.unlink(node.paths.state)
    node.carry_out(2)
    with pytest.raises(DeliveryError, match=f"has no previous release .* Name one of those in the store: {release_of(1)}"):
        node.roll_back()
    node.roll_back(release=release_of(1))
    assert version_at(node.served) == 1


def test_roll_back_without_receipt_is_error(node: Node) -> None:
    node.deploy(1)
    node.deploy(2)
    os.unlink(node.paths.receipt(release_of(1)))
    for check_mode in (True, False):
        with pytest.raises(DeliveryError, match="was not verified on this node"):
            node.roll_back(check_mode=check_mode)
    assert version_at(node.served) == 2


def test_activate_keeps_displaced_directory_with_reader(node: Node) -> None:
    node.deploy(1)
    handle = os.open(node.served, os.O_RDONLY)
    node.deploy(2)
    assert os.stat(WEIGHTS, dir_fd=handle).st_size == 512
    os.close(handle)
    node.carry_out(2)
    assert node.junk() == []


# Check mode


def first(node: Node, method: Method) -> None:
    stage(node.paths, 1)


def following(node: Node, method: Method) -> None:
    node.deploy(2, method)
    stage(node.paths, 1)


def take_over(node: Node, method: Method) -> None:
    write_version(node.served, 7)
    stage(node.paths, 1)


def nothing_to_do(node: Node, method: Method) -> None:
    node.deploy(1, method)


def drifted(node: Node, method: Method) -> None:
    node.deploy(1, method)
    (node.release(1) / WEIGHTS).chmod(0o600)
    if method == "exchange":
        (node.served / WEIGHTS).write_bytes(b"newer")


def damaged(node: Node, method: Method) -> None:
    node.deploy(1, method)
    (node.release(1) / WEIGHTS).write_bytes(b"newer")
    stage(node.paths, 1)


def to_prune(node: Node, method: Method) -> None:
    for version in (2, 3, 4):
        node.deploy(version, method)
    stage(node.paths, 1)


@pytest.mark.parametrize("scenario", [first, following, take_over, nothing_to_do, drifted, damaged, to_prune])
def test_check_mode_predicts_result_and_writes_nothing(
    node: Node, method: Method, scenario: t.Callable[[Node, Method], None]
) -> None:
    scenario(node, method)
    before = node.snapshot()
    predicted, would_change, diff = node.carry_out(1, method, check_mode=True), node.changed, node.diff
    assert node.snapshot() == before
    done = node.carry_out(1, method)
    for outcome in (predicted, done):
        outcome["adopted"] = outcome["adopted"] is not None
        outcome["history"] = [entry["release"] for entry in outcome["history"]]
    assert predicted == done
    assert (would_change, diff) == (node.changed, node.diff)
    assert node.carry_out(1, method, check_mode=True)["action"] == "unchanged"


def test_check_mode_on_new_node_writes_nothing(node: Node, method: Method) -> None:
    outcome = node.carry_out(1, method, check_mode=True)
    assert (outcome["action"], outcome["receipt"]) == ("activated", None)
    assert node.changed
    assert os.listdir(node.base) == ["models"]
    assert os.listdir(node.models) == []


def test_check_mode_with_auto_keeps_recorded_method(node: Node) -> None:
    def predicted(method: Method) -> str:
        return str(node.carry_out(1, method, check_mode=True)["activation"])

    assert predicted("auto") == "exchange"
    node.deploy(1, "symlink")
    assert (predicted("auto"), predicted("exchange")) == ("symlink", "exchange")


def test_check_mode_predicts_rollback(node: Node, method: Method) -> None:
    node.deploy(1, method)
    node.deploy(2, method)
    before = node.snapshot()
    predicted = node.roll_back(method, check_mode=True)
    assert node.snapshot() == before
    done = node.roll_back(method)
    for outcome in (predicted, done):
        outcome["history"] = [entry["release"] for entry in outcome["history"]]
    assert predicted == done


# Diff


def test_diff_describes_the_change(node: Node) -> None:
    node.deploy(1)
    one = {"release": release_of(1), "rank": 16, "alpha": 32}
    new = {"tensors": "4 tensors, all new", "tokenizer": "new", "chat_template": "none"}
    assert (node.diff["before"], node.diff["after"]) == ({}, {**one, **new})
    node.deploy(2)
    assert node.diff["before"] == one
    assert node.diff["after"] == {
        "release": release_of(2),
        "rank": 32,
        "alpha": 32,
        # The first tensor has the same hash in every version.
        "tensors": "3 of 4 tensors changed",
        "tokenizer": "same",
        "chat_template": "none",
    }
    node.carry_out(2)
    assert node.diff["before"] == node.diff["after"]


# Damaged records


def test_carry_out_with_damaged_state_is_error_with_remedy(node: Node) -> None:
    node.deploy(1)
    for damage in ("{", "[]", '{"schema": 1}', '{"schema": 9}'):
        pathlib.Path(node.paths.state).write_text(damage)
        with pytest.raises(DeliveryError, match=r"state\.json.*Move it aside"):
            node.carry_out(1)
    os.unlink(node.paths.state)
    assert node.carry_out(1)["action"] == "activated"


@pytest.mark.parametrize("check_mode", [False, True])
def test_carry_out_with_damaged_state_attributes_problem(node: Node, check_mode: bool) -> None:
    node.deploy(1)
    pathlib.Path(node.paths.state).write_text("{")
    with pytest.raises(DeliveryError) as caught:
        node.carry_out(1, check_mode=check_mode)
    assert [problem.adapter for problem in caught.value.problems] == [NAME]


def test_activate_replaces_damaged_manifest(node: Node) -> None:
    node.deploy(1)
    pathlib.Path(node.paths.manifest(release_of(1))).write_text("{")
    node.deploy(2)
    node.carry_out(1)
    node.roll_back(release=release_of(1))
    assert version_at(node.served) == 1
