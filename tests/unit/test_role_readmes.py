# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest

from tests.tools.readmes import ROLES, readme


@pytest.mark.parametrize("role", sorted(ROLES.iterdir()), ids=lambda path: path.name)
def test_role_readme_matches_argument_specs(role: pathlib.Path) -> None:
    assert (role / "README.md").read_text(encoding="utf-8") == readme(role), "Run make readmes."
