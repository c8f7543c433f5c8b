# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.playbook_directories import unread_variables


def test_unread_variables_are_those_beside_a_playbook_alone(tmp_path: pathlib.Path) -> None:
    for name in ("site/group_vars", "site/host_vars", "inventory/group_vars", "collection"):
        (tmp_path / name).mkdir(parents=True)
    playbooks = [str(tmp_path / "site" / name) for name in ("site.yml", "more.yml")]
    read = [str(tmp_path / name) for name in ("collection", "inventory")]
    assert [problem.subject for problem in unread_variables(playbooks, read)] == [
        str(tmp_path / "site" / name) for name in ("group_vars", "host_vars")
    ]
    assert unread_variables(playbooks, [*read, str(tmp_path / "site")]) == []
    assert unread_variables([str(tmp_path / "other.yml")], read) == []
