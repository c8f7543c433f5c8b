# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Level structure on adapters that PEFT saved. What it must reject is in test_fault_matrix.py."""

from __future__ import annotations

import json
import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.lora_config import (
    config_problems,
    is_well_formed,
    read_lora_config,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.module_selection import Config
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.structure import (
    expected_tensors,
    structure_checks,
    structure_notes,
    structure_problems,
    unchecked,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.architecture import base_modules
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats.tensor_scan import scan
from safetensors.numpy import load_file, save_file

from tests.support import tiny_adapters
from tests.support.damage import EMBED, Q0_B, Damage, add, cast, change_tensors, drop, zero

Declare = t.Callable[..., Declaration]


def problems_of(directory: pathlib.Path, declared: Declaration) -> str:
    """All problems of an adapter directory as one text, which is empty when there are none."""
    config = read_lora_config(str(directory / "adapter_config.json"))
    tensors = scan(str(directory / "adapter_model.safetensors")).tensors
    problems = [
        *config_problems(config, declared),
        *structure_problems(declared.name, tensors, config, declared.base_config),
    ]
    for problem in problems:
        assert problem.full_subject.startswith(f"adapter {declared.name}") or problem.full_subject.startswith("base of adapter ")
        assert problem.remedy
        assert len(str(problem)) < 1000
    return "\n".join(map(str, problems))


FINE: dict[str, dict[str, t.Any]] = {
    "adapter": {"target_modules": tiny_adapters.ALL_LINEAR},
    "adapter_b": {"rank": 32},
    "adapter_2": {},
    "adapter_b_2": {"rank": 32},
    "adapter_3": {},
    "adapter_b_3": {"rank": 32},
    "qv": {"target_modules": ["v_proj", "q_proj"]},
    "rslora": {"peft_config": {"use_rslora": True}},
    "dora": {"peft_config": {"use_dora": True}},
    "lm_head_saved": {"peft_config": {"modules_to_save": ["lm_head"]}},
    "embeddings": {},
    "rank_pattern": {"peft_config": {"rank_pattern": tiny_adapters.VARIANTS["rank_pattern"]["rank_pattern"]}},
    "bf16": {},
}


def test_structure_every_variant_is_covered() -> None:
    assert set(FINE) == set(tiny_adapters.VARIANTS)


@pytest.mark.parametrize("variant", FINE)
def test_structure_saved_by_peft_is_accepted(
    tiny: pathlib.Path, base_config: dict[str, t.Any], declare: Declare, variant: str
) -> None:
    assert problems_of(tiny / variant, declare(name=variant, **FINE[variant])) == ""
    assert problems_of(tiny / variant, declare(None, name=variant, **FINE[variant])) == ""


@pytest.mark.parametrize("variant", ["rslora", "dora", "lm_head_saved", "rank_pattern"])
def test_structure_undeclared_variant_is_rejected(tiny: pathlib.Path, declare: Declare, variant: str) -> None:
    assert "not plain LoRA and not declared" in problems_of(tiny / variant, declare())


def test_structure_unknown_base_type_is_reported_and_the_rest_checked(
    adapter: pathlib.Path, base_config: dict[str, t.Any], declare: Declare
) -> None:
    unknown = {**base_config, "model_type": "gpt2\n"}
    assert problems_of(adapter, declare(unknown)) == ""
    (note,) = unchecked(unknown)
    assert "base type gpt2" not in note
    assert r'The modules of base type "gpt2\n" are not known' in note
    assert "level adapter can" in note
    (note,) = unchecked(None)
    assert note.startswith("The config of its base is not known on this host")
    assert unchecked(base_config) == []
    # Keys that can load code are rejected all the same.
    assert "has the key 'auto_map'" in problems_of(adapter, declare({**unknown, "auto_map": {"AutoModel": "evil.Model"}}))
    change_tensors(adapter, drop(Q0_B))
    assert "lacks 1 of 28 tensors" in problems_of(adapter, declare(unknown))


def test_structure_checks_lists_what_was_proved(adapter: pathlib.Path) -> None:
    tensors = scan(str(adapter / "adapter_model.safetensors")).tensors
    checks = structure_checks(tensors, read_lora_config(str(adapter / "adapter_config.json")))
    assert checks[0].startswith("The configuration is LoRA as declared: rank 16, alpha 32")
    assert "28 tensors with the names and shapes of down_proj, gate_proj, k_proj and 4 more" in checks[1]
    assert len(checks) == 3


@pytest.mark.parametrize(
    "change",
    [cast("float16"), cast("float64"), zero(Q0_B), cast("float16", "lora_A"), zero("layers.0."), add(EMBED, (512, 64))],
    ids=["F16", "F64", "one lora_B zero", "mixed dtypes", "a layer zero", "embeddings of the base"],
)
def test_structure_unusual_adapter_is_accepted(adapter: pathlib.Path, declare: Declare, change: Damage) -> None:
    change_tensors(adapter, change)
    assert problems_of(adapter, declare()) == ""
    assert problems_of(adapter, declare(None)) == ""


def test_structure_saved_module_may_have_other_dtype(tiny: pathlib.Path, tmp_path: pathlib.Path, declare: Declare) -> None:
    tensors = load_file(tiny / "lm_head_saved" / "adapter_model.safetensors")
    head = "base_model.model.lm_head.weight"
    save_file({**tensors, head: tensors[head].astype("float16")}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((tiny / "lm_head_saved" / "adapter_config.json").read_bytes())
    assert problems_of(tmp_path, declare(peft_config={"modules_to_save": ["lm_head"]})) == ""


CONFIGS: dict[str, Config] = {
    "plain": {"target_modules": tiny_adapters.ALL_LINEAR},
    "full names": {"target_modules": ["model.layers.0.self_attn.q_proj", "layers.1.self_attn.k_proj", "lm_head"]},
    "part of a name": {"target_modules": ["mlp.up_proj", "q_proj"]},
    "one layer": {"target_modules": ["q_proj", "lm_head", "model.layers.0.mlp.up_proj"], "layers_to_transform": 1},
    "layers": {"target_modules": ["q_proj", "embed_tokens"], "layers_to_transform": [1]},
    "empty layers": {"target_modules": ["q_proj"], "layers_to_transform": []},
    "excluded": {"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["k_proj", "layers.0.self_attn.q_proj"]},
    "ranks": {
        "target_modules": ["q_proj", "k_proj", "v_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 4, "q_proj": 8, "^k_proj": 2, "^model.layers.0.self_attn.v_proj": 3},
    },
    "saved": {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head", "embed_tokens"]},
    "saved by full name": {"target_modules": ["q_proj"], "modules_to_save": ["model.embed_tokens"]},
    "dora": {"target_modules": ["v_proj", "embed_tokens", "lm_head"], "use_dora": True},
    "all linear": {"target_modules": "all-linear"},
    "pattern": {"target_modules": r".*\.layers\.[01]\.(self_attn\.[qk]|mlp\.up)_proj"},
    "excluding pattern": {"target_modules": ["q_proj", "k_proj"], "exclude_modules": r".*layers\.1.*q_proj"},
    "layers by pattern": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]},
    "ranks by pattern": {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {r".*\.1\..*(q|v)_proj": 4, "k_proj": 2}},
    "norms saved": {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
    "a norm saved": {"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm", "model.norm"]},
    "biases": {"target_modules": ["q_proj", "up_proj"], "lora_bias": True},
    "trained tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 4, 5]},
    "trained tokens by name": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3]}},
    "MonteCLoRA": {"target_modules": ["q_proj"], "monteclora_config": {"num_samples": 3}},
    "unknown target": {"target_modules": ["q_proj", "c_attn"]},
    "default targets": {"target_modules": None},
    "no targets": {"target_modules": "dummy-target-modules", "modules_to_save": ["lm_head"]},
    "trained tokens of input and output": {
        "target_modules": ["q_proj"],
        "trainable_token_indices": {"embed_tokens": [3], "lm_head": [3, 4]},
    },
}

INJECT = """
import json, sys, peft, transformers, torch
result = {}
for label, options in json.load(sys.stdin).items():
    base = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(sys.argv[1]))
    model = peft.get_peft_model(base, peft.LoraConfig(r=16, lora_alpha=32, task_type="CAUSAL_LM", **options))
    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    result[label] = {name: list(tensor.shape) for name, tensor in state.items()}
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def injected(tiny: pathlib.Path) -> dict[str, dict[str, list[int]]]:
    """The tensors that PEFT creates for each of CONFIGS on the tiny base."""
    command = [tiny_adapters.PEFT_PYTHON, "-c", INJECT, str(tiny / "base")]
    done = subprocess.run(command, input=json.dumps(CONFIGS), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, dict[str, list[int]]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("label", CONFIGS)
def test_expected_tensors_agree_with_peft(
    injected: dict[str, dict[str, list[int]]], base_config: dict[str, t.Any], label: str
) -> None:
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 16,
        "lora_alpha": 32,
        "base_model_name_or_path": "x",
        **CONFIGS[label],
    }
    assert is_well_formed(config)
    expected = expected_tensors(config, base_modules(base_config, "base"))
    assert {name: list(shape) for name, shape in expected.items()} == injected[label]


def test_structure_notes_lists_what_is_unusual(adapter: pathlib.Path, base_config: dict[str, t.Any]) -> None:
    config = read_lora_config(str(adapter / "adapter_config.json"))
    plain = scan(str(adapter / "adapter_model.safetensors")).tensors
    assert structure_notes(plain, config, base_config) == []
    changed = {**config, "target_modules": [*config["target_modules"], "c_attn"], "use_bdlora": {"nblocks": 2}}
    assert structure_notes(plain, changed, base_config) == [
        "Level structure cannot check all tensors of use_bdlora; level adapter can.",
        "target_modules names c_attn, which the base does not have. PEFT ignores that.",
    ]
    change_tensors(adapter, add(EMBED, (512, 64)))
    change_tensors(adapter, cast("float64", "lora_A"))
    embeddings, wide, dtypes = structure_notes(scan(str(adapter / "adapter_model.safetensors")).tensors, config, base_config)
    assert embeddings == f"The file has embeddings of the base ({EMBED}). Level model compares them with the base's."
    assert wide == "LoRA tensors are F64, which PEFT rounds to F32."
    assert dtypes.startswith("The LoRA tensors have different dtypes: F32, F64.")
    change_tensors(adapter, drop(EMBED))
    change_tensors(adapter, cast("float32"))
    change_tensors(adapter, zero("layers.0."))
    change_tensors(adapter, cast("float16", "layers.1."))
    dtypes, zeros = structure_notes(scan(str(adapter / "adapter_model.safetensors")).tensors, config, base_config)
    assert dtypes == "The LoRA tensors have different dtypes: F16, F32. PEFT loads them all as one."
    assert zeros.startswith("In 7 LoRA layers all values are zero, so they change nothing: model.layers.0.mlp.down_proj")
