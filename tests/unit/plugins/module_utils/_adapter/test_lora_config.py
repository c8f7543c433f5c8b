# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""adapter_config.json: plain LoRA is accepted, everything else only as declared."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.lora_config import (
    Config,
    config_problems,
    read_lora_config,
)
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
        assert problem.full_subject.endswith(" in adapter_config.json")
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
    assert missing == {"peft_type", "task_type", "r", "lora_alpha", "target_modules", "base_model_name_or_path"}


def test_config_problems_keys_of_other_peft_versions(config: Config, declare: Declare) -> None:
    old = {
        key: config[key]
        for key in ("peft_type", "task_type", "r", "lora_alpha", "target_modules", "base_model_name_or_path", "bias")
    }
    assert messages({**old, "enable_lora": None, "merge_weights": False}, declare()) == []
    empties: list[t.Any] = [None, False, {}, []]
    for empty in empties:
        assert messages({**config, "of_the_future": empty}, declare()) == []
    for value in (True, 0, 1, "", "x", [0], {"a": None}):
        (message,) = messages({**config, "of_the_future": value}, declare())
        assert f"of_the_future in adapter_config.json: is {json.dumps(value)}, which is not plain LoRA" in message
        assert messages({**config, "of_the_future": value}, declare(peft_config={"of_the_future": value})) == []


# For each key that a declaration can allow, a value that is not plain LoRA.
ALLOWED = {
    "use_rslora": True,
    "use_dora": True,
    "fan_in_fan_out": True,
    "rank_pattern": {"^model.layers.0.mlp.up_proj": 8},
    "alpha_pattern": {"q_proj": 8},
    "modules_to_save": ["lm_head", "embed_tokens"],
    "exclude_modules": ["k_proj", "v_proj"],
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
    assert messages({**config, "modules_to_save": ["a_head"]}, declare(peft_config={"modules_to_save": ["a_head"]}))
    reordered = declare(peft_config={"modules_to_save": ["embed_tokens", "lm_head"]})
    assert messages({**config, "modules_to_save": ["lm_head", "embed_tokens"]}, reordered) == []
    assert messages({**config, "alpha_pattern": {"q_proj": 8}}, declare(peft_config={"alpha_pattern": {"q_proj": 8.0}})) == []
    assert messages({**config, "alora_invocation_tokens": [2, 1]}, declare(peft_config={"alora_invocation_tokens": [1, 2]}))
    assert messages({**config, "of_the_future": 1}, declare(peft_config={"of_the_future": True}))
    assert messages(config, declare(peft_config={"use_rslora": False, "lora_dropout": 0})) == []
    assert messages({**config, "lora_dropout": 0.1}, declare(peft_config={"lora_dropout": 0.05}))
    assert messages({**config, "init_lora_weights": "gaussian"}, declare(peft_config={"init_lora_weights": True}))


@pytest.mark.parametrize("value", [True, False, "gaussian", "orthogonal"])
def test_config_problems_harmless_initialization_is_accepted(config: Config, declare: Declare, value: t.Any) -> None:
    assert messages({**config, "init_lora_weights": value}, declare()) == []


# Values that are rejected whatever the inventory declares.
UNSUPPORTED: list[tuple[str, t.Any, str]] = [
    ("peft_type", "LOHA", '"LORA"'),
    ("peft_type", "lora", '"LORA"'),
    ("peft_type", None, '"LORA"'),
    ("task_type", None, '"CAUSAL_LM"'),
    ("task_type", "SEQ_CLS", '"CAUSAL_LM"'),
    ("r", "16", "a rank of at least 1"),
    ("r", 0, "a rank of at least 1"),
    ("r", None, "a rank of at least 1"),
    ("r", 16.0, "a rank of at least 1"),
    ("r", True, "a rank of at least 1"),
    ("lora_alpha", 0, "a number above 0"),
    ("lora_alpha", "32", "a number above 0"),
    ("lora_alpha", float("nan"), "a number above 0"),
    ("target_modules", None, "a list of plain module names"),
    ("target_modules", [], "a list of plain module names"),
    ("target_modules", "all-linear", "a list of plain module names"),
    ("target_modules", ".*_proj", "a list of plain module names"),
    ("target_modules", ["q_proj", ".*"], "a list of plain module names"),
    ("target_modules", ["q_proj", None], "a list of plain module names"),
    ("base_model_name_or_path", None, "the name of the base"),
    ("lora_dropout", 2, "a number from 0 to 1"),
    ("inference_mode", 1, "true or false"),
    ("init_lora_weights", "pissa", "path_initial_model_for_weight_conversion"),
    ("init_lora_weights", "olora", "expected true, false"),
    ("init_lora_weights", "loftq", "expected true, false"),
    ("init_lora_weights", ["gaussian"], "expected true, false"),
    ("use_dora", "yes", "true or false"),
    ("use_rslora", 1, "true or false"),
    ("modules_to_save", ["score"], "lm_head"),
    ("modules_to_save", "lm_head", "lm_head"),
    ("exclude_modules", ".*k_proj", "a list of plain module names"),
    ("layers_to_transform", "0", "layer numbers"),
    ("layers_to_transform", [-1], "layer numbers"),
    ("rank_pattern", None, "plain module name"),
    ("rank_pattern", {"q_proj": 0}, "plain module name"),
    ("rank_pattern", {"(a+)+$": 8}, "plain module name"),
    ("alpha_pattern", {"q_proj": "8"}, "plain module name"),
    ("auto_mapping", {"parent_library": "antigravity"}, "import Python modules"),
    ("megatron_config", {"a": 1}, "import Python modules"),
    ("bias", "all", "change the base itself"),
    ("bias", "lora_only", "change the base itself"),
    ("layer_replication", [[0, 1], [0, 2]], "change the base itself"),
    ("lora_bias", True, "adds tensors"),
    ("trainable_token_indices", [1, 2], "adds tensors"),
    ("target_parameters", ["experts"], "adds tensors"),
    ("use_qalora", True, "adds tensors"),
    ("layers_pattern", "layers", "layer numbers"),
]


@pytest.mark.parametrize(("key", "value", "words"), UNSUPPORTED)
def test_config_problems_unsupported_value_is_rejected(
    config: Config, declare: Declare, key: str, value: t.Any, words: str
) -> None:
    (message,) = messages({**config, key: value}, declare())
    assert f"{key} in adapter_config.json: " in message
    assert words in message
    assert messages({**config, key: value}, declare(peft_config={key: value}))


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
        modules = base_modules(base_config, "base")
        assert expected_tensors(changed, modules) == expected_tensors(config, modules)
        assert [changed[key] for key in ("r", "lora_alpha", "peft_type")] == [16, 32, "LORA"]
