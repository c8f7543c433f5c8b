# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Known incompatibilities between the libraries of the training and of a node."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.compatibility import runtime_notes, runtime_problems

HERE = {"python": "3.12.3", "torch": "2.10.0", "transformers": "5.23.0", "peft": "0.21.2", "safetensors": "0.8.0"}
V5_TOKENIZER = {"tokenizer_class": "TokenizersBackend"}
# As transformers 5 writes config.json; 4 uses rope_theta=10000 for it without an error.
V5_BASE = {"model_type": "llama", "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3"}}
V4_BASE = {"model_type": "llama", "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3"}}


@pytest.mark.parametrize(
    ("here", "facts", "problem"),
    [
        ({}, {}, None),
        ({}, {"tokenizer_config": V5_TOKENIZER, "base_tokenizer_config": V5_TOKENIZER, "base_config": V5_BASE}, None),
        ({"transformers": "4.57.6"}, {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast"}}, None),
        ({"transformers": "4.57.6"}, {"base_config": V4_BASE}, None),
        # Both spellings: 4 reads the one that it knows.
        ({"transformers": "4.57.6"}, {"base_config": {**V5_BASE, **V4_BASE}}, None),
        ({"transformers": "4.57.6"}, {"base_config": {"model_type": "gpt2"}}, None),
        ({"transformers": "4.57.6"}, {"tokenizer_config": V5_TOKENIZER}, "its tokenizer was saved by transformers 5"),
        ({"transformers": "4.57.6"}, {"base_tokenizer_config": V5_TOKENIZER}, "the tokenizer of its base was saved by"),
        ({"transformers": "4.57.6"}, {"base_config": V5_BASE}, "has rope_parameters but no rope_theta"),
        # A newer PEFT saved it, and uses nothing new.
        ({"peft": "0.20.0"}, {"config": {"peft_version": "0.21.2", "kasa_config": None, "eva_config": {"rho": 2.0}}}, None),
        ({"peft": "0.21.2"}, {"config": {"peft_version": "0.22.0", "of_the_future": False}}, None),
        ({"peft": "0.21.2"}, {"config": {"peft_version": "0.22.0", "of_the_future": 3}}, "has of_the_future in its"),
        ({"peft": "0.22.0"}, {"config": {"peft_version": "0.22.0", "of_the_future": 3}}, None),
        ({"peft": "0.19.1"}, {"config": {"velora_config": {}}}, "velora_config in its configuration, which PEFT 0.19.1"),
        ({"peft": "0.20.0"}, {"config": {"velora_config": {}}}, None),
        (
            {"peft": "0.17.1"},
            {"config": {"alora_invocation_tokens": [1], "use_bdlora": {}}},
            "alora_invocation_tokens, use_bdlora",
        ),
        ({"peft": "0.15.2"}, {"config": {"peft_version": "0.15.2", "of_the_trainer": 3}}, None),
    ],
)
def test_runtime_problems_finds_known_incompatibilities(
    here: dict[str, str], facts: dict[str, t.Any], problem: str | None
) -> None:
    known = {"config": {}, "tokenizer_config": None, "base_config": None, "base_tokenizer_config": None, **facts}
    found = runtime_problems(here={**HERE, **here}, **known)
    if problem is None:
        assert found == []
        return
    assert len(found) == 1
    assert problem in found[0].problem
    assert "in the environment of python" in found[0].remedy


def test_runtime_problems_names_version_with_all_settings() -> None:
    config = {"use_bdlora": {}, "velora_config": {}}
    (problem,) = runtime_problems(config, {"peft": "0.18.1"}, None, None, None)
    assert problem.remedy.startswith("Install PEFT 0.20 or newer")


def test_runtime_problems_without_installed_packages_is_empty() -> None:
    assert runtime_problems({"peft_version": "0.21.2", "kasa_config": {}}, {}, V5_TOKENIZER, V5_BASE, V5_TOKENIZER) == []


def test_runtime_notes_names_every_version_difference() -> None:
    assert runtime_notes(HERE, HERE) == []
    # Another build of the same version, another Python and unknown versions are no difference.
    assert runtime_notes({**HERE, "torch": "2.10.0+cpu", "python": "3.11.2"}, {**HERE, "torch": "2.10.0+cu130"}) == []
    assert runtime_notes({"peft": "0.21.2"}, {"torch": "2.10.0"}) == []
    assert runtime_notes({**HERE, "torch": "2.9.1", "safetensors": "0.7.0"}, HERE) == [
        "The training had torch 2.9.1, this node has 2.10.0.",
        "The training had safetensors 0.7.0, this node has 0.8.0.",
    ]
