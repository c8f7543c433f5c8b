# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""adapter_config.json: plain LoRA is accepted, everything else only as declared."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter import patterns
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.lora_config import (
    config_notes,
    config_problems,
    read_lora_config,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.module_selection import Config
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.structure import expected_tensors
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.architecture import base_modules
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from hypothesis import given
from hypothesis import strategies as st

Declare = t.Callable[..., Declaration]


@pytest.fixture
def config(adapter: pathlib.Path) -> Config:
    return read_lora_config(str(adapter / "adapter_config.json"))


def messages(config: Config, declared: Declaration) -> list[str]:
    problems = config_problems(config, declared)
    for problem in problems:
        assert problem.full_subject.startswith(f"adapter {declared.name}, ")
        assert problem.full_subject.endswith((" in adapter_config.json", ", adapter_config.json"))
        assert problem.remedy
    return [str(problem) for problem in problems]


def test_config_problems_config_saved_by_peft_is_accepted(config: Config, declare: Declare) -> None:
    assert len(config) > 40
    assert messages(config, declare()) == []
    assert messages(config, declare(target_modules=sorted(config["target_modules"]))) == []


@pytest.mark.parametrize("damage", [b"{", b"\xef\xbb\xbf{}", b"[]", b'{"r": 1, "r": 2}', b'{"lora_alpha": NaN}'])
def test_read_lora_config_lax_json_is_rejected(adapter: pathlib.Path, damage: bytes) -> None:
    path = adapter / "adapter_config.json"
    path.write_bytes(damage)
    with pytest.raises(DeliveryError, match="Save the adapter again"):
        read_lora_config(str(path))


def test_config_problems_empty_config_reports_required_keys(declare: Declare) -> None:
    missing = {message.split(",")[1].split()[0] for message in messages({}, declare())}
    assert missing == {"peft_type", "r", "lora_alpha"}


def test_config_problems_keys_of_other_peft_versions(config: Config, declare: Declare) -> None:
    old = {
        key: config[key]
        for key in ("peft_type", "task_type", "r", "lora_alpha", "target_modules", "base_model_name_or_path", "bias")
    }
    assert messages({**old, "enable_lora": None, "merge_weights": False}, declare()) == []
    empties: list[t.Any] = [None, False, {}, []]
    newer = {**config, "peft_version": "0.22.0"}
    for empty in empties:
        assert messages({**newer, "of_the_future": empty}, declare()) == []
        assert config_notes({**newer, "of_the_future": empty}, declare()) == []
    for value in (True, 0, 1, "", "x", [0], {"a": None}):
        (message,) = messages({**newer, "of_the_future": value}, declare())
        assert f"of_the_future in adapter_config.json: is {json.dumps(value)}, which is not plain LoRA" in message
        assert messages({**newer, "of_the_future": value}, declare(peft_config={"of_the_future": value})) == []
        # No release of PEFT up to this one has such a key, so it is another program's.
        assert messages({**config, "of_the_trainer": value}, declare()) == []
        (note,) = config_notes({**config, "of_the_trainer": value}, declare())
        assert note == f"of_the_trainer in adapter_config.json is {json.dumps(value)}. PEFT has no such key and ignores it."


# For each key that a declaration can allow, a value that is not plain LoRA.
ALLOWED = {
    "use_rslora": True,
    "use_dora": True,
    "lora_bias": True,
    "use_qalora": True,
    "target_parameters": ["experts"],
    "trainable_token_indices": [1, 2],
    "use_bdlora": {"nblocks": 2},
    "velora_config": {"num_groups": 64},
    "monteclora_config": {"num_samples": 8},
    "rank_pattern": {".*layers\\.[01]\\..*(up|down)_proj": 8},
    "alpha_pattern": {"q_proj": 8},
    "modules_to_save": ["lm_head", "norm"],
    "exclude_modules": ".*k_proj",
    "layers_to_transform": [0],
    "alora_invocation_tokens": [1, 2],
}


@pytest.mark.parametrize("key", ALLOWED)
def test_config_problems_non_plain_value_must_be_declared(config: Config, declare: Declare, key: str) -> None:
    other = {**config, key: ALLOWED[key]}
    (message,) = messages(other, declare())
    assert f"{key} in adapter_config.json: is {json.dumps(ALLOWED[key])}, which is not plain LoRA" in message
    assert "peft_config in the inventory" in message
    assert messages(other, declare(peft_config={key: ALLOWED[key]})) == []
    # Declared but absent is a problem, too.
    (message,) = messages(config, declare(peft_config={key: ALLOWED[key]}))
    assert f"the inventory declares {json.dumps(ALLOWED[key])}" in message
    absent = {name: value for name, value in config.items() if name != key}
    (message,) = messages(absent, declare(peft_config={key: ALLOWED[key]}))
    assert "is missing" in message


def test_config_problems_declared_value_is_compared_as_json(config: Config, declare: Declare) -> None:
    reordered = declare(peft_config={"modules_to_save": ["embed_tokens", "lm_head"]})
    assert messages({**config, "modules_to_save": ["lm_head", "embed_tokens"]}, reordered) == []
    assert messages({**config, "alpha_pattern": {"q_proj": 8}}, declare(peft_config={"alpha_pattern": {"q_proj": 8.0}})) == []
    assert messages({**config, "alora_invocation_tokens": [2, 1]}, declare(peft_config={"alora_invocation_tokens": [1, 2]}))
    assert messages({**config, "of_the_future": 1}, declare(peft_config={"of_the_future": True}))
    assert messages(config, declare(peft_config={"use_rslora": False, "lora_dropout": 0})) == []
    assert messages({**config, "lora_dropout": 0.1}, declare(peft_config={"lora_dropout": 0.05}))
    assert messages({**config, "init_lora_weights": "gaussian"}, declare(peft_config={"init_lora_weights": True}))


# Values that do nothing when PEFT loads the adapter: none has to be declared. Words of the note, if
# there is one.
HARMLESS: list[tuple[str, t.Any, str]] = [
    *(
        ("init_lora_weights", value, "")
        for value in (True, False, None, "gaussian", "Gaussian", "orthogonal", "eva", "mica", "MiCA")
    ),
    ("eva_config", {"rho": 2.0}, ""),
    ("corda_config", {"cache_file": None}, ""),
    ("lora_ga_config", {"direction": "ArB2r"}, ""),
    ("loftq_config", {"loftq_bits": 4}, ""),
    ("lora_dropout", 0.3, ""),
    ("inference_mode", False, ""),
    ("inference_mode", None, ""),
    ("use_rslora", None, ""),
    ("trainable_token_indices", {}, ""),
    ("peft_version", None, ""),
    ("use_dora", None, ""),
    ("megatron_core", "megatron.core.of_mine", ""),
    ("qalora_group_size", 32, ""),
    ("revision", "main", ""),
    ("revision", None, ""),
    ("bias", "all", "PEFT uses it in training only"),
    ("bias", "lora_only", "PEFT uses it in training only"),
    ("fan_in_fan_out", True, "PEFT sets it to suit each layer"),
    ("enable_lora", [True, False, True], "PEFT ignores it"),
    ("runtime_config", {"ephemeral_gpu_offload": True}, "PEFT ignores it"),
    ("task_type", None, "PEFT loads the adapter all the same"),
    ("task_type", "FEATURE_EXTRACTION", "PEFT loads the adapter all the same"),
    ("task_type", "SEQ_2_SEQ_LM", "PEFT loads the adapter all the same"),
    (
        "auto_mapping",
        {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama"},
        "Only AutoPeftModel",
    ),
    ("auto_mapping", {"parent_library": "transformers", "unsloth_fixed": True}, "Only AutoPeftModel"),
    ("base_model_name_or_path", None, "names no base"),
    ("base_model_name_or_path", "", "names no base"),
    ("base_model_name_or_path", "/data/models/tiny", 'is the path "/data/models/tiny"'),
    ("base_model_name_or_path", "C:\\models\\tiny", "is the path"),
    ("base_model_name_or_path", "../tiny", "is the path"),
    ("exclude_modules", ".*(vision_tower|visual).*", "changes nothing on this base"),
    ("exclude_modules", ["vision_tower"], "changes nothing on this base"),
    ("layers_to_transform", [0, 1], "changes nothing on this base"),
    ("ensure_weight_tying", True, "changes nothing on this base"),
    ("target_modules", "all-linear", ""),
    ("target_modules", None, "is null, so PEFT's defaults for this type of base apply: q_proj, v_proj."),
    ("target_modules", r".*\.(self_attn|mlp)\.\w+_proj", ""),
]


@pytest.mark.parametrize(("key", "value", "words"), HARMLESS)
def test_config_problems_value_without_effect_at_loading_is_accepted(
    config: Config, declare: Declare, key: str, value: t.Any, words: str
) -> None:
    changed = {**config, key: value}
    assert messages(changed, declare()) == []
    notes = config_notes(changed, declare())
    assert len(notes) == bool(words)
    assert words in "".join(notes)


def test_config_problems_negative_alpha_is_accepted_as_declared(config: Config, declare: Declare) -> None:
    assert messages({**config, "lora_alpha": -1}, declare(alpha=-1.0)) == []


def test_config_notes_missing_task_type_is_a_note(config: Config, declare: Declare) -> None:
    del config["task_type"]
    assert messages(config, declare()) == []
    assert "task_type in adapter_config.json is null" in config_notes(config, declare())[0]


def test_config_problems_path_of_base_needs_known_base(config: Config, declare: Declare) -> None:
    changed = {**config, "base_model_name_or_path": "/data/models/tiny"}
    (message,) = messages(changed, declare(None))
    assert "add it to the base's aliases" in message


def test_config_problems_trained_tied_weights_must_be_declared(config: Config, declare: Declare) -> None:
    saved = {**config, "modules_to_save": ["lm_head"], "ensure_weight_tying": True}
    (message,) = messages(saved, declare(peft_config={"modules_to_save": ["lm_head"]}))
    assert "ensure_weight_tying in adapter_config.json: is true" in message
    assert messages(saved, declare(peft_config={"modules_to_save": ["lm_head"], "ensure_weight_tying": True})) == []


def test_config_problems_pattern_that_takes_too_long_is_rejected(
    config: Config, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The stand-in never answers, like an expression that backtracks for ages.
    monkeypatch.setattr(patterns, "_PROGRAM", "import signal; signal.pause()")
    monkeypatch.setattr(patterns, "_SECONDS", 0.1)
    (message,) = map(str, config_problems({**config, "target_modules": r".*\.slow(_proj)+"}, declare()))
    assert "One of its patterns takes longer than 0.1 seconds on 16 module names" in message


# Values that are rejected whatever the inventory declares.
UNSUPPORTED: list[tuple[str, t.Any, str]] = [
    ("peft_type", "LOHA", "the adapter is LoHa, not LoRA"),
    ("peft_type", "ADALORA", "the adapter is AdaLoRA, not LoRA"),
    ("peft_type", "lora", 'expected "LORA"'),
    ("peft_type", None, 'expected "LORA"'),
    ("task_type", "SEQ_CLS", '"CAUSAL_LM" or null'),
    ("r", "16", "a rank of at least 1"),
    ("r", 0, "a rank of at least 1"),
    ("r", None, "a rank of at least 1"),
    ("r", 16.0, "a rank of at least 1"),
    ("r", True, "a rank of at least 1"),
    ("lora_alpha", 0, "with 0 the adapter has no effect"),
    ("lora_alpha", "32", "a number other than 0"),
    ("lora_alpha", float("nan"), "a number other than 0"),
    ("target_modules", "q_proj,v_proj", "as a regular expression, it matches the whole name of no module"),
    ("target_modules", [], "a list of at most 1000 module names, a pattern"),
    ("target_modules", "", "a list of at most 1000 module names, a pattern"),
    ("target_modules", "*_proj", "is not a valid regular expression: nothing to repeat"),
    ("target_modules", ["q_proj", None], "a list of at most 1000 module names, a pattern"),
    ("target_modules", [f"m{number}" for number in range(1001)], "a list of at most 1000 module names, a pattern"),
    ("modules_to_save", [f"m{number}" for number in range(1001)], "a list of at most 1000 module names"),
    ("exclude_modules", [f"m{number}" for number in range(1001)], "at most 1000 module names, or a pattern"),
    ("base_model_name_or_path", 3, "text"),
    ("lora_dropout", 2, "a number from 0 to 1"),
    ("init_lora_weights", "pissa", "path_initial_model_for_weight_conversion"),
    ("init_lora_weights", "pissa_niter_4", "with random numbers, which differ when"),
    ("init_lora_weights", "olora", "which changes the base"),
    ("init_lora_weights", "OLoRA", "which changes the base"),
    ("init_lora_weights", "EVA", "expected true, false"),
    ("init_lora_weights", "loftq", "quantizes the base again"),
    ("init_lora_weights", "corda", "needs the training data again"),
    ("init_lora_weights", "lora_ga", "the answers differ"),
    ("init_lora_weights", ["gaussian"], "expected true, false"),
    ("init_lora_weights", "bogus", "expected true, false"),
    ("use_dora", "yes", "true or false"),
    ("use_rslora", 1, "true or false"),
    ("modules_to_save", "lm_head", "a list of at most 1000 module names"),
    ("layers_to_transform", "0", "layer numbers"),
    ("layers_to_transform", [-1], "layer numbers"),
    ("rank_pattern", None, "ranks of at least 1"),
    ("rank_pattern", {"q_proj": 0}, "loads neither null nor a rank of 0"),
    ("alpha_pattern", {"q_proj": "8"}, "numbers by at most 1000 module names or patterns"),
    ("alpha_pattern", {f"m{number}": 8 for number in range(1001)}, "numbers by at most 1000 module names or patterns"),
    ("auto_mapping", {"parent_library": "antigravity"}, "import Python modules"),
    ("auto_mapping", {"parent_library": "transformers_modules.evil"}, "import Python modules"),
    ("megatron_config", {"a": 1}, "import Python modules"),
    ("bias", "some", '"none", "all" or "lora_only"'),
    ("layer_replication", [[0, 1], [0, 2]], "change the base itself"),
    ("kasa_config", {"beta": 0.0001}, "change the base itself"),
    ("arrow_config", {"top_k": 2}, "without the others that it combines"),
    ("target_parameters", "experts", "a list of at most 1000 parameter names"),
    ("trainable_token_indices", {"embed_tokens": ["<x>"]}, "token ids"),
    ("alora_invocation_tokens", "<x>", "token ids"),
    ("layers_pattern", "layers", "without layers_to_transform"),
]


@pytest.mark.parametrize(("key", "value", "words"), UNSUPPORTED)
def test_config_problems_unsupported_value_is_rejected(
    config: Config, declare: Declare, key: str, value: t.Any, words: str
) -> None:
    (message,) = messages({**config, key: value}, declare())
    assert f"{key} in adapter_config.json: " in message or "One of its patterns" in message
    assert words in message
    assert messages({**config, key: value}, declare(peft_config={key: value}))


def test_config_problems_too_many_keys_are_one_problem(config: Config, declare: Declare) -> None:
    # A newer PEFT may have all of these keys, so each of them would be a problem.
    many = {**config, "peft_version": "99.0", **{f"key{number}": number for number in range(1000)}}
    [message] = messages(many, declare())
    assert f"has {len(many)} keys; at most 1000 are accepted." in message


@pytest.mark.parametrize("revision", ["refs/pr/7", "v2", "", 7, ["main"]])
def test_config_problems_other_revision_of_base_must_be_declared(config: Config, declare: Declare, revision: t.Any) -> None:
    (message,) = messages({**config, "revision": revision}, declare())
    assert f"revision in adapter_config.json: is {json.dumps(revision)}, which is not plain LoRA and not declared." in message
    declared = declare(peft_config={"revision": revision})
    assert messages({**config, "revision": revision}, declared) == []
    assert messages({**config, "revision": "refs/pr/8"}, declared)
    # A folded adapter keeps it.
    assert declared.folded().peft_config == {"revision": revision}


@pytest.mark.parametrize("task", [None, "FEATURE_EXTRACTION"])
def test_config_problems_activated_adapter_needs_task_type(config: Config, declare: Declare, task: str | None) -> None:
    changed = {**config, "alora_invocation_tokens": [7], "task_type": task}
    (message,) = messages(changed, declare(peft_config={"alora_invocation_tokens": [7]}))
    assert 'alora_invocation_tokens in adapter_config.json: is [7]: PEFT applies it only if task_type is "CAUSAL_LM".' in message
    assert 'Set "task_type": "CAUSAL_LM" in adapter_config.json.' in message


def test_config_problems_task_of_encoder_and_decoder_needs_known_decoder(
    config: Config, declare: Declare, base_config: dict[str, t.Any]
) -> None:
    for base in (None, {**base_config, "is_encoder_decoder": True}):
        (message,) = messages({**config, "task_type": "SEQ_2_SEQ_LM"}, declare(base))
        assert 'task_type in adapter_config.json: is "SEQ_2_SEQ_LM"; expected "CAUSAL_LM" or null' in message


@pytest.mark.parametrize(
    ("key", "value"), [("alora_invocation_tokens", [7, 512]), ("trainable_token_indices", {"embed_tokens": [512], "lm_head": []})]
)
def test_config_problems_token_ids_beyond_vocabulary_are_rejected(
    config: Config, declare: Declare, key: str, value: t.Any
) -> None:
    (message,) = messages({**config, key: value}, declare(peft_config={key: value}))
    assert f"{key} in adapter_config.json: has id 512, beyond the vocabulary of the base, which has 512." in message
    assert messages({**config, key: value}, declare(None, peft_config={key: value})) == []


def test_config_problems_several_problems_are_all_reported(config: Config, declare: Declare) -> None:
    wrong = {**config, "r": 8, "lora_alpha": 64, "base_model_name_or_path": "other/base", "use_rslora": True}
    found = messages(wrong, declare(target_modules=["q_proj", "v_proj"]))
    assert len(found) == 5
    joined = "\n".join(found)
    for words in (
        "r in adapter_config.json: is 8; the inventory declares rank 16",
        "lora_alpha in adapter_config.json: is 64; the inventory declares alpha 32",
        'base_model_name_or_path in adapter_config.json: is "other/base"; the inventory declares tiny/Llama-64',
        "use_rslora in adapter_config.json: is true",
        "target_modules in adapter_config.json: is down_proj, gate_proj, k_proj and 4 more",
    ):
        assert words in joined


def test_config_problems_alias_of_base_is_accepted(config: Config) -> None:
    row = {"name": "adapter", "base": "tiny", "rank": 16, "alpha": 32.0, "allow_pickle": False}
    row.update(dict.fromkeys(("target_modules", "peft_config", "extra_files")))
    assert messages(config, Declaration.from_row(row, {}))
    assert messages(config, Declaration.from_row(row, {"aliases": ["/models/tiny", "tiny/Llama-64"]})) == []


def test_config_problems_full_module_names_are_accepted_with_base_config(
    config: Config, declare: Declare, base_config: dict[str, t.Any]
) -> None:
    # PEFT saves "all-linear" like this.
    full = [f"model.layers.{n}.self_attn.{name}" for n in range(2) for name in ("q_proj", "v_proj")]
    assert messages({**config, "target_modules": full}, declare(target_modules=["q_proj", "v_proj"])) == []
    (message,) = messages({**config, "target_modules": full[:-1]}, declare(target_modules=["q_proj", "v_proj"]))
    assert "They differ in model.layers.1.self_attn.v_proj." in message
    assert messages({**config, "target_modules": full}, declare(None, target_modules=["q_proj", "v_proj"]))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["LORA", "CAUSAL_LM", "q_proj", "all-linear", ".*", "lm_head", "gaussian", "none", "^q_proj", ""])
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["q_proj", "(a+)+$", "x"]), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.fuzz
@given(data=st.data())
def test_config_problems_accepted_change_means_same_tensors(
    tiny: pathlib.Path, declare: Declare, base_config: dict[str, t.Any], data: st.DataObject
) -> None:
    config = read_lora_config(str(tiny / "adapter" / "adapter_config.json"))
    keys = st.sampled_from(sorted(config)) | st.text(max_size=3)
    changed = {**config, **data.draw(st.dictionaries(keys, VALUES, max_size=3))}
    found = messages(changed, declare(target_modules=config["target_modules"]))
    if not found:
        # An accepted configuration means the same tensors as before: no change was relevant.
        # Or it selects other modules by a pattern, which the tensors are compared with.
        modules = base_modules(base_config, "base")
        assert expected_tensors(changed, modules) == expected_tensors(config, modules) or changed["target_modules"] == ".*"
        assert [changed[key] for key in ("r", "lora_alpha", "peft_type")] == [16, 32, "LORA"]
