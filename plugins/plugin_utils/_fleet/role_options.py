# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The variables that the roles document, and whether values are of their types."""

from __future__ import annotations

import functools
import pathlib
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load

_ROLES = pathlib.Path(__file__).parents[3] / "roles"

Option = dict[str, t.Any]

# What a value of each type is called. Any value is of type raw.
_WORDS = {
    "str": "text",
    "path": "a path",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a dictionary",
}


@functools.cache
def documented_variables() -> dict[str, Option]:
    """The options of all entry points of all roles, by name."""
    found: dict[str, Option] = {}
    for path in _ROLES.glob("*/meta/argument_specs.yml"):
        for entry_point in yaml_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            found.update(entry_point["options"])
    return found


def row_options() -> dict[str, Option]:
    """The keys of a row of ``agent_adapters``."""
    options: dict[str, Option] = documented_variables()["agent_adapters"]["options"]
    return options


def coerced(option: Option, value: t.Any) -> t.Any:
    """Return a value as the role gets it. Raises ValueError, with the form to write."""
    form = f"one of {', '.join(option['choices'])}" if "choices" in option else _WORDS.get(option["type"], "a value")
    # Ansible converts everything to text.
    if option["type"] in ("str", "path") and isinstance(value, (list, dict)):
        raise ValueError(form)
    spec = {key: option[key] for key in ("type", "elements", "choices") if key in option}
    result = ArgumentSpecValidator({"value": spec}).validate({"value": value})
    if result.error_messages:
        raise ValueError(form)
    return result.validated_parameters["value"]
