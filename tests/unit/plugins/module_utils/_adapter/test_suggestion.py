# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows that an adapter's own configuration gives."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
import yaml
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.suggestion import (
    contradiction,
    row_on_one_line,
    row_text,
    suggested_row,
    undeclared_rows,
)

from tests.support import tiny_adapters
from tests.support.describing import CONFIG, Declare

ROW = {"name": "adapter", "variant": "3b", "base": tiny_adapters.BASE_NAME, "rank": 8, "alpha": 64}


def config_of(adapter: pathlib.Path, **changes: t.Any) -> dict[str, t.Any]:
    return {**json.loads((adapter / CONFIG).read_text(encoding="utf-8")), **changes}


@pytest.mark.parametrize(
    ("changes", "declared", "expected"),
    [
        ({}, {}, {"rank": 16, "alpha": 32}),
        ({"use_rslora": True}, {}, {"rank": 16, "alpha": 32, "peft_config": {"use_rslora": True}}),
        ({"lora_alpha": 24.5}, {"peft_config": {"use_dora": True}}, {"rank": 16, "alpha": 24.5}),
        ({"base_model_name_or_path": "tiny/Other"}, {}, {"base": "tiny/Other", "rank": 16, "alpha": 32}),
        (
            {"target_modules": ["q_proj", "o_proj"]},
            {"target_modules": ["q_proj"]},
            {"rank": 16, "alpha": 32, "target_modules": ["o_proj", "q_proj"]},
        ),
    ],
)
def test_suggested_row_declares_what_the_adapter_is(
    adapter: pathlib.Path, declare: Declare, changes: dict[str, t.Any], declared: dict[str, t.Any], expected: dict[str, t.Any]
) -> None:
    assert suggested_row(config_of(adapter, **changes), declare(**declared), {**ROW, **declared}) == {**ROW, **expected}


@pytest.mark.parametrize(
    "changes", [{"init_lora_weights": "pissa"}, {"peft_type": "IA3"}, {"r": 0}, {"layer_replication": [[0, 2]]}]
)
def test_suggested_row_of_unacceptable_adapter_is_none(
    adapter: pathlib.Path, declare: Declare, changes: dict[str, t.Any]
) -> None:
    config = config_of(adapter, **changes)
    assert suggested_row(config, declare(), ROW) is None
    assert contradiction(config, declare(), ROW) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"base_model_name_or_path": "{{ lookup('ansible.builtin.pipe', 'id') }}"},
        {"target_modules": ["q_proj", "{% if true %}"]},
        {"use_rslora": True, "rank_pattern": {"{# a": 4}},
    ],
)
def test_suggested_row_never_has_a_template_which_ansible_would_evaluate(
    adapter: pathlib.Path, declare: Declare, changes: dict[str, t.Any]
) -> None:
    config = config_of(adapter, **changes)
    declared = {"target_modules": ["q_proj"]} if "target_modules" in changes else {}
    assert suggested_row(config, declare(**declared), {**ROW, **declared}) is None
    harmless = json.loads(json.dumps(config).replace("{{", "").replace("{%", "").replace("{#", ""))
    assert suggested_row(harmless, declare(**declared), {**ROW, **declared}) is not None


def test_suggested_row_that_no_message_can_have_is_none(adapter: pathlib.Path, declare: Declare) -> None:
    patterns = {f"layers.{number}.self_attn.q_proj": 8 for number in range(300)}
    assert suggested_row(config_of(adapter, rank_pattern=dict([*patterns.items()][:100])), declare(), ROW) is not None
    assert suggested_row(config_of(adapter, rank_pattern=patterns), declare(), ROW) is None


def test_contradiction_shows_the_row_on_one_line(adapter: pathlib.Path, declare: Declare) -> None:
    [problem] = contradiction(config_of(adapter), declare(rank=8), ROW)
    assert problem.problem == (
        'matches this row instead: - {name: adapter, variant: "3b", base: tiny/Llama-64, rank: 16, alpha: 32}'
    )


@pytest.mark.parametrize(
    "row",
    [
        {"name": "no", "variant": "3b", "base": "/data/my base", "rank": 16, "alpha": 32.0},
        {
            "name": "a",
            "peft_config": {"rank_pattern": {"^a.*": 4}, "use_dora": True},
            "target_modules": ["q_proj"],
            "dataset": "a: b",
        },
    ],
)
def test_row_text_is_yaml_of_the_row(row: dict[str, t.Any]) -> None:
    assert yaml.safe_load(row_text(row)) == [row]
    assert yaml.safe_load(row_on_one_line(row)) == [row]


def test_undeclared_rows_use_the_names_of_bases(adapter: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("other_lora", "declared_lora", "bad name", "broken"):
        (tmp_path / "models" / name).mkdir(parents=True)
        config = config_of(adapter, base_model_name_or_path="/data/llama", use_rslora=True)
        (tmp_path / "models" / name / CONFIG).write_text("{" if name == "broken" else json.dumps(config), encoding="utf-8")
    (tmp_path / "models" / "file").write_text("")
    bases = {"tiny/Llama-64": {"aliases": ["/data/llama"], "config": None}}
    assert undeclared_rows(str(tmp_path / "models"), ["declared_lora"], bases) == {
        "other_lora": {
            "name": "other_lora", "base": "tiny/Llama-64", "rank": 16, "alpha": 32, "peft_config": {"use_rslora": True}
        }
    }  # fmt: skip
