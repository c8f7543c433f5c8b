# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names of modules: those that change nothing end in ``_info``, and no others do."""

from __future__ import annotations

import ast
import pathlib

import pytest

from tests.support.paths import PLUGINS


def never_changes(module: pathlib.Path) -> bool:
    """Whether the module exits with ``changed=False`` everywhere."""
    if "DeliveryModule(" not in module.read_text(encoding="utf-8"):
        # Its action plugin does all of the work on the controller.
        return "details: The module only reads." in module.read_text(encoding="utf-8")
    exits = [
        {keyword.arg: keyword.value for keyword in node.keywords}
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "exit_json"
    ]
    assert exits
    changed = [keywords.get("changed") for keywords in exits]
    return all(isinstance(value, ast.Constant) and value.value is False for value in changed)


@pytest.mark.parametrize("module", sorted((PLUGINS / "modules").glob("*.py")), ids=lambda module: module.stem)
def test_module_name_ends_in_info_if_it_changes_nothing(module: pathlib.Path) -> None:
    assert module.stem.endswith("_info") == never_changes(module)
