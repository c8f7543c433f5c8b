# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a folded adapter, from its manifest alone."""

from __future__ import annotations

import math
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.lora_config import config_problems
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest, TensorEntry
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._forms import FOLDED, FOLDED_SAME_DTYPE
from ansible_collections.lorafleet.delivery.plugins.module_utils._source.fold_plan import plan_fold

Config = t.Dict[str, t.Any]

SHA = "0" * 64
LAYER = "base_model.model.model.layers.{}.self_attn.{}_proj"
PLAIN: Config = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tiny/Llama-64",
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["v_proj", "q_proj"],
    "peft_version": "0.21.2",
    "lora_dropout": 0.05,
    "init_lora_weights": "gaussian",
    "eva_config": {"rho": 2.0},
    "use_rslora": False,
    "alpha_pattern": {},
    "rank_pattern": {},
}


def manifest(
    dtype: str = "F32", ranks: t.Mapping[str, int] | None = None, more: t.Sequence[str] = (), **config: t.Any
) -> Manifest:
    """An adapter on two modules of two layers; ``ranks`` are those of modules by the letter."""
    known = ranks or {"q": 16, "v": 16}
    tensors = []
    for layer in range(2):
        for letter, rank in known.items():
            name = LAYER.format(layer, letter)
            tensors.append(TensorEntry(f"{name}.lora_A.weight", dtype, (rank, 64), SHA))
            tensors.append(TensorEntry(f"{name}.lora_B.weight", dtype, (32, rank), SHA))
    tensors += [TensorEntry(name, dtype, (4, 4), SHA) for name in more]
    files = (FileEntry("adapter_config.json", 1, SHA), FileEntry("adapter_model.safetensors", 1, SHA))
    return Manifest("a_lora", files, tuple(tensors), {**PLAIN, **config}, {})


def refusal(found: Manifest) -> str:
    with pytest.raises(DeliveryError) as caught:
        plan_fold(found, FOLDED)
    return str(caught.value)


def test_plan_fold_plain_adapter_sets_alpha_to_rank_and_drops_what_does_nothing() -> None:
    plan = plan_fold(manifest(), FOLDED)
    assert (plan.factors, plan.rank, plan.exact) == ((2.0,), 16, True)
    assert plan.config == {
        "alpha_pattern": {},
        "base_model_name_or_path": "tiny/Llama-64",
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "r": 16,
        "rank_pattern": {},
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
    }


def test_plan_fold_config_of_old_peft_gets_no_new_keys() -> None:
    old = {key: value for key, value in PLAIN.items() if "pattern" not in key and key not in ("use_rslora", "eva_config")}
    found = manifest()
    plan = plan_fold(Manifest(found.name, found.files, found.tensors, old, {}), FOLDED)
    assert plan.config.keys() & {"alpha_pattern", "rank_pattern", "use_dora", "use_rslora"} == set()


def test_plan_fold_patterns_are_resolved_by_first_key_and_padded_to_one_rank() -> None:
    patterns = {
        "use_rslora": True,
        "rank_pattern": {"q_proj": 4},
        "alpha_pattern": {"v_proj": 8, "layers.1.self_attn.v_proj": 64},
    }
    plan = plan_fold(manifest(ranks={"q": 4, "v": 16}, **patterns), FOLDED)
    assert plan.factors == (8 / math.sqrt(16), 32 / math.sqrt(4))
    assert plan.rank == 16
    assert plan.config["rank_pattern"] == plan.config["alpha_pattern"] == {}
    assert plan.config["use_rslora"] is False


def test_plan_fold_rank_that_no_module_has_is_kept(declare: t.Callable[..., Declaration]) -> None:
    """The inventory alone tells a node which rank the folded adapter has."""
    found = manifest(ranks={"q": 4, "v": 4}, rank_pattern={".*": 4})
    plan = plan_fold(found, FOLDED)
    assert plan.rank == 16
    declared = declare(base_config=None, peft_config={"rank_pattern": {".*": 4}})
    assert config_problems(found.config, declared) == []
    assert config_problems(plan.config, declared.folded()) == []


