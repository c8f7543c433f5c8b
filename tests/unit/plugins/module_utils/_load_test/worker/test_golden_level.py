# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recording the answers of Activated LoRA, which has no effect before its invocation."""

from __future__ import annotations

import json
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.golden_level import _invoked
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Recording, Target

from tests.support import tiny_adapters
from tests.support.paths import FIXTURES

ADAPTER = FIXTURES / "trainers" / "peft-alora"
BASE = FIXTURES / "bases" / "llama_with_tokenizer"


def test_invoked_prompt_gets_invocation_once() -> None:
    assert _invoked([1, 2], [7, 8]) == [1, 2, 7, 8]
    assert _invoked([1, 7, 8, 2], [7, 8]) == [1, 7, 8, 2]
    assert _invoked([7, 1, 8], [7, 8]) == [7, 1, 8, 7, 8]
    assert _invoked([1, 2], []) == [1, 2]


@pytest.mark.slow
def test_record_activated_adapter_answers_differ_from_base(tmp_path: pathlib.Path) -> None:
    recording = Recording(prompts=["import os\n", "def make("], length=6, top=4)
    target = Target("adapter", str(ADAPTER), "adapter_model.safetensors", "model", None, str(BASE), False, recording=recording)
    outcome = run_worker(tiny_adapters.PEFT_PYTHON, "cpu", [target], 300, str(tmp_path))
    assert outcome.problems == ()
    assert outcome.reports["adapter"].failures == []
    recorded = outcome.reports["adapter"].recorded
    assert recorded is not None
    invocation = json.loads((ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))["alora_invocation_tokens"]
    answer = recorded["answer"]
    assert answer["on"] != answer["off"]
    for question, on in zip(recorded["questions"], answer["on"]):
        ids, start = question["ids"], question["start"]
        assert ids[start - len(invocation) : start] == invocation
        # Each token is the likeliest one of the invoked adapter, not of the base.
        for place, (tokens, values) in enumerate(zip(question["tokens"], on)):
            assert tokens[values.index(max(values))] == ids[start + place]
