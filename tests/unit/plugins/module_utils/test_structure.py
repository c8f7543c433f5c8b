# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The level structure: every damage that can be seen without PEFT, done to an adapter that PEFT really saved.

PEFT itself accepts most of them without a word.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import typing as t

import numpy as np
import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._architecture import base_modules
from ansible_collections.lorafleet.delivery.plugins.module_utils._declared import Declared
from ansible_collections.lorafleet.delivery.plugins.module_utils._lora_config import (
    Config,
    config_problems,
    is_well_formed,
    read_lora_config,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._safetensors import scan
from ansible_collections.lorafleet.delivery.plugins.module_utils._structure import (
    expected_tensors,
    structure_checks,
    structure_problems,
    unchecked,
)
from ansible_collections.lorafleet.delivery.tests import tiny_adapters
from safetensors.numpy import load_file, save_file

Declare = t.Callable[..., Declared]
Tensors = dict[str, t.Any]

LAYER = "base_model.model.model.layers.{}."
Q0_A = LAYER.format(0) + "self_attn.q_proj.lora_A.weight"
Q0_B = LAYER.format(0) + "self_attn.q_proj.lora_B.weight"
DOWN1_A = LAYER.format(1) + "mlp.down_proj.lora_A.weight"
DOWN1_B = LAYER.format(1) + "mlp.down_proj.lora_B.weight"
EMBED = "base_model.model.model.embed_tokens.weight"


def judge(directory: pathlib.Path, declared: Declared) -> str:
    """All problems of an adapter directory as one text, without any an empty one."""
    config = read_lora_config(str(directory / "adapter_config.json"))
    tensors = scan(str(directory / "adapter_model.safetensors")).tensors
    problems = [
        *config_problems(config, declared),
        *structure_problems(declared.name, tensors, config, declared.base_config),
    ]
    for problem in problems:
        assert problem.subject.startswith(f"adapter {declared.name}") or problem.subject.startswith("base of adapter ")
        assert problem.remedy
        assert len(str(problem)) < 1000
    return "\n".join(map(str, problems))


FINE: dict[str, dict[str, t.Any]] = {
    "adapter": {"target_modules": tiny_adapters.ALL_LINEAR},
    "adapter_b": {"rank": 32},
    "qv": {"target_modules": ["v_proj", "q_proj"]},
    "rslora": {"peft_config": {"use_rslora": True}},
    "dora": {"peft_config": {"use_dora": True}},
    "lm_head_saved": {"peft_config": {"modules_to_save": ["lm_head"]}},
    "embeddings": {},
    "rank_pattern": {"peft_config": {"rank_pattern": tiny_adapters.VARIANTS["rank_pattern"]["rank_pattern"]}},
    "bf16": {},
}


def test_all_that_peft_made_is_tried() -> None:
    assert set(FINE) == set(tiny_adapters.VARIANTS)


@pytest.mark.parametrize("variant", FINE)
def test_what_peft_saves_is_accepted(tiny: pathlib.Path, base_config: dict[str, t.Any], declare: Declare, variant: str) -> None:
    assert judge(tiny / variant, declare(name=variant, **FINE[variant])) == ""
    assert judge(tiny / variant, declare(None, name=variant, **FINE[variant])) == ""


@pytest.mark.parametrize("variant", ["rslora", "dora", "lm_head_saved", "rank_pattern"])
def test_variants_that_are_not_declared_are_refused(tiny: pathlib.Path, declare: Declare, variant: str) -> None:
    assert "not plain LoRA and not declared" in judge(tiny / variant, declare())


@dataclasses.dataclass(frozen=True)
class Fault:
    """One damage: what it does to the tensors and to the configuration, and what the message must name."""

    words: tuple[str, ...]
    tensors: t.Callable[[Tensors], t.Any] = lambda tensors: None
    config: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    # What the inventory (or the base) says otherwise than for the plain adapter.
    declared: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    # Whether it is found although nothing is known of the base.
    without_base: bool = True


def drop(*parts: str) -> t.Callable[[Tensors], t.Any]:
    def change(tensors: Tensors) -> None:
        victims = [name for name in tensors if any(part in name for part in parts)]
        assert victims
        for name in victims:
            del tensors[name]

    return change


def add(name: str, shape: tuple[int, ...] = (4, 4)) -> t.Callable[[Tensors], t.Any]:
    return lambda tensors: tensors.update({name: np.ones(shape, np.float32)})


def put(name: str, value: float) -> t.Callable[[Tensors], t.Any]:
    def change(tensors: Tensors) -> None:
        tensors[name][3, 3] = value

    return change


def zero(part: str) -> t.Callable[[Tensors], t.Any]:
    def change(tensors: Tensors) -> None:
        victims = [name for name in tensors if part in name]
        assert victims
        for name in victims:
            tensors[name][:] = 0

    return change


def cast(dtype: str, part: str = "") -> t.Callable[[Tensors], t.Any]:
    return lambda tensors: tensors.update({name: tensors[name].astype(dtype) for name in tensors if part in name})


def rename(old: str, new: str) -> t.Callable[[Tensors], t.Any]:
    return lambda tensors: tensors.update({name.replace(old, new): tensors.pop(name) for name in list(tensors)})


def reshape(name: str, shape: tuple[int, ...]) -> t.Callable[[Tensors], t.Any]:
    return lambda tensors: tensors.update({name: np.ones(shape, np.float32)})


def base(**changes: t.Any) -> dict[str, t.Any]:
    return {"base": changes}


FAULTS: dict[str, Fault] = {
    # Tensors that are not there
    "one lora_B missing": Fault(("lacks 1 of 28 tensors", Q0_B), drop(Q0_B)),
    "one lora_A missing": Fault(("lacks 1 of 28 tensors", Q0_A), drop(Q0_A)),
    "a module missing": Fault(("lacks 2 of 28 tensors", DOWN1_A, DOWN1_B), drop("1.mlp.down_proj"), without_base=False),
    "a layer missing": Fault(("lacks 14 of 28 tensors", "and 11 more"), drop("layers.1."), without_base=False),
    "only q and v": Fault(
        ("lacks 20 of 28", "k_proj.lora_A"), drop("k_proj", "o_proj", "gate", "up_", "down"), without_base=False
    ),
    "no k": Fault(("target_modules names k_proj, of which there is nothing",), drop("k_proj"), declared={"base_config": None}),
    "no tensors at all": Fault(("lacks 28 of 28",), dict.clear, without_base=False),
    "other prefix": Fault(("lacks 28 of 28", "28 tensors", "silently"), rename("base_model.model.", "m."), without_base=False),
    "adapter's name in the keys": Fault(
        ("lacks 28 of 28", "28 tensors", "lora_A.default.weight"), rename(".weight", ".default.weight"), without_base=False
    ),
    # Tensors too many
    "a layer too many": Fault(
        ("has 1 tensor that", "silently leave out", "layers.2.self_attn"), add(Q0_A.replace("s.0.", "s.2.")), without_base=False
    ),
    "embeddings of the base": Fault(("would overwrite weights of the base", EMBED), add(EMBED, (512, 64))),
    "a norm of the base": Fault(
        ("would overwrite weights of the base", "model.norm.weight"), add("base_model.model.model.norm.weight", (64,))
    ),
    "a base layer": Fault(
        ("would overwrite weights of the base", "q_proj.base_layer.weight"),
        add(LAYER.format(0) + "self_attn.q_proj.base_layer.weight", (64, 64)),
    ),
    "a plain weight of the base": Fault(
        ("would overwrite weights of the base", "q_proj.weight"), add(LAYER.format(0) + "self_attn.q_proj.weight", (64, 64))
    ),
    "empty name": Fault(("silently leave out", "''"), add("")),
    "name with a line break": Fault(("silently leave out", r"'../x\n'"), add("../x\n")),
    "long name": Fault(("silently leave out", "xxx..."), add("x" * 9999)),
    "config omits a target": Fault(
        ("4 tensors", "silently leave out", "v_proj.lora_A"),
        config={"target_modules": [name for name in tiny_adapters.ALL_LINEAR if name != "v_proj"]},
    ),
    "config leaves layers out": Fault(
        ("layers_to_transform in", "14 tensors", "silently leave out"), config={"layers_to_transform": [0]}
    ),
    "config excludes a module": Fault(
        ("exclude_modules in", "4 tensors", "silently leave out"), config={"exclude_modules": ["k_proj"]}
    ),
    "base with fewer layers": Fault(
        ("14 tensors", "silently leave out", "layers.1."), declared=base(num_hidden_layers=1), without_base=False
    ),
    # Targets
    "no targets": Fault(("target_modules in", "is null"), config={"target_modules": None}),
    "targets as a pattern": Fault(("target_modules in", "all-linear"), config={"target_modules": "all-linear"}),
    "targets partly unknown": Fault(
        ("target_modules names c_attn,",), config={"target_modules": [*tiny_adapters.ALL_LINEAR, "c_attn"]}
    ),
    "targets wholly unknown": Fault(("target_modules names c_attn,", "28 tensors"), config={"target_modules": ["c_attn"]}),
    "targets other than declared": Fault(
        ("target_modules in", "the inventory declares q_proj, v_proj"), declared={"target_modules": ["q_proj", "v_proj"]}
    ),
    # Shapes
    "other shape": Fault((f"{Q0_A} is [8, 64], expected [16, 64]",), reshape(Q0_A, (8, 64))),
    "transposed": Fault((f"{DOWN1_A} is [128, 16], expected [16, ",), reshape(DOWN1_A, (128, 16))),
    "1-D": Fault((f"{Q0_A} is [16], expected [16, ",), reshape(Q0_A, (16,))),
    "0-size": Fault((f"{Q0_B} is [0, 16], expected [",), reshape(Q0_B, (0, 16))),
    "r halved": Fault(
        ("r in adapter_config.json: is 8; the inventory declares rank 16", "28 tensors of a wrong shape", "expected [8, "),
        config={"r": 8},
    ),
    "r halved and declared": Fault(("28 tensors of a wrong shape",), config={"r": 8}, declared={"rank": 8}),
    "rank_pattern": Fault(
        ("4 tensors of a wrong shape", "is [16, 64], expected [8, 64]"),
        config={"rank_pattern": {"q_proj": 8}},
        declared={"peft_config": {"rank_pattern": {"q_proj": 8}}},
    ),
    "base with other hidden size": Fault(
        ("tensors of a wrong shape", "expected [16, 96]"), declared=base(hidden_size=96, head_dim=16), without_base=False
    ),
    "base with other inner size": Fault(
        ("6 tensors of a wrong shape",), declared=base(intermediate_size=256), without_base=False
    ),
    "base with more layers": Fault(("lacks 14 of 42",), declared=base(num_hidden_layers=3), without_base=False),
    "base without a type": Fault(
        ("base of adapter adapter: has model_type None",), declared=base(model_type=None), without_base=False
    ),
    # Scaling and kind: nothing in the tensors tells
    "alpha doubled": Fault(("lora_alpha in adapter_config.json: is 64; ",), config={"lora_alpha": 64}),
    "alpha 0": Fault(("lora_alpha in", "is 0"), config={"lora_alpha": 0}),
    "rsLoRA": Fault(("use_rslora in", "is true"), config={"use_rslora": True}),
    "alpha_pattern": Fault(("alpha_pattern in", '{"q_proj": 64}'), config={"alpha_pattern": {"q_proj": 64}}),
    "bias": Fault(("bias in", '"all"'), config={"bias": "all"}),
    "fan_in_fan_out": Fault(("fan_in_fan_out in", "is true"), config={"fan_in_fan_out": True}),
    "lora_bias": Fault(("lora_bias in", "is true"), config={"lora_bias": True}),
    "DoRA": Fault(("use_dora in", "lacks 14 of 42", "lora_magnitude_vector"), config={"use_dora": True}),
    "modules_to_save": Fault(("modules_to_save in", "lm_head"), config={"modules_to_save": ["lm_head"]}),
    "modules_to_save, declared": Fault(
        ("base_model.model.lm_head.weight",),
        config={"modules_to_save": ["lm_head"]},
        declared={"peft_config": {"modules_to_save": ["lm_head"]}},
        without_base=False,
    ),
    "modules_to_save, declared, base unknown": Fault(
        ("modules_to_save names lm_head",),
        config={"modules_to_save": ["lm_head"]},
        declared={"peft_config": {"modules_to_save": ["lm_head"]}, "base_config": None},
    ),
    "trainable tokens": Fault(("trainable_token_indices in",), config={"trainable_token_indices": [1]}),
    **{
        f"begins as {value}": Fault(("init_lora_weights in", value), config={"init_lora_weights": value})
        for value in ("pissa", "pissa_niter_4", "olora", "loftq", "eva", "corda", "bogus")
    },
    "other base": Fault(("base_model_name_or_path in", "other/base"), config={"base_model_name_or_path": "other/base"}),
    "no base": Fault(("base_model_name_or_path in", "null"), config={"base_model_name_or_path": None}),
    "other method": Fault(("peft_type in", "LOHA"), config={"peft_type": "LOHA"}),
    "other task": Fault(("task_type in", "SEQ_CLS"), config={"task_type": "SEQ_CLS"}),
    "no task": Fault(("task_type in", "null"), config={"task_type": None}),
    "r as text": Fault(("r in", '"16"'), config={"r": "16"}),
    # Values
    "NaN": Fault(("NaN or infinite values in 1 of 28", DOWN1_B), put(DOWN1_B, np.nan)),
    "Inf": Fault(("NaN or infinite values in 1 of 28", Q0_A), put(Q0_A, -np.inf)),
    "NaN beside a damaged config": Fault(("NaN or infinite values in 1 of 28", "r in"), put(Q0_A, np.nan), {"r": None}),
    "untrained": Fault(("has no effect", "all zeros"), zero("lora_B")),
    "all lora_A zero": Fault(("has no effect", "all zeros"), zero("lora_A")),
    "one lora_A zero": Fault(("is all zeros in 1 tensor that", DOWN1_A), zero(DOWN1_A)),
    # Dtypes
    "F64": Fault(("28 tensors of a wrong dtype", "is F64", "expected F32, BF16, F16"), cast("float64")),
    "I8": Fault(("28 tensors of a wrong dtype", "is I8"), cast("int8")),
    "mixed dtypes": Fault(("mixes dtypes", "is F16", "is F32"), cast("float16", "lora_A")),
}


@pytest.mark.parametrize(
    ("label", "base_known"),
    [(label, known) for label, fault in FAULTS.items() for known in (True, False) if known or fault.without_base],
)
def test_every_fault_is_found_and_named(
    adapter: pathlib.Path, base_config: dict[str, t.Any], declare: Declare, label: str, base_known: bool
) -> None:
    fault = FAULTS[label]
    weights, config = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    tensors = load_file(weights)
    fault.tensors(tensors)
    save_file(tensors, weights)
    config.write_text(json.dumps({**json.loads(config.read_text()), **fault.config}))
    row = dict(fault.declared)
    changed_base = {**base_config, **row.pop("base", {})} if base_known else None
    message = judge(adapter, declare(**{"base_config": changed_base, **row}))
    for words in fault.words:
        assert words in message


def test_a_base_of_unknown_type_is_said_and_what_can_be_judged_is_judged(
    adapter: pathlib.Path, base_config: dict[str, t.Any], declare: Declare
) -> None:
    unknown = {**base_config, "model_type": "gpt2\n"}
    assert judge(adapter, declare(unknown)) == ""
    (note,) = unchecked(unknown)
    assert "base's type gpt2" not in note
    assert r"base's type 'gpt2\n' are not known here" in note
    assert "level adapter can" in note
    (note,) = unchecked(None)
    assert note.startswith("No config of its base is known here")
    assert unchecked(base_config) == []
    # It is no way around what forbids code.
    assert "has the key 'auto_map'" in judge(adapter, declare({**unknown, "auto_map": {"AutoModel": "evil.Model"}}))
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    del tensors[Q0_B]
    save_file(tensors, weights)
    assert "lacks 1 of 28 tensors" in judge(adapter, declare(unknown))


def test_what_was_checked_is_said(adapter: pathlib.Path) -> None:
    tensors = scan(str(adapter / "adapter_model.safetensors")).tensors
    checks = structure_checks(tensors, read_lora_config(str(adapter / "adapter_config.json")))
    assert checks[0].startswith("The configuration is LoRA as declared: rank 16, alpha 32")
    assert "28 tensors with the names and shapes of down_proj, gate_proj, k_proj and 4 more" in checks[1]
    assert len(checks) == 3


@pytest.mark.parametrize("change", [cast("float16"), zero(Q0_B)], ids=["F16", "one lora_B zero"])
def test_unusual_but_fine(adapter: pathlib.Path, declare: Declare, change: t.Callable[[Tensors], t.Any]) -> None:
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    change(tensors)
    save_file(tensors, weights)
    assert judge(adapter, declare()) == ""
    assert judge(adapter, declare(None)) == ""


def test_saved_modules_keep_the_dtype_of_the_base(tiny: pathlib.Path, tmp_path: pathlib.Path, declare: Declare) -> None:
    tensors = load_file(tiny / "lm_head_saved" / "adapter_model.safetensors")
    head = "base_model.model.lm_head.weight"
    save_file({**tensors, head: tensors[head].astype("float16")}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((tiny / "lm_head_saved" / "adapter_config.json").read_bytes())
    assert judge(tmp_path, declare(peft_config={"modules_to_save": ["lm_head"]})) == ""


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
    """The tensors that PEFT has for each of CONFIGS on the tiny base."""
    command = [tiny_adapters.PEFT_PYTHON, "-c", INJECT, str(tiny / "base")]
    done = subprocess.run(command, input=json.dumps(CONFIGS), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result: dict[str, dict[str, list[int]]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("label", CONFIGS)
def test_expected_tensors_are_those_that_peft_makes(
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