@pytest.mark.parametrize(
    ("dtype", "alpha", "exact"),
    [("F32", 8, True), ("BF16", 8, True), ("F16", 8, False), ("F16", 16, True), ("F32", 24, False), ("BF16", -32, True)],
)
def test_plan_fold_is_exact_for_powers_of_two_but_in_float16(dtype: str, alpha: int, exact: bool) -> None:
    plan = plan_fold(manifest(dtype, lora_alpha=alpha), FOLDED)
    assert plan.exact is plan.keeps_dtype is exact
    assert plan_fold(manifest(dtype, lora_alpha=alpha), FOLDED_SAME_DTYPE).keeps_dtype


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("use_dora", True, "DoRA"),
        ("lora_bias", True, "biases of lora_B"),
        ("modules_to_save", ["lm_head"], "whole modules"),
        ("trainable_token_indices", [3], "trained tokens"),
        ("target_parameters", ["mlp.experts.gate_up_proj"], "LoRA on parameters"),
        ("alora_invocation_tokens", [5, 6], "Activated LoRA"),
        ("use_bdlora", {"nblocks": 2}, "block-diagonal LoRA"),
        ("use_qalora", True, "QALoRA"),
        ("velora_config", {"scale": 1.0}, "VeLoRA"),
        ("monteclora_config", {"num_samples": 4}, "MonteCLoRA"),
    ],
)
def test_plan_fold_kind_without_folded_form_is_refused_by_name(key: str, value: t.Any, what: str) -> None:
    message = refusal(manifest(**{key: value}))
    assert message.startswith(f": cannot be folded: it has {what} ({key}). Deliver it as trained")


@pytest.mark.parametrize(
    ("options", "more", "remedy"),
    [
        ({"use_dora": True}, [], "Deliver it as trained, or merge it into the base in float32. A merge in bfloat16"),
        # PEFT cannot merge them, so there is no other way.
        ({"lora_bias": True}, [], "Deliver it as trained."),
        ({"alora_invocation_tokens": [5, 6]}, [], "Deliver it as trained."),
        ({"use_dora": True, "layer_replication": [[0, 2], [1, 2]]}, [], "Deliver it as trained."),
        # On a base whose head is its embeddings, the merged model would be another one.
        ({}, ["base_model.model.model.embed_tokens.lora_embedding_A"], "float32, if the base has a head of its own. A merge"),
        ({"use_dora": True}, ["base_model.model.lm_head.lora_A.weight"], "float32, if the base has a head of its own. A merge"),
    ],
)
def test_plan_fold_refusal_advises_a_merge_only_where_it_helps(options: dict[str, t.Any], more: list[str], remedy: str) -> None:
    message = refusal(manifest(more=more, **options))
    assert remedy in message
    assert ("merge" in message) is ("merge" in remedy)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.norm.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
    ],
)
def test_plan_fold_tensor_that_is_no_linear_layer_of_peft_is_refused(name: str) -> None:
    assert f'only lora_A and lora_B of linear layers can, and it has "{name}".' in refusal(manifest(more=[name]))


def test_plan_fold_pickle_is_refused() -> None:
    found = manifest()
    files = (found.files[0], FileEntry("adapter_model.bin", 1, SHA))
    assert "adapter_model.bin is a pickle." in refusal(Manifest("a_lora", files, (), found.config, {}))


def test_plan_fold_matrix_without_other_or_of_another_rank_is_refused() -> None:
    found = manifest()
    assert "has rank 16 and matrices of the shapes [16, 64] and []." in refusal(
        Manifest("a_lora", found.files, found.tensors[:-1], found.config, {})
    )
    assert "has rank 8 and matrices of the shapes [16, 64] and [32, 16]." in refusal(manifest(r=8))
