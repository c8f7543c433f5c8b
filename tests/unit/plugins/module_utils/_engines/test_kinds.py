# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kinds of adapters, on adapters that PEFT and other tools saved, and on any other header."""

from __future__ import annotations

import json
import math
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter import patterns
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.config_keys import KEYS
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.kinds import kinds_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules.form import KINDS
from hypothesis import given
from hypothesis import strategies as st

from tests.support.compatibility import BASE, TRAINERS
from tests.support.manifests import LAYERS, PLAIN, adapter, manifest, pairs, read_manifest

# The base of the saved adapters has a head of its own, and transformers 5 has saved it.
CONFIG: dict[str, t.Any] = json.loads((BASE / "config.json").read_text(encoding="utf-8"))

SAVED = {
    "peft-plain": ["factor"],
    "peft-0.5.0": ["factor"],
    "peft-all-linear": ["factor"],
    "peft-bf16": ["factor", "bf16"],
    "peft-mixed-dtypes": ["factor", "bf16"],
    "peft-rslora": ["rslora", "factor"],
    "peft-dora": ["dora", "factor"],
    "peft-lora-bias": ["lora_bias", "factor"],
    "peft-bias-lora-only": ["bias", "factor"],
    "peft-bias-all": ["bias", "factor"],
    "peft-rank-pattern": ["alpha_pattern", "rank_pattern", "factor"],
    "peft-eva-redistributed": ["alpha_pattern", "rank_pattern", "factor"],
    "peft-layers": ["factor", "some_layers"],
    "peft-regex-targets": ["factor", "regex"],
    "peft-regex-excluded": ["factor", "some_layers"],
    "peft-saved-head": ["saved_head", "factor"],
    "peft-saved-norms": ["saved_other", "factor"],
    "peft-trainable-tokens": ["tokens", "factor"],
    "peft-embedding-target": ["embeddings", "factor"],
    "peft-embedding-target-auto": ["embeddings", "factor"],
    "peft-target-parameters": ["parameters", "factor"],
    "peft-alora": ["alora", "factor"],
    "peft-bdlora": ["bdlora", "factor"],
    "peft-layer-replication": ["replicated", "factor"],
    "peft-qalora": ["qalora", "factor"],
    "peft-velora": ["extension", "factor"],
    "peft-monteclora": ["extension", "factor"],
    "peft-kasa": ["extension", "factor"],
    "peft-without-head": ["prefix_headless"],
    "peft-save-as-lora-threshold": ["alpha_pattern", "rank_pattern"],
    "torchtune-head": ["head", "factor"],
    # Its configuration does not say that it is DoRA.
    "torchtune-dora": ["dora", "factor"],
    "trl-sft-saved-modules": ["saved_head", "saved_embeddings", "factor"],
    "unsloth-regex": ["factor", "regex"],
}


@pytest.mark.parametrize("fixture", SAVED)
def test_kinds_of_saved_adapter_are_those_of_its_name(fixture: str) -> None:
    found = kinds_of(read_manifest(TRAINERS / fixture), CONFIG).kinds
    assert found == (*SAVED[fixture], "rope_parameters")


def test_kinds_of_plain_adapter_without_base_is_plain_alone() -> None:
    found = kinds_of(adapter(), None)
    assert (found.kinds, found.factor, found.alpha, found.rank, found.tied) == (("plain",), 1.0, 16.0, 16, None)


@pytest.mark.parametrize("dtype, kind", [("F16", "fp16"), ("BF16", "bf16"), ("F64", "other_dtype"), ("F8_E4M3", "other_dtype")])
def test_kinds_of_file_in_other_dtype_are_plain_and_the_dtype(dtype: str, kind: str) -> None:
    assert set(kinds_of(adapter(dtype=dtype), None).kinds) == {"plain", kind}


def test_kinds_name_rank_that_differs_from_configuration() -> None:
    found = kinds_of(adapter(r=32, lora_alpha=32), None)
    assert (found.kinds, found.config_rank, found.rank) == (("rank_mismatch",), 32, 16)


def test_kinds_name_layer_with_one_matrix() -> None:
    shapes = pairs()
    del shapes["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"]
    assert kinds_of(adapter(shapes), None).kinds == ("unpaired",)


