# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mount points, read from /proc/self/mountinfo."""

from __future__ import annotations

import pathlib

from ansible_collections.lorafleet.delivery.plugins.module_utils._linux.mounts import is_mount_point, mount_of


def test_is_mount_point_and_mount_of(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    assert is_mount_point("/proc")
    assert not is_mount_point(str(tmp_path / "link"))
    assert not is_mount_point(str(tmp_path))
    assert mount_of("/proc/self") == mount_of(str(tmp_path / "link")) == "/proc"
