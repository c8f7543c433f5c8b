# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The inventory's row for an adapter, as its own adapter_config.json gives it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import typing as t

from .._errors import DeliveryError, Problem
from .._forms import AS_TRAINED
from .._names import check_name
from .declaration import Declaration
from .files import CONFIG_FILE
from .lora_config import config_problems, is_well_formed, keys_to_declare, read_lora_config
from .module_selection import Config

Row = t.Dict[str, t.Any]

# The keys of a row, in the order in which people write them.
_ORDER = (
    *("name", "agent", "variant", "default", "base", "rank", "alpha", "target_modules", "peft_config", "subdirectory"),
    *("extra_files", "allow_pickle", "form", "dataset", "quality"),
)
_LONGEST = 8000
_TEMPLATE = re.compile(r"\{[{%#]")
# Text that YAML takes as it is, also within braces.
_PLAIN = re.compile(r"(?!(?:true|false|yes|no|on|off|null|y|n)\Z)[A-Za-z][A-Za-z0-9_./-]*", re.IGNORECASE)


def suggested_row(config: Config, declared: Declaration, row: Row) -> Row | None:
    """Return ``row`` changed so that it declares the adapter with this ``config``.

    ``declared`` is made from ``row``. Returns None if no row would make the adapter acceptable, and
    for a row that is very long or has a template.
    """
    if not is_well_formed(config):
        return None
    base = config.get("base_model_name_or_path")
    targets = config.get("target_modules")
    changes: Row = {
        "base": declared.base if not base or base in declared.base_names else base,
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "peft_config": {key: config[key] for key in keys_to_declare(config, declared)},
        "target_modules": sorted(targets) if declared.target_modules and isinstance(targets, list) else None,
    }
    intended = dataclasses.replace(
        declared,
        base=changes["base"],
        base_names=declared.base_names | {changes["base"]},
        rank=changes["rank"],
        alpha=changes["alpha"],
        peft_config=changes["peft_config"],
        target_modules=frozenset(changes["target_modules"]) if changes["target_modules"] else None,
    )
    if config_problems(config, intended):
        return None
    merged = {**row, **changes}
    suggested = {key: merged[key] for key in _ORDER if merged.get(key) not in (None, False, "", [], {}, AS_TRAINED)}
    text = json.dumps(suggested)
    # In an inventory, Ansible evaluates templates, whatever their source.
    return None if _TEMPLATE.search(text) or len(text) > _LONGEST else suggested


def contradiction(config: Config, declared: Declaration, row: Row) -> list[Problem]:
    """Return the problem that shows the row which an adapter's own configuration gives."""
    suggested = suggested_row(config, declared, row)
    if suggested is None:
        return []
    problem = f"matches this row instead: {row_on_one_line(suggested)}"
    return [Problem("", problem, "If it is the intended adapter, put that row into agent_adapters.", declared.name)]


def undeclared_rows(models_dir: str, names: t.Collection[str], bases: dict[str, dict[str, t.Any]]) -> dict[str, Row]:
    """Return a row for each adapter in ``models_dir`` that is not one of ``names``.

    Reads the configurations only. A directory that no row would make acceptable is left out.
    """
    found: dict[str, Row] = {}
    for name in sorted(set(os.listdir(models_dir)) - set(names)):
        path = os.path.join(models_dir, name, CONFIG_FILE)
        try:
            config = read_lora_config(os.path.realpath(path))
            base = str(config.get("base_model_name_or_path") or "")
            known = next((key for key, one in bases.items() if base in (key, *(one.get("aliases") or ()))), base)
            row = {"name": check_name(name), "base": known, "rank": 0, "alpha": 0}
            keys = ("target_modules", "peft_config", "extra_files", "subdirectory")
            declared = Declaration.from_row({**row, **dict.fromkeys(keys), "allow_pickle": False}, bases.get(known, {}))
        except DeliveryError:
            continue
        suggested = suggested_row(config, declared, row)
        if suggested is not None:
            found[name] = suggested
    return found


def row_text(row: Row) -> str:
    """Return a row as YAML, an item of a list."""
    lines = [f"{key}: {_scalar(value)}" for key, value in row.items()]
    return "- " + "\n  ".join(lines) + "\n"


def row_on_one_line(row: Row) -> str:
    """Return a row as YAML for a message."""
    return "- {" + ", ".join(f"{key}: {_scalar(value)}" for key, value in row.items()) + "}"


def _scalar(value: t.Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)
