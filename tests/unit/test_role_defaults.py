# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables that the roles document, default and read are the same."""

from __future__ import annotations

import collections
import re
import typing as t

import pytest
import yaml

from tests.support.paths import CHECKOUT

ROLES = ("agent", "runtime", "training")
# fleet_info reads them from hostvars, and adapter_selection_info the others.
READ_BY_PLUGINS = {"agent_prompts", "agent_serial", "agent_on_failure", "agent_purpose", "agent_notes", "agent_source_models_dir"}
# A default that takes the value of a deprecated name.
ALIAS = re.compile(r"{{ \w+ \| default\((?P<value>\w+)\) }}")


def load(role: str, part: str) -> t.Any:
    path = CHECKOUT / "roles" / role / part / "main.yml"
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def entry_points(role: str) -> dict[str, dict[str, t.Any]]:
    """The documented options by entry point and name."""
    specs = yaml.safe_load((CHECKOUT / "roles" / role / "meta" / "argument_specs.yml").read_text())
    return {entry: spec["options"] for entry, spec in specs["argument_specs"].items()}


def documented(role: str) -> dict[str, dict[str, t.Any]]:
    return {name: option for options in entry_points(role).values() for name, option in options.items()}


def names_in(role: str, text: str) -> set[str]:
    return set(re.findall(rf"(?<![\w.])((?:__)?{role}_\w+)", text))


def tasks(role: str, entry: str) -> str:
    """The tasks of an entry point, also of the files that it imports."""
    found = str(yaml.safe_load((CHECKOUT / "roles" / role / "tasks" / f"{entry}.yml").read_text()))
    imported = re.findall(r"'ansible.builtin.import_tasks': '(\w+)\.yml'", found)
    return found + "".join(tasks(role, name) for name in imported)


def read(role: str, entry: str) -> set[str]:
    """The variables that the tasks of an entry point read, also by other variables and defaults."""
    values = {**load(role, "defaults"), **load(role, "vars")}
    found: set[str] = set()
    new = names_in(role, tasks(role, entry))
    while new:
        found |= new
        new = {name for known in new for name in names_in(role, str(values.get(known, "")))} - found
    return found


CASES = [(role, entry) for role in ROLES for entry in entry_points(role)]


@pytest.mark.parametrize("role", ROLES)
def test_role_default_is_documented_with_same_value(role: str) -> None:
    options = documented(role)
    for name, default in load(role, "defaults").items():
        assert name in options
        if "{{" not in str(default):
            assert options[name]["default"] == default, name


@pytest.mark.parametrize("role", ROLES)
def test_documented_default_is_set_by_role(role: str) -> None:
    defaults = load(role, "defaults")
    for name, option in documented(role).items():
        if "default" in option:
            alias = ALIAS.fullmatch(str(defaults[name]))
            assert (yaml.safe_load(alias["value"]) if alias else defaults[name]) == option["default"], name


@pytest.mark.parametrize("role", ROLES)
def test_option_has_same_type_and_default_in_every_entry_point(role: str) -> None:
    seen: dict[str, t.Any] = {}
    for options in entry_points(role).values():
        for name, option in options.items():
            assert seen.setdefault(name, option).get("type") == option["type"]
            assert seen[name].get("default") == option.get("default"), name


@pytest.mark.parametrize(("role", "entry"), CASES)
def test_variable_that_entry_point_reads_is_documented(role: str, entry: str) -> None:
    registered = set(re.findall(r"'register': '(\w+)'", tasks(role, entry)))
    own = registered | set(load(role, "vars"))
    unknown = {name for name in read(role, entry) if name not in own and not name.startswith("__")}
    assert unknown <= set(entry_points(role)[entry])


@pytest.mark.parametrize(("role", "entry"), CASES)
def test_variable_that_entry_point_documents_is_read(role: str, entry: str) -> None:
    assert set(entry_points(role)[entry]) - READ_BY_PLUGINS <= read(role, entry)


@pytest.mark.parametrize("role", ROLES)
def test_private_variable_is_defined(role: str) -> None:
    texts = [tasks(role, entry) for entry in entry_points(role)]
    texts.append(str({**load(role, "defaults"), **load(role, "vars")}))
    # The playbooks, and files of tasks that only they use.
    others = [*(CHECKOUT / "playbooks").glob("*.yml"), *(CHECKOUT / "roles" / role / "tasks").glob("*.yml")]
    texts += [str(yaml.safe_load(path.read_text())) for path in others]
    defined = set(re.findall(r"'register': '(\w+)'", " ".join(texts))) | set(re.findall(r"'(__\w+)': ", " ".join(texts)))
    assert {name for text in texts for name in names_in(role, text) if name.startswith("__")} <= defined


@pytest.mark.parametrize(("role", "entry"), [(role, entry) for role, entry in CASES if role == "agent"])
def test_agent_variable_is_passed_to_modules_once_per_file(role: str, entry: str) -> None:
    of_file = (CHECKOUT / "roles" / role / "tasks" / f"{entry}.yml").read_text()
    passed = re.findall(r"(\w+): \"{{ (agent_\w+)", of_file)
    assert [argument for argument, count in collections.Counter(passed).items() if count > 1] == []


@pytest.mark.parametrize("role", ROLES)
def test_role_default_of_training_server_is_visible_to_agents(role: str) -> None:
    """Role defaults are not in hostvars, so a variable that agents read there must have none.

    ``training_models_dir`` and ``training_bases`` are exceptions: agents default to their own.
    """
    text = str({**load("agent", "defaults"), **load("agent", "vars")}) + tasks("agent", "main")
    shared = set(re.findall(r"hostvars\[agent_training_host\]\.(\w+)", text))
    assert shared & set(load(role, "defaults")) <= {"training_models_dir", "training_bases"}


@pytest.mark.parametrize("role", ROLES)
def test_role_forks_no_process_on_controller(role: str) -> None:
    for path in (CHECKOUT / "roles" / role).rglob("*.yml"):
        assert not re.search(r"lookup\('(ansible\.builtin\.)?(pipe|lines)'", path.read_text()), path
