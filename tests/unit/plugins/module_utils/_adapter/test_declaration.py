# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

# As the modules' argument_spec gives it when only what is required is set.
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


def test_what_is_required_alone() -> None:
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


def test_everything() -> None:
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


@pytest.mark.parametrize("changes", [{"name": "../lora"}, {"extra_files": ["NOTICE", "../secret"]}])
def test_a_hostile_name_is_refused(changes: dict[str, t.Any]) -> None:
    with pytest.raises(DeliveryError, match=r"'\.\./\w+': is not a valid name"):
        Declaration.from_row({**ROW, **changes}, {})


@pytest.mark.parametrize("targets", [[], None])
def test_no_targets_mean_whatever_the_adapter_has(targets: t.Optional[list[str]]) -> None:
    assert Declaration.from_row({**ROW, "target_modules": targets}, {"aliases": None}).target_modules is None