@pytest.mark.parametrize(
    "prefix, kinds",
    [
        ("model.", ("prefix_missing",)),
        ("base_model.model.", ("prefix_headless",)),
        ("base_model.model.language_model.", ("prefix_multimodal",)),
    ],
)
def test_kinds_name_foreign_prefix(prefix: str, kinds: tuple[str, ...]) -> None:
    base = {**CONFIG, "rope_theta": 1e4}
    assert kinds_of(adapter(pairs(prefix=prefix)), base).kinds == kinds


def test_kinds_with_unknown_base_claim_no_foreign_path() -> None:
    for base in (None, {"model_type": "gemma3"}):
        assert kinds_of(adapter(pairs(prefix="base_model.model.language_model.")), base).kinds == ("plain",)


def test_kinds_name_convolutions() -> None:
    shapes = {"base_model.model.conv.lora_A.weight": (16, 3, 3, 3), "base_model.model.conv.lora_B.weight": (64, 16, 1, 1)}
    assert kinds_of(adapter(shapes), None).kinds == ("convolutions",)


@pytest.mark.parametrize("end", ["", ".weight"])
def test_kinds_name_magnitudes_of_dora_without_its_key(end: str) -> None:
    shapes = {**pairs(), f"base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector{end}": (32,)}
    assert kinds_of(adapter(shapes), None).kinds == ("dora",)


def test_kinds_name_experts() -> None:
    assert kinds_of(adapter(pairs(["layers.0.mlp.experts.3.w1"])), None).kinds == ("experts",)
    # A shared expert is a layer like any other.
    assert kinds_of(adapter(pairs(["layers.0.mlp.shared_experts.up_proj"])), None).kinds == ("plain",)


def test_pattern_that_matches_nothing_is_no_kind() -> None:
    assert kinds_of(adapter(alpha_pattern={"nothing": 64}, rank_pattern={"nothing": 2}), None).kinds == ("plain",)


def test_numbers_of_rslora_are_factor_and_alpha_to_hand_over() -> None:
    found = kinds_of(adapter(lora_alpha=32, use_rslora=True), None)
    assert (found.kinds, found.factors, found.factor, found.alpha) == (("rslora", "factor"), (8.0,), 8.0, 128.0)
    assert found.config_factor == 8.0


def test_numbers_of_patterns_with_one_ratio_are_that_ratio() -> None:
    shapes = {**pairs(), **pairs([name for name in LAYERS if name.endswith("q_proj")], rank=8)}
    found = kinds_of(adapter(shapes, lora_alpha=32, rank_pattern={"q_proj": 8}, alpha_pattern={"q_proj": 16}), None)
    assert found.kinds == ("alpha_pattern", "rank_pattern", "factor")
    # OpenVINO GenAI needs one factor, llama.cpp one alpha.
    assert (found.factor, found.alpha, found.ranks) == (2.0, None, (8, 16))


def test_numbers_of_rank_pattern_alone_are_one_alpha() -> None:
    shapes = {**pairs(), **pairs([name for name in LAYERS if name.endswith("q_proj")], rank=8)}
    found = kinds_of(adapter(shapes, lora_alpha=32, rank_pattern={"q_proj": 8}), None)
    assert (found.factors, found.factor, found.alpha, found.config_factor) == ((2.0, 4.0), None, 32.0, 2.0)


def test_rslora_of_rank_1_is_no_kind() -> None:
    assert kinds_of(adapter(pairs(rank=1), r=1, lora_alpha=1, use_rslora=True), None).kinds == ("plain",)


def test_alpha_of_several_ranks_is_one_number_in_spite_of_rounding() -> None:
    shapes = {**pairs(), **pairs([name for name in LAYERS if name.endswith("q_proj")], rank=49)}
    found = kinds_of(adapter(shapes, lora_alpha=1, rank_pattern={"q_proj": 49}), None)
    assert found.alpha == 1.0


def test_ranks_of_parameters_are_not_those_of_the_configuration() -> None:
    # PEFT saves the matrices of all experts as one.
    shapes = pairs(["layers.0.mlp.experts"], rank=64)
    found = kinds_of(adapter(shapes, target_parameters=["mlp.experts.down_proj"]), None)
    assert (found.kinds, found.rank) == (("parameters", "experts"), 16)


