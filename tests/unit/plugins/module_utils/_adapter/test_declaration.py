# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declarations built from the options of a module."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

# The options of a module when only the required ones are set.
ROW: dict[str, t.Any] = {
    "name": "lora",
    "base": "meta-llama/Llama-3.2-3B-Instruct",
    "rank": 16,
    "alpha": 32.0,
    "target_modules": None,
    "peft_config": None,
    "extra_files": None,
    "allow_pickle": False,
}


def test_from_row_required_options_only() -> None:
    assert Declaration.from_row(ROW, {}) == Declaration(
        name="lora",
        base="meta-llama/Llama-3.2-3B-Instruct",
        base_names=frozenset(["meta-llama/Llama-3.2-3B-Instruct"]),
        rank=16,
        alpha=32.0,
        target_modules=None,
        peft_config={},
        extra_files=(),
        allow_pickle=False,
        base_config=None,
    )


def test_from_row_all_options() -> None:
    row = {
        **ROW,
        "target_modules": ["v_proj", "q_proj"],
        "peft_config": {"use_rslora": True},
        "extra_files": ["NOTICE"],
        "allow_pickle": True,
    }
    declared = Declaration.from_row(row, {"aliases": ["/data/base"], "config": {"model_type": "llama"}})
    assert declared.base_names == {"meta-llama/Llama-3.2-3B-Instruct", "/data/base"}
    assert declared.target_modules == {"q_proj", "v_proj"}
    assert declared.peft_config == {"use_rslora": True}
    assert declared.extra_files == ("NOTICE",)
    assert declared.allow_pickle
    assert declared.base_config == {"model_type": "llama"}


@pytest.mark.parametrize("changes", [{"name": "../lora"}, {"extra_files": ["NOTICE", "../secret"]}, {"subdirectory": "../other"}])
def test_from_row_hostile_name_is_rejected(changes: dict[str, t.Any]) -> None:
    with pytest.raises(DeliveryError, match=r"'\.\./\w+'.*: is not a valid name"):
        Declaration.from_row({**ROW, **changes}, {})


@pytest.mark.parametrize("targets", [[], None])
def test_from_row_without_target_modules_allows_any(targets: list[str] | None) -> None:
    assert Declaration.from_row({**ROW, "target_modules": targets}, {"aliases": None}).target_modules is None


def test_folded_is_plain_lora_of_the_largest_rank() -> None:
    peft_config = {"use_rslora": True, "rank_pattern": {"q_proj": 64, "v_proj": 4}, "layers_to_transform": [1]}
    row = {**ROW, "peft_config": peft_config, "target_modules": ["q_proj", "v_proj"], "form": "folded"}
    declared = Declaration.from_row(row, {})
    assert declared.form == "folded"
    folded = declared.folded()
    assert (folded.rank, folded.alpha, folded.peft_config) == (64, 64.0, {"layers_to_transform": [1]})
    assert folded.target_modules == {"q_proj", "v_proj"}
    plain = Declaration.from_row(ROW, {}).folded()
    assert (plain.rank, plain.alpha, plain.form) == (16, 16.0, "as_trained")
