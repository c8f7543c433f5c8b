# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The choice of a throw-away user."""

from __future__ import annotations

import os
import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test import throw_away
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.throw_away import throw_away_user

FIRST = 61184
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can have files and processes of other users")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """Only two numbers can be chosen. The directory for files of all users."""
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr(throw_away, "RANGE", range(FIRST, FIRST + 2))
    monkeypatch.setattr(throw_away, "_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr(throw_away, "_SYSTEMD", str(tmp_path / "systemd"))
    monkeypatch.setattr(throw_away, "_SHARED", (str(tmp_path / "shared"),))
    return tmp_path / "shared"


@as_root
def test_throw_away_user_is_of_the_range_and_in_no_group_of_root() -> None:
    user = throw_away_user([])
    assert 61184 <= user.uid == user.gid <= 65519
    assert user.throw_away
    assert 0 not in user.groups
    assert str(user) == f"the throw-away user {user.uid}"


@as_root
def test_throw_away_user_of_two_runs_is_never_the_same(two: pathlib.Path) -> None:
    users = [throw_away_user([]) for _run in range(2)]
    assert {user.uid for user in users} == {FIRST, FIRST + 1}
    with pytest.raises(DeliveryError, match="of 61184 to 61185, none is free on this host"):
        throw_away_user([])
    # The number is free again when its run ends.
    released = users.pop()
    assert released.lock is not None
    released.lock.close()
    assert throw_away_user([]).uid == released.uid


@as_root
@pytest.mark.parametrize("kind", ["user", "group", "supplementary group"])
def test_throw_away_user_is_not_one_that_a_process_has(two: pathlib.Path, kind: str) -> None:
    identity: dict[str, t.Any] = {"user": {"user": FIRST}, "group": {"group": FIRST}}.get(kind, {"extra_groups": [FIRST]})
    other = subprocess.Popen(["sleep", "600"], **identity)
    try:
        assert throw_away_user([]).uid == FIRST + 1
    finally:
        other.kill()
        other.wait()


@as_root
@pytest.mark.parametrize(("uid", "gid"), [(FIRST, 0), (0, FIRST)])
def test_throw_away_user_is_not_one_that_has_files(two: pathlib.Path, uid: int, gid: int) -> None:
    (two / "left").touch()
    os.chown(two / "left", uid, gid)
    assert throw_away_user([]).uid == FIRST + 1


@as_root
def test_throw_away_user_is_not_one_of_systemd(two: pathlib.Path) -> None:
    two.with_name("systemd").mkdir()
    two.with_name("systemd").joinpath(str(FIRST)).touch()
    assert throw_away_user([]).uid == FIRST + 1


@as_root
def test_throw_away_user_is_not_one_with_a_name(two: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The user nobody, and the group nogroup.
    monkeypatch.setattr(throw_away, "RANGE", range(65534, 65535))
    monkeypatch.setattr(throw_away, "_used", set)
    with pytest.raises(DeliveryError, match="none is free"):
        throw_away_user([])


@as_root
def test_throw_away_user_outside_of_the_user_namespace_is_an_error(two: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smaller = two / "uid_map"
    smaller.write_text("         0     100000      61184\n", encoding="ascii")
    mapped = throw_away._mapped
    assert mapped("/proc/self/uid_map") == {FIRST, FIRST + 1}
    monkeypatch.setattr(throw_away, "_mapped", lambda _path: mapped(str(smaller)))
    with pytest.raises(DeliveryError, match="none is free"):
        throw_away_user([])


@as_root
@pytest.mark.parametrize("wrong", ["link", "owner", "mode"])
def test_throw_away_user_with_locks_of_another_user_is_an_error(two: pathlib.Path, wrong: str) -> None:
    locks = two.with_name("locks")
    if wrong == "link":
        locks.symlink_to(two)
    else:
        locks.mkdir(mode=0o700)
        os.chown(locks, 1 if wrong == "owner" else 0, 0)
        locks.chmod(0o777 if wrong == "mode" else 0o700)
    with pytest.raises(DeliveryError, match=f"{locks}: is not a directory that only root can write to"):
        throw_away_user([])


@as_root
def test_throw_away_user_is_in_the_ordinary_groups_that_may_read(tmp_path: pathlib.Path) -> None:
    base = tmp_path / "base"
    base.mkdir(mode=0o750)
    os.chown(base, 0, 2001)
    for name, group, mode in (("a", 2002, 0o640), ("b", 2003, 0o644), ("c", 999, 0o640), ("d", 2004, 0o600)):
        (base / name).touch(mode=mode)
        os.chown(base / name, 0, group)
        (base / name).chmod(mode)
    (tmp_path / "link").symlink_to(base)
    # Not group 2003, which is not needed, nor 999, which belongs to the system.
    for path in (base, tmp_path / "link"):
        assert {group for group in throw_away_user([str(path)]).groups if group < FIRST and group >= 999} == {2001, 2002}
