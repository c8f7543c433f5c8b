# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""renameat2, and the probe whether a file system supports it."""

from __future__ import annotations

import errno
import os
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._linux.rename import (
    can_exchange,
    exchange,
    is_unsupported,
    rename_noreplace,
)


def test_exchange_full_directory_and_link(tmp_path: pathlib.Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").write_text("content")
    (tmp_path / "link").symlink_to("elsewhere")
    exchange(str(tmp_path / "directory"), str(tmp_path / "link"))
    assert os.readlink(tmp_path / "directory") == "elsewhere"
    assert (tmp_path / "link" / "file").read_text() == "content"


def test_exchange_missing_name_raises(tmp_path: pathlib.Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(FileNotFoundError, match="missing") as caught:
        exchange(str(tmp_path / "one"), str(tmp_path / "missing"))
    assert not is_unsupported(caught.value)


def test_rename_noreplace_keeps_empty_directory(tmp_path: pathlib.Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError):
        rename_noreplace(str(tmp_path / "new"), str(tmp_path / "old"))
    rename_noreplace(str(tmp_path / "new"), str(tmp_path / "free"))
    assert sorted(os.listdir(tmp_path)) == ["free", "old"]


def test_can_exchange_leaves_nothing_and_clears_after_crash(tmp_path: pathlib.Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (first / ".exchange-probe-x").mkdir()
    assert can_exchange(str(first), str(second), "x")
    assert os.listdir(first) == os.listdir(second) == []


def test_can_exchange_across_file_systems_is_false(tmp_path: pathlib.Path, other_file_system: pathlib.Path) -> None:
    assert not can_exchange(str(tmp_path), str(other_file_system), "x")
    assert os.listdir(tmp_path) == os.listdir(other_file_system) == []


def test_can_exchange_other_error_is_raised(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        can_exchange(str(tmp_path), str(tmp_path / "missing"), "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EXDEV])
def test_is_unsupported_by_errno(number: int) -> None:
    assert is_unsupported(OSError(number, "x"))
    assert not is_unsupported(OSError(errno.ENOSPC, "x"))
