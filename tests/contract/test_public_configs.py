# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The forms of a hundred public configurations, of many tools and years: which are accepted.

``tests/fixtures/public_configs.json`` has their keys and values, without the names, paths and texts
in them. Each is judged by itself, as declared in the inventory and without knowing its base.
"""

from __future__ import annotations

import collections
import json
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.lora_config import config_notes, config_problems
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.other_formats import format_of_config
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.tokenizer import tokenizer_problems

from tests.support.compatibility import PUBLIC_ACCEPTED, PUBLIC_REJECTED
from tests.support.paths import FIXTURES
from tests.support.trainers import declaration_of

FORMS: dict[str, list[dict[str, t.Any]]] = json.loads((FIXTURES / "public_configs.json").read_text(encoding="utf-8"))
NAMES = {"<name>": "tiny/llama", "<path>": "/models/llama"}


def verdict(config: dict[str, t.Any]) -> tuple[str, str]:
    """Return accepted, accepted with a note or rejected, and what a rejected one says."""
    base = config.get("base_model_name_or_path")
    config = {**config, "base_model_name_or_path": NAMES.get(base, base)} if base else config
    other = format_of_config(config)
    if other is not None:
        return "rejected", other.what
    declared = declaration_of(config, {"aliases": list(NAMES.values())})
    problems = config_problems(config, declared)
    if problems:
        return "rejected", "\n".join(map(str, problems))
    return ("accepted with a note" if config_notes(config, declared) else "accepted"), ""


def test_public_adapter_configs_are_judged_as_counted() -> None:
    found: collections.Counter[str] = collections.Counter()
    for config in FORMS["adapter_configs"]:
        word, text = verdict(config)
        reasons = [reason for reason, (words, _count) in PUBLIC_REJECTED.items() if words in text]
        found[reasons[0] if reasons else text or word] += 1
    assert found == {**PUBLIC_ACCEPTED, **{reason: count for reason, (_words, count) in PUBLIC_REJECTED.items()}}


@pytest.mark.parametrize("config", FORMS["tokenizer_configs"], ids=lambda config: str(config.get("tokenizer_class")))
def test_public_tokenizer_config_is_accepted_unless_it_names_code(tmp_path: pathlib.Path, config: dict[str, t.Any]) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    problems = tokenizer_problems({path.name: str(path)}, "adapter")
    assert [problem.problem.partition(" = ")[0] for problem in problems] == (["has auto_map"] if "auto_map" in config else [])
