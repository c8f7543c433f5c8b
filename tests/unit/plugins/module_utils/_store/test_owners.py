# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories of a node that another user could exchange or change."""

from __future__ import annotations

import os
import pathlib
import pwd

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.owners import (
    check_owned,
    check_way_to_models_dir,
    check_way_to_store,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.preflight import check_directories
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.staging import prepare

from tests.support.staging import StagingNode
from tests.support.transactions import Node

NOBODY = pwd.getpwnam("nobody").pw_uid
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """``/srv`` with a models directory in it."""
    srv = tmp_path / "srv"
    srv.mkdir(mode=0o755)
    (srv / "models").mkdir(mode=0o755)
    return srv


def check(tree: pathlib.Path) -> None:
    check_directories(str(tree / "models"), str(tree / ".lorafleet"))


@as_root
def test_check_directories_with_models_of_the_serving_user_succeeds(tree: pathlib.Path) -> None:
    os.chown(tree / "models", NOBODY, NOBODY)
    (tree / "models").chmod(0o777)
    check(tree)


@as_root
def test_check_directories_below_a_directory_of_the_serving_user_is_error(tree: pathlib.Path) -> None:
    os.chown(tree, NOBODY, NOBODY)
    with pytest.raises(DeliveryError) as caught:
        check(tree)
    assert str(caught.value) == (
        f"{tree}: belongs to user nobody (mode 0755), who could exchange the models directory {tree}/models."
        " Put the models directory, which itself may belong to any user, below directories that only root can change,"
        " and set the option models_dir to it. Or give that directory to root."
    )


@as_root
@pytest.mark.parametrize(("mode", "writers"), [(0o775, "group nogroup"), (0o777, "every user"), (0o757, "every user")])
def test_check_way_to_store_in_a_shared_directory_is_error(tree: pathlib.Path, mode: int, writers: str) -> None:
    os.chown(tree, 0, pwd.getpwnam("nobody").pw_gid)
    tree.chmod(mode)
    with pytest.raises(DeliveryError) as caught:
        check_way_to_store(str(tree / ".lorafleet"))
    assert f"{tree}: belongs to user " in str(caught.value)
    assert f"(mode {mode:04o}) and can be written by {writers}, who could exchange the store {tree}/.lorafleet." in str(
        caught.value
    )
    assert f"Or take the right to write away: chmod go-w {tree}." in str(caught.value)


def test_check_way_to_store_writable_for_a_private_group_succeeds(tree: pathlib.Path) -> None:
    """Where every user has a group, users make directories with mode 0775."""
    tree.chmod(0o775)
    check_way_to_store(str(tree / ".lorafleet"))


@as_root
def test_check_way_in_a_sticky_directory_depends_on_the_owner_of_the_next_name(tree: pathlib.Path) -> None:
    tree.chmod(0o1777)
    check(tree)
    os.chown(tree / "models", NOBODY, NOBODY)
    with pytest.raises(DeliveryError, match="can be written by every user, who could exchange the models directory"):
        check(tree)


@as_root
@pytest.mark.parametrize("target", ["elsewhere/models", "/elsewhere/models", "elsewhere/up/../models"])
def test_check_way_follows_links(tree: pathlib.Path, target: str) -> None:
    (tree / "elsewhere" / "models").mkdir(parents=True)
    (tree / "elsewhere" / "up").mkdir()
    (tree / "link").symlink_to(f"{tree}{target}" if target.startswith("/") else target)
    check_way_to_models_dir(str(tree / "link"))
    os.chown(tree / "elsewhere", NOBODY, NOBODY)
    with pytest.raises(DeliveryError, match=f"{tree}/elsewhere: belongs to user nobody"):
        check_way_to_models_dir(str(tree / "link"))


@as_root
def test_check_way_through_a_loop_of_links_is_error(tree: pathlib.Path) -> None:
    (tree / "loop").symlink_to("loop")
    with pytest.raises(DeliveryError, match="cannot be inspected: Too many levels of symbolic links"):
        check_way_to_store(str(tree / "loop" / "store"))


@as_root
def test_check_way_as_an_ordinary_user_may_be_shared(tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(tree, NOBODY, NOBODY)
    tree.chmod(0o777)
    with pytest.raises(DeliveryError):
        check_way_to_models_dir(str(tree / "models"))
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    check_way_to_models_dir(str(tree / "models"))
    check_way_to_store(str(tree / "store"))


@as_root
@pytest.mark.parametrize(("mode", "owner", "remedy"), [(0o755, NOBODY, "run as that user again"), (0o777, 0, "chmod go-w")])
def test_check_owned_names_owner_and_remedy(tree: pathlib.Path, mode: int, owner: int, remedy: str) -> None:
    check_owned(str(tree / "missing"))
    check_owned(str(tree))
    os.chown(tree, owner, owner)
    tree.chmod(mode)
    with pytest.raises(DeliveryError, match=rf"{tree}: belongs to user .*who could change what it contains\..*{remedy}"):
        check_owned(str(tree))


@as_root
@pytest.mark.parametrize("part", [".", "releases", "manifests", "receipts", "staging"])
def test_carry_out_in_a_store_that_another_user_made_is_error(tmp_path: pathlib.Path, part: str) -> None:
    """It could hold receipts that this user has written."""
    node = Node(tmp_path)
    node.deploy(1)
    os.chown(node.root / part, NOBODY, NOBODY)
    for check_mode in (True, False):
        with pytest.raises(DeliveryError, match=r"belongs to user nobody .*, who could change what it contains"):
            node.carry_out(1, check_mode=check_mode)


def test_carry_out_with_a_link_in_the_store_is_error(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path)
    node.deploy(1)
    (node.root / "receipts").rename(tmp_path / "receipts")
    (node.root / "receipts").symlink_to(tmp_path / "receipts")
    with pytest.raises(DeliveryError, match="receipts: is a link, which no delivery makes"):
        node.carry_out(1)


@as_root
@pytest.mark.parametrize("attack", ["owner", "link"])
def test_prepare_empties_no_directory_of_another_users_choice(tmp_path: pathlib.Path, attack: str) -> None:
    node = StagingNode(tmp_path)
    fetch = node.prepared()
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("x", encoding="utf-8")
    pathlib.Path(fetch.staging).rmdir()
    if attack == "owner":
        # The user could exchange this directory for a link at any moment.
        victim.rename(fetch.staging)
        victim = pathlib.Path(fetch.staging)
        os.chown(fetch.paths.staging, NOBODY, NOBODY)
    else:
        os.symlink(victim, fetch.staging)
    with pytest.raises(DeliveryError, match="belongs to user nobody" if attack == "owner" else "cannot be staged in"):
        prepare(fetch)
    assert (victim / "precious").exists()


@as_root
def test_check_directories_with_dots_after_a_link_follows_the_link(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """For the kernel, the directory above a link is that of its target."""
    others = tmp_path / "others"
    for path in (others, others / "inner", others / "models"):
        path.mkdir(mode=0o755)
    os.chown(others, NOBODY, NOBODY)
    (tree / "link").symlink_to(others / "inner")
    assert os.path.samefile(f"{tree}/link/../models", others / "models")
    with pytest.raises(DeliveryError, match=f"{others}: belongs to user nobody .*, who could exchange the models directory"):
        check_way_to_models_dir(f"{tree}/link/../models")
    with pytest.raises(DeliveryError, match=f"{others}: belongs to user nobody .*, who could exchange the store"):
        check_way_to_store(f"{tree}/link/../.lorafleet")