def test_no_layers_to_transform_are_all_layers() -> None:
    assert kinds_of(adapter(layers_to_transform=[]), None).kinds == ("plain",)
    assert kinds_of(adapter(layers_to_transform=0), None).kinds == ("some_layers",)


def test_pickle_is_not_plain_since_its_tensors_are_not_known() -> None:
    assert kinds_of(adapter({}, use_rslora=True), None).kinds == ("pickle",)
    assert kinds_of(adapter({}, use_dora=True), None).kinds == ("dora", "pickle")


def test_kinds_name_saved_bias_of_the_base() -> None:
    shapes = {**pairs(), "base_model.model.model.layers.0.self_attn.q_proj.bias": (32,)}
    assert kinds_of(adapter(shapes), None).kinds == ("bias",)


def test_rslora_with_odd_rank_has_one_alpha_all_the_same() -> None:
    found = kinds_of(adapter(pairs(rank=7), r=7, use_rslora=True), None)
    assert found.alpha == pytest.approx(16 * math.sqrt(7))


def test_base_of_transformers_5_lacks_keys_of_transformers_4() -> None:
    llama3 = {"rope_type": "llama3", "factor": 32.0, "rope_theta": 5e5}
    found = kinds_of(adapter(), {"model_type": "llama", "rope_parameters": llama3})
    assert found.kinds == ("plain", "rope_parameters")
    assert found.rope == {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 32.0}}
    assert found.values["lines"] == '"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 32.0}'


@pytest.mark.parametrize(
    "base",
    [
        {"rope_theta": 1e4},
        {"rope_parameters": {"rope_theta": 1e4}, "rope_theta": 1e4},
        {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
        {"rope_parameters": None},
    ],
)
def test_base_that_older_readers_understand_is_no_kind(base: dict[str, t.Any]) -> None:
    assert kinds_of(adapter(), base).kinds == ("plain",)


def test_pattern_without_end_leaves_kinds_of_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_SECONDS", 0.1)
    found = kinds_of(adapter(dtype="BF16", alpha_pattern={"(.*.*.*)*!": 3}, use_dora=True), None)
    assert (found.kinds, found.factors) == (("dora", "bf16"), ())


# -- Any header ---------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70)
    | st.floats()
    | st.sampled_from(["", "none", "lm_head", "q_proj", "all-linear"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["q_proj", "r", "rope_theta"]), inner, max_size=2)
    ),
    max_leaves=6,
)
configs = st.dictionaries(st.sampled_from(sorted(KEYS)), values, max_size=8).flatmap(
    lambda changes: st.sampled_from([changes, {**PLAIN, **changes}])
)
parts = st.sampled_from(
    (
        *("base_model", "model", "layers", "0", "experts", "language_model", "q_proj", "lm_head", "embed_tokens", "base_layer"),
        *("lora_A", "lora_B", "lora_embedding_A", "weight", "bias", "lora_magnitude_vector", "trainable_tokens_delta"),
    )
)
names = st.lists(parts, max_size=8).map(".".join) | st.sampled_from(sorted(pairs())) | st.text(max_size=5)
tensors = st.dictionaries(names, st.lists(st.integers(0, 70), max_size=3).map(tuple), max_size=6)
bases = (
    st.none()
    | st.just(CONFIG)
    | st.dictionaries(st.sampled_from(["rope_parameters", "tie_word_embeddings", "model_type"]), values)
)


@pytest.mark.fuzz
@given(configs, tensors, bases, st.sampled_from(["F32", "BF16", "I8"]))
def test_kinds_of_any_header_are_known_and_ordered(
    config: dict[str, t.Any], shapes: dict[str, tuple[int, ...]], base: dict[str, t.Any] | None, dtype: str
) -> None:
    found = kinds_of(manifest(config, shapes, dtype), base)
    assert found.kinds
    assert list(found.kinds) == [kind for kind in KINDS if kind in found.kinds]
    assert all(isinstance(text, str) for text in found.values) and isinstance(found.values["lines"], str)
