# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The product's verdicts against PEFT's own loading, on adapters varied over all of its options.

Each adapter is made by PEFT from random options of LoraConfig, and then perhaps changed as damaged
files and other tools differ from PEFT's. What PEFT loads right must be accepted, and what it does
not must be rejected at level model. ``REASONS`` lists where the product differs on purpose.
"""

from __future__ import annotations

import json
import pathlib
import re
import tempfile
import typing as t

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

from tests.support import tiny_adapters
from tests.support.compatibility import BASE
from tests.support.damage import change_tensors
from tests.support.peft_oracle import Oracle
from tests.support.trainers import declare, structure_verdict

pytestmark = [pytest.mark.xdist_group("against_peft"), pytest.mark.slow, pytest.mark.fuzz]

FUZZING = settings().max_examples > 50
Tensors = t.Dict[str, t.Any]

# What the product rejects although PEFT loads it, by words of the message, and why.
REASONS = {
    "NaN or infinite": "answers of a part of the model would be NaN for some inputs",
    "unsupported dtype": "whole numbers are quantized values, whose scales are not in the file",
    'expected "LORA"': "level structure knows LoRA alone",
    '"CAUSAL_LM" or null': "the adapter is not one of a causal language model",
    "alora_invocation_tokens in adapter_config.json: is []": "an Activated LoRA that nothing can invoke",
    "beyond the vocabulary": "the model has no such tokens, so the adapter could never be invoked",
    "import Python modules": "loading would run code that the adapter names",
    "change the base itself": "the base serves other adapters, too",
}

# -- Options of LoraConfig ----------------------------------------------------------------------

NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
some_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
targets: st.SearchStrategy[t.Any] = st.one_of(
    some_names,
    some_names.map(lambda names: [f"model.layers.1.self_attn.{name}" for name in names if name[0] in "qkvo"] or ["q_proj"]),
    st.just([*NAMES, "lm_head"]),
    st.just(["q_proj", "embed_tokens"]),
    st.sampled_from(("all-linear", r".*\.(q|v)_proj", r"model\.layers\.\d\.mlp\..*_proj", ".*self_attn.*(q_proj|o_proj)$")),
)
patterns = st.sampled_from(
    ("q_proj", "layers.1.self_attn.q_proj", "^model.layers.0.mlp.down_proj", r".*\.layers\.1\..*", "mlp.up_proj")
)
# Each option changes what PEFT saves or computes. None of them needs data or other packages.
OPTIONS: dict[str, st.SearchStrategy[t.Any]] = {
    "alora_invocation_tokens": st.just([50, 51]),
    "alpha_pattern": st.dictionaries(patterns, st.sampled_from((2, 16, 0.5)), min_size=1, max_size=2),
    "bias": st.sampled_from(("all", "lora_only")),
    "ensure_weight_tying": st.just(True),
    "exclude_modules": st.sampled_from((["k_proj"], ["model.layers.0.mlp.down_proj"], r".*layers\.0\..*", "lm_head")),
    "fan_in_fan_out": st.just(True),
    "init_lora_weights": st.sampled_from((False, "gaussian", "orthogonal", "mica", "MiCA", "pissa", "olora")),
    "inference_mode": st.just(True),
    "kasa_config": st.just({"beta": 1e-4, "gamma": 1e-3}),
    "layer_replication": st.just([[0, 2], [1, 2]]),
    "layers_pattern": st.sampled_from(("layers", ["layers", "h"], "h")),
    "layers_to_transform": st.sampled_from((0, [1], [0, 1])),
    "lora_alpha": st.sampled_from((1, 2.5, 16)),
    "lora_bias": st.just(True),
    "lora_dropout": st.sampled_from((0.05, 1.0)),
    "modules_to_save": st.lists(
        st.sampled_from(("lm_head", "embed_tokens", "norm", "input_layernorm", "k_proj")), min_size=1, max_size=2, unique=True
    ),
    "monteclora_config": st.just({"num_samples": 4}),
    "qalora_group_size": st.just(8),
    "r": st.sampled_from((1, 3, 8)),
    "rank_pattern": st.dictionaries(patterns, st.sampled_from((1, 5)), min_size=1, max_size=2),
    "revision": st.just("main"),
    "target_parameters": st.sampled_from((["mlp.gate_proj.weight"], ["self_attn.o_proj.weight"])),
    "task_type": st.sampled_from((None, "FEATURE_EXTRACTION")),
    "trainable_token_indices": st.sampled_from(([3, 7], {"embed_tokens": [5]})),
    "use_dora": st.just(True),
    "use_qalora": st.just(True),
    "use_rslora": st.just(True),
    "velora_config": st.just({"num_groups": 4}),
}


@st.composite
def adapter_options(draw: st.DrawFn) -> dict[str, t.Any]:
    chosen = draw(st.lists(st.sampled_from(sorted(OPTIONS)), max_size=3, unique=True))
    return {
        "r": 4,
        "lora_alpha": 8,
        "task_type": "CAUSAL_LM",
        "target_modules": draw(targets),
        **{key: draw(OPTIONS[key]) for key in chosen},
    }


# -- Changes of what PEFT saved -----------------------------------------------------------------


def only(change: t.Callable[[Tensors, str], t.Any]) -> t.Callable[[Tensors], None]:
    """Change one tensor: the middle one by name, which is in layer 0 or 1."""

    def changed(tensors: Tensors) -> None:
        change(tensors, sorted(tensors)[len(tensors) // 2])

    return changed


def renamed(old: str, new: str) -> t.Callable[[Tensors], None]:
    return lambda tensors: tensors.update({re.sub(old, new, name): tensors.pop(name) for name in list(tensors)})


def put(tensors: Tensors, name: str, value: t.Any) -> None:
    tensors[name] = value


PREFIX = "base_model.model.model."
# Of the tensors: damage, and the names that other tools and classes give.
DAMAGE: dict[str, t.Callable[[Tensors], t.Any]] = {
    "one dropped": only(lambda tensors, name: tensors.pop(name)),
    "layer 0 dropped": lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.0." in name],
    "one twice as long": only(lambda tensors, name: put(tensors, name, np.concatenate([tensors[name]] * 2))),
    "one transposed": only(lambda tensors, name: put(tensors, name, np.ascontiguousarray(tensors[name].T))),
    "one renamed": only(lambda tensors, name: put(tensors, name.replace("lora_", "lara_"), tensors.pop(name))),
    "one without values": only(lambda tensors, name: put(tensors, name, tensors[name][:0])),
    "embeddings changed": lambda tensors: [
        tensors[name].__iadd__(1) for name in tensors if re.search(r"(embed_tokens|lm_head)(\.base_layer)?\.weight$", name)
    ],
    "one NaN": only(lambda tensors, name: put(tensors, name, np.full_like(tensors[name], np.nan))),
    "all B zero": lambda tensors: [tensors[name].fill(0) for name in tensors if re.search("lora_(embedding_)?B", name)],
    "layer of zeros": lambda tensors: [tensors[name].fill(0) for name in tensors if ".layers.1." in name and "lora_" in name],
    "half precision": lambda tensors: tensors.update({name: tensors[name].astype("float16") for name in tensors}),
    "A in half precision": lambda tensors: tensors.update(
        {name: tensors[name].astype("float16") for name in tensors if "lora_A" in name}
    ),
    "double precision": lambda tensors: tensors.update({name: tensors[name].astype("float64") for name in tensors}),
    "integers": lambda tensors: tensors.update({name: tensors[name].astype("int8") for name in tensors}),
    "a norm of the base": lambda tensors: put(tensors, f"{PREFIX}norm.weight", np.full(32, 2, np.float32)),
    "a layer of the base": lambda tensors: put(
        tensors, f"{PREFIX}layers.0.self_attn.k_proj.weight", np.ones((16, 32), np.float32)
    ),
    "a layer too many": lambda tensors: put(tensors, f"{PREFIX}layers.5.mlp.up_proj.lora_A.weight", np.ones((4, 32), np.float32)),
    "name of the adapter": renamed(r"\.weight$", ".default.weight"),
    "compiled": renamed(r"^base_model\.model\.", "base_model.model._orig_mod."),
    "distributed": renamed("^", "module."),
    "without PEFT's prefix": renamed(r"^base_model\.model\.", ""),
    "without a head": renamed(r"^base_model\.model\.model\.", "base_model.model."),
    "multimodal": renamed(r"\.model\.layers\.", ".model.language_model.layers."),
}
# Of adapter_config.json: what people and tools change there.
EDITS: dict[str, st.SearchStrategy[t.Any]] = {
    "alora_invocation_tokens": st.sampled_from(([7, 400], [])),
    "alpha_pattern": st.sampled_from((None, {}, {"q_proj": 0}, {".*": 3})),
    "arrow_config": st.sampled_from((None, {"top_k": 2})),
    "auto_mapping": st.sampled_from(
        (
            {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama.modeling_llama"},
            {"base_model_class": "A", "parent_library": "os", "unsloth_fixed": True},
        )
    ),
    "base_model_name_or_path": st.sampled_from((None, "", "/data/models/tiny")),
    "bias": st.sampled_from(("all", "some")),
    "ensure_weight_tying": st.sampled_from((True, None)),
    "eva_config": st.sampled_from((None, {"rho": 1.5})),
    "exclude_modules": st.sampled_from((["q_proj"], "nothing", "", [], ".*")),
    "fan_in_fan_out": st.sampled_from((None, True)),
    "init_lora_weights": st.sampled_from(("pissa", "bogus", "eva", "Gaussian", "OLoRA", None)),
    "inference_mode": st.sampled_from((None, True)),
    "layer_replication": st.sampled_from((None, [], [[0, 2]])),
    "layers_pattern": st.sampled_from((None, "", [], "layers")),
    "layers_to_transform": st.sampled_from((None, [], [5], 1)),
    "loftq_config": st.sampled_from((None, {"loftq_bits": 4})),
    "lora_alpha": st.sampled_from((0, -1, 7, "8", None)),
    "lora_bias": st.just(True),
    "lora_dropout": st.sampled_from((0, 1, 2, None)),
    "megatron_config": st.sampled_from((None, {"a": 1})),
    "modules_to_save": st.sampled_from((None, "lm_head", [], ["norm"], ["lm_head"], ["nothing"])),
    "peft_type": st.sampled_from(("LOHA", "lora", None, "NEW")),
    "peft_version": st.sampled_from(("0.99.0", "1.0.0.dev0", None)),
    "r": st.sampled_from((2, 0, 4.0, "4", None)),
    "rank_pattern": st.sampled_from(({"q_proj": 2}, {"nothing": 2}, {}, None)),
    "revision": st.sampled_from(("main", None)),
    "runtime_config": st.just({"ephemeral_gpu_offload": False}),
    "target_modules": st.sampled_from(
        (["q_proj"], [], None, ["nothing"], "all-linear", "*.q_proj", ["q_proj", "nothing"], "q_proj", "q_proj,v_proj")
    ),
    "target_parameters": st.sampled_from((None, [], ["nothing"], ["mlp.up_proj.weight"])),
    "task_type": st.sampled_from((None, "SEQ_CLS", "BOGUS")),
    "trainable_token_indices": st.sampled_from((None, [], {}, [400])),
    "unsloth_key": st.sampled_from((True, "some")),
    "use_bdlora": st.just(None),
    "use_dora": st.booleans(),
    "use_rslora": st.sampled_from((True, None)),
}


@st.composite
def edits(draw: st.DrawFn) -> dict[str, t.Any]:
    chosen = draw(st.lists(st.sampled_from(sorted(EDITS)), max_size=2, unique=True))
    return {key: draw(EDITS[key]) for key in chosen}


damage = st.one_of(st.none(), st.none(), st.sampled_from(sorted(DAMAGE)))

# -- The test ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle() -> t.Iterator[Oracle]:
    running = Oracle(tiny_adapters.PEFT_PYTHON, BASE)
    yield running
    running.close()


@settings(
    max_examples=settings().max_examples // 4 if FUZZING else 20,
    # Without a time limit for one, and the same examples in every run unless this is fuzzing.
    derandomize=not FUZZING,
    phases=tuple(Phase) if FUZZING else (Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(options=adapter_options(), embeddings=st.sampled_from((False, False, "auto", True)), edited=edits(), damaged=damage)
def test_verdicts_are_those_of_peft(
    oracle: Oracle, options: dict[str, t.Any], embeddings: bool | str, edited: dict[str, t.Any], damaged: str | None
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        adapter = pathlib.Path(scratch, "adapter")
        assume(not oracle.make(options, adapter, embeddings))
        path = adapter / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**config, "base_model_name_or_path": "tiny/llama", **edited}), encoding="utf-8")
        if damaged:
            change_tensors(adapter, DAMAGE[damaged])
        by_structure = structure_verdict(adapter, declare(adapter, BASE), pathlib.Path(scratch)).rejected
        judged = oracle.judge(adapter)
    faults, by_model = judged["faults"], judged["refused"]
    note(f"PEFT: {faults}\nlevel structure: {by_structure}\nlevel model: {by_model}")
    if by_structure and not faults:
        assert any(words in message for words in REASONS for message in by_structure), "rejected, but PEFT loads it right"
    if not by_structure:
        assert bool(by_model) == bool(faults), "level model and PEFT differ"
    if by_structure and not by_model:
        assert any(words in message for words in REASONS for message in by_structure), (
            "level structure says more than level model"
        )
