# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What roles document, what they default to and what the README says of it are the same."""

from __future__ import annotations

import re
import typing as t

import pytest
import yaml

from tests.support.paths import CHECKOUT

ROLES = ("agent", "runtime", "training")


def load(role: str, part: str) -> t.Any:
    return yaml.safe_load((CHECKOUT / "roles" / role / part / "main.yml").read_text())


def documented(role: str) -> dict[str, dict[str, t.Any]]:
    specs = yaml.safe_load((CHECKOUT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    return {name: option for spec in specs.values() for name, option in spec["options"].items()}


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_documented_and_the_same(role: str) -> None:
    options = documented(role)
    for name, default in load(role, "defaults").items():
        assert name in options
        if "{{" not in str(default):
            assert options[name]["default"] == default, name


@pytest.mark.parametrize("role", ROLES)
def test_every_documented_default_is_set(role: str) -> None:
    defaults = load(role, "defaults")
    for name, option in documented(role).items():
        if "default" in option:
            assert defaults[name] == option["default"], name


@pytest.mark.parametrize("role", ROLES)
def test_options_of_one_name_are_the_same_in_every_entry_point(role: str) -> None:
    specs = yaml.safe_load((CHECKOUT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    seen: dict[str, t.Any] = {}
    for spec in specs.values():
        for name, option in spec["options"].items():
            assert seen.setdefault(name, option).get("type") == option["type"]
            assert seen[name].get("default") == option.get("default"), name


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_that_a_role_reads_is_documented(role: str) -> None:
    options = documented(role)
    tasks = "\n".join(path.read_text() for path in (CHECKOUT / "roles" / role / "tasks").glob("*.yml"))
    read = set(re.findall(rf"(?<![\w.])({role}_\w+)", tasks))
    assert read <= set(options)


def test_the_readme_has_every_variable_of_the_agent() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    for name in documented("agent"):
        assert f"`{name}`" in readme
