# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An action group holds the modules that have every option of the constant of its name."""

from __future__ import annotations

import collections.abc as c
import functools
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
import yaml
from ansible_collections.lorafleet.delivery.plugins.module_utils import _argspec

from tests.support.paths import CHECKOUT

PREFIX = "lorafleet.delivery."
GROUPS: dict[str, list[str]] = yaml.safe_load((CHECKOUT / "meta" / "runtime.yml").read_text())["action_groups"]
CONSTANTS = {name.lower(): value for name, value in vars(_argspec).items() if name.isupper() and isinstance(value, dict)}
MODULES = sorted(path.stem for path in (CHECKOUT / "plugins" / "modules").glob("*.py"))


@functools.cache
def documentation() -> dict[str, t.Any]:
    command = [
        pathlib.Path(sys.executable).with_name("ansible-doc"),
        "--json",
        "-t",
        "module",
        *(PREFIX + name for name in MODULES),
    ]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".collections")}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return {name[len(PREFIX) :]: entry["doc"] for name, entry in json.loads(done.stdout).items()}


def has_options(module: str, group: str) -> bool:
    """Whether a module has every option of a group, with the same suboptions."""
    options = documentation()[module]["options"]
    return all(
        name in options and set(options[name].get("suboptions") or ()) == set(option.get("options", ()))
        for name, option in CONSTANTS[group].items()
    )


def defaults_of(tasks: list[dict[str, t.Any]]) -> c.Iterator[tuple[str, dict[str, t.Any]]]:
    for task in tasks:
        yield from task.get("module_defaults", {}).items()
        yield from defaults_of(task.get("block", []))


def test_action_group_exists_for_each_constant_of_shared_options() -> None:
    assert set(GROUPS) == set(CONSTANTS)


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_action_group_members_are_modules_with_all_its_options(group: str) -> None:
    assert GROUPS[group] == [name for name in MODULES if has_options(name, group)]


@pytest.mark.parametrize("module", MODULES)
def test_module_documents_its_action_groups(module: str) -> None:
    attribute = documentation()[module]["attributes"]["action_group"]
    assert attribute["membership"] == [PREFIX + group for group in sorted(GROUPS) if module in GROUPS[group]]
    assert (attribute["support"] == "full") == bool(attribute["membership"])


@pytest.mark.parametrize(
    "path", sorted((CHECKOUT / "roles").glob("*/tasks/*.yml")), ids=lambda path: f"{path.parts[-3]}-{path.stem}"
)
def test_group_default_of_role_is_option_of_every_member(path: t.Any) -> None:
    for group, options in defaults_of(yaml.safe_load(path.read_text())):
        name = group.removeprefix("group/").removeprefix(PREFIX)
        for member in GROUPS[name] if group.startswith("group/") else [name]:
            assert set(options) <= set(documentation()[member]["options"]), (group, member)
