# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules of a base, as transformers itself builds them."""

from __future__ import annotations

import json
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.architecture import base_modules
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.support import tiny_adapters

# Odd on purpose: no size equals another, or follows from another, by accident.
SIZES = {"hidden_size": 96, "intermediate_size": 160, "vocab_size": 100, "num_hidden_layers": 2, "num_attention_heads": 6}
CONFIGS: dict[str, dict[str, t.Any]] = {
    "llama, plain attention": {"model_type": "llama", **SIZES},
    "llama": {"model_type": "llama", **SIZES, "num_key_value_heads": 2},
    "llama, own head_dim": {"model_type": "llama", **SIZES, "num_key_value_heads": 2, "head_dim": 32},
    "llama, tied": {"model_type": "llama", **SIZES, "num_key_value_heads": 3, "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", **SIZES, "num_key_value_heads": 2},
    "mistral, own head_dim": {"model_type": "mistral", **SIZES, "num_key_value_heads": 2, "head_dim": 32},
    "qwen2": {"model_type": "qwen2", **SIZES, "num_key_value_heads": 2},
    "qwen3": {"model_type": "qwen3", **SIZES, "num_key_value_heads": 2, "head_dim": 32},
    "gemma": {"model_type": "gemma", **SIZES, "num_key_value_heads": 1, "head_dim": 32},
    "gemma2": {"model_type": "gemma2", **SIZES, "num_key_value_heads": 2, "head_dim": 32},
    "gemma3_text": {"model_type": "gemma3_text", **SIZES, "num_key_value_heads": 2, "head_dim": 32},
}

BUILD = """
import json, sys, torch, transformers
result = {}
for label, config in json.load(sys.stdin).items():
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    result[label] = {name: list(m.weight.shape) for name, m in model.named_modules() if hasattr(m, "weight")}
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def built() -> dict[str, dict[str, list[int]]]:
    """All modules with weights of all configurations, and the shapes of their weights."""
    command = [tiny_adapters.PEFT_PYTHON, "-c", BUILD]
    done = subprocess.run(command, input=json.dumps(CONFIGS), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, dict[str, list[int]]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("label", CONFIGS)
def test_base_modules_agree_with_transformers(built: dict[str, dict[str, list[int]]], label: str) -> None:
    modules = base_modules(CONFIGS[label], "base")
    assert {name: list(module.weight) for name, module in modules.items()} == built[label]
    assert [name for name, module in modules.items() if module.embedding] == ["model.embed_tokens"]


def problems_of(config: dict[str, t.Any]) -> list[str]:
    with pytest.raises(DeliveryError) as caught:
        base_modules(config, "config of base X")
    assert all(problem.subject == "config of base X" and problem.remedy for problem in caught.value.problems)
    return [problem.problem for problem in caught.value.problems]


@pytest.mark.parametrize("model_type", [None, "gpt2", "phi3", "LLAMA", ["llama"]])
def test_base_modules_unknown_model_type_is_rejected(model_type: t.Any) -> None:
    (problem,) = problems_of({**CONFIGS["llama"], "model_type": model_type})
    assert json.dumps(model_type) in problem
    assert "supported are llama, mistral, qwen2" in problem


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", [None, 0, -1, True, "64", 64.0])
def test_base_modules_size_must_be_a_positive_number(key: str, value: t.Any) -> None:
    (problem,) = problems_of({**CONFIGS["llama"], key: value})
    assert f"'{key}' is {json.dumps(value)}" in problem


def test_base_modules_missing_keys_are_all_reported() -> None:
    named = {problem.split("'")[1] for problem in problems_of({"model_type": "llama"})}
    assert named == set(SIZES)


def test_base_modules_are_not_made_for_any_number_of_layers() -> None:
    # Ten million layers take gigabytes, and this config can come from another host.
    [problem] = problems_of({"model_type": "llama", **dict.fromkeys(SIZES, 8), "num_hidden_layers": 10**15})
    assert "key 'num_hidden_layers' is 1000000000000000; at most 1000 are accepted." in problem


@pytest.mark.parametrize(
    ("label", "key"),
    [
        ("mistral", "num_key_value_heads"),
        ("qwen2", "num_key_value_heads"),
        ("qwen3", "head_dim"),
        ("qwen3", "num_key_value_heads"),
        ("gemma", "head_dim"),
        ("gemma2", "num_key_value_heads"),
    ],
)
def test_base_modules_size_that_transformers_guesses_is_required(label: str, key: str) -> None:
    config = {name: value for name, value in CONFIGS[label].items() if name != key}
    (problem,) = problems_of(config)
    assert f"'{key}' is missing" in problem


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ({"_attn_implementation_internal": "hub/kernel"}, "_attn_implementation_internal"),
        ({"text_config": [{"auto_map": {}}]}, "auto_map"),
    ],
)
def test_base_modules_key_that_loads_code_is_rejected(extra: dict[str, t.Any], key: str) -> None:
    (problem,) = problems_of({**CONFIGS["llama"], **extra})
    assert f"'{key}'" in problem
