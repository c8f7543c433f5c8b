# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unusual adapters that PEFT loads right: levels structure and model accept them, with a note.

``tests/support/unusual_adapters.py`` makes them, and bases of the kinds that they need.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.config_keys import KEYS, OTHER_METHODS
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import Description, describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import WorkerRun, run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Target

from tests.support.paths import CHECKOUT
from tests.support.tiny_adapters import PEFT_PYTHON

# One process makes all adapters, and one loads them.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("unusual_adapters")]

# Each adapter, and words of the notes about it. All other notes say what level structure does not
# know about the base.
NOTES: dict[str, tuple[str, ...]] = {
    "no task type": ("task_type in adapter_config.json is null", "Only AutoPeftModel reads it"),
    "Unsloth's auto_mapping": ("Only AutoPeftModel reads it",),
    "newer PEFT": (),
    "base null": ("names no base",),
    "all-linear": (),
    "pattern": (),
    "excluding pattern": (),
    "default targets": ("target_modules in adapter_config.json is null",),
    "unknown target": ("target_modules names c_attn, which the base does not have",),
    "layers by pattern": (),
    "ranks by pattern": (),
    "EVA": (),
    "MiCA": (),
    "norms saved": (),
    "trained tokens": (),
    "trained tokens, tied": (),
    "trained tokens of tied input and output": (),
    "DoRA, magnitudes as weights": (),
    "task of sequences": ('task_type in adapter_config.json is "SEQ_2_SEQ_LM"',),
    "activated": (),
    "block-diagonal": ("cannot check all tensors of use_bdlora",),
    "VeLoRA": (),
    "MonteCLoRA": (),
    "biases": (),
    "unused bias": ("PEFT uses it in training only",),
    "tying without tied modules": ("changes nothing on this base",),
    "tied embeddings saved": ("cannot check all tensors of ensure_weight_tying",),
    "mixed dtypes": ("have different dtypes: BF16, F32",),
    "double precision": ("are F64, which PEFT rounds to F32",),
    "eight bits": ("are F8_E4M3, which PEFT widens to F32",),
    "embeddings of the base": ("embeddings of the base (base_model.model.lm_head.base_layer.weight, ",),
    "tied embeddings of the base": ("embeddings of the base (base_model.model.model.embed_tokens.base_layer.weight)",),
    "untrained embeddings of the base": ("embeddings of the base (",),
    "trained tokens, embeddings of the base": ("embeddings of the base (",),
    "a layer of zeros": ("In 7 LoRA layers all values are zero",),
    "no parameter of this name": ("cannot check all tensors of target_parameters",),
    "Gemma 3": (),
    "Gemma 3, a convolution": (),
    "Gemma 3, names of transformers 4": (),
    "Qwen 2.5 VL": (),
    "Qwen 3.5": (),
    "Qwen 3 MoE": (),
    "Qwen 3 MoE, all linear layers": ("cannot check all tensors of target_parameters",),
    "Mixtral, all linear layers": ("cannot check all tensors of target_parameters",),
    "Qwen 3 MoE, experts of transformers 4": (),
    "Qwen 3 MoE, parameters": ("cannot check all tensors of target_parameters",),
    "Mixtral, experts of transformers 4": (),
    "gpt-oss, parameters of PEFT 0.18": ("cannot check all tensors of target_parameters",),
    "Llama 4": (),
    "converted from LoKr": ("task_type in adapter_config.json is null",),
}
# Faults of such adapters: the adapter, a change of its configuration or the base to load it on, and
# words of level model's failure.
FAULTS: dict[str, tuple[str, dict[str, t.Any], str | None, str]] = {
    "swapped parameters": (
        "Qwen 3 MoE, parameters",
        {"peft_version": "0.18.1"},
        None,
        "would confuse lora_A with lora_B in this base's",
    ),
    "text on multimodal": ("all-linear", {}, "gemma3", "the base here is the multimodal class"),
    "multimodal on text": ("Qwen 2.5 VL", {"exclude_modules": None}, "llama", "the base here is the text model"),
    "invalid pattern": ("pattern", {"target_modules": "*q_proj"}, None, "is not a valid regular expression"),
}
WEIGHTS = "adapter_model.safetensors"


class Made(t.NamedTuple):
    """The directory of the adapters and bases, and what is declared about each adapter."""

    directory: pathlib.Path
    index: dict[str, dict[str, t.Any]]

    def describe(self, name: str, cache: pathlib.Path, **row: t.Any) -> Description:
        base = self.index[name]["base"]
        config = json.loads((self.directory / "bases" / base / "config.json").read_text(encoding="utf-8"))
        saved = json.loads((self.directory / "adapters" / name / "adapter_config.json").read_text(encoding="utf-8"))
        known = {"name": "adapter", "base": f"tiny/{base}", "rank": saved["r"], "alpha": saved["lora_alpha"]}
        known.update({"allow_pickle": False, "target_modules": None, "extra_files": None})
        known["peft_config"] = self.index[name]["peft_config"]
        declared = Declaration.from_row({**known, **row}, {"config": config})
        return describe(str(self.directory / "adapters" / name), declared, {}, str(cache / "entry.json"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    directory = tmp_path_factory.mktemp("unusual")
    command = [PEFT_PYTHON, str(CHECKOUT / "tests" / "support" / "unusual_adapters.py"), str(directory)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return Made(directory, json.loads((directory / "adapters.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def loaded(made: Made, tmp_path_factory: pytest.TempPathFactory) -> WorkerRun:
    work = tmp_path_factory.mktemp("loaded")
    targets = []

    def add(label: str, directory: pathlib.Path, base: str, level: str = "model") -> None:
        path = str(made.directory / "bases" / base)
        targets.append(Target(label, str(directory), WEIGHTS, level, None, path, False))

    for name, adapter in made.index.items():
        add(name, made.directory / "adapters" / name, adapter["base"])
        add(f"{name}, without weights", made.directory / "adapters" / name, adapter["base"], "adapter")
    for label, (name, config, base, _words) in FAULTS.items():
        shutil.copytree(made.directory / "adapters" / name, work / label)
        saved = json.loads((work / label / "adapter_config.json").read_text(encoding="utf-8"))
        (work / label / "adapter_config.json").write_text(json.dumps({**saved, **config}), encoding="utf-8")
        add(label, work / label, base or made.index[name]["base"])
    outcome = run_worker(PEFT_PYTHON, "cpu", targets, 300, str(work))
    assert outcome.problems == ()
    return outcome


LIST = """
import dataclasses, json, peft
print(json.dumps([[field.name for field in dataclasses.fields(peft.LoraConfig)], [kind.value for kind in peft.PeftType]]))
"""


def test_tables_have_all_keys_and_methods_of_peft() -> None:
    done = subprocess.run([PEFT_PYTHON, "-c", LIST], capture_output=True, text=True, timeout=120, check=True)
    keys, methods = json.loads(done.stdout)
    # Before PEFT 0.3 there were two more keys, before 0.18 another method.
    assert set(KEYS) - set(keys) == {"enable_lora", "merge_weights"}
    assert set(keys) <= set(KEYS)
    assert set(methods) - set(OTHER_METHODS) == {"LORA"}
    assert set(OTHER_METHODS) - set(methods) == {"BONE"}


def test_every_adapter_is_tested(made: Made) -> None:
    assert set(made.index) == set(NOTES)


@pytest.mark.parametrize("name", NOTES)
def test_level_structure_accepts_unusual_adapter(made: Made, tmp_path: pathlib.Path, name: str) -> None:
    found = made.describe(name, tmp_path)
    notes = [note for note in found.notes if not note.startswith("The modules of base type")]
    assert len(notes) == len(NOTES[name])
    for words in NOTES[name]:
        assert words in "\n".join(notes)


@pytest.mark.parametrize("name", NOTES)
def test_level_structure_rejects_undeclared_form(made: Made, tmp_path: pathlib.Path, name: str) -> None:
    for key, value in made.index[name]["peft_config"].items():
        declared = {other: one for other, one in made.index[name]["peft_config"].items() if other != key}
        if (name, key) == ("layers by pattern", "layers_pattern"):
            # The layers are the same without it.
            assert made.describe(name, tmp_path, peft_config=declared).notes == []
            continue
        with pytest.raises(DeliveryError) as caught:
            made.describe(name, tmp_path, peft_config=declared)
        assert f"{key} in adapter_config.json: is {json.dumps(value)[:100]}" in str(caught.value)
        assert "which is not plain LoRA and not declared" in str(caught.value)


def test_level_structure_compares_modules_of_pattern_with_declaration(made: Made, tmp_path: pathlib.Path) -> None:
    adapter = made.directory / "adapters" / "Gemma 3" / "adapter_config.json"
    config = json.loads(adapter.read_text(encoding="utf-8"))
    adapter.write_text(json.dumps({**config, "target_modules": r".*\.(self_attn|mlp)\..*_proj"}), encoding="utf-8")
    vision = ["fc1", "fc2", "out_proj"]
    made.describe("Gemma 3", tmp_path, target_modules=config["target_modules"])
    with pytest.raises(DeliveryError, match=r"has LoRA layers on down_proj, .*; the inventory declares target_modules fc1"):
        made.describe("Gemma 3", tmp_path, target_modules=vision)
    adapter.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("name", NOTES)
def test_level_model_accepts_unusual_adapter(loaded: WorkerRun, name: str) -> None:
    report = loaded.reports[name]
    assert (report.failures, report.passed, report.result.level) == ([], True, "model")
    assert (report.result.effect or 0) > 0.001


@pytest.mark.parametrize("name", NOTES)
def test_level_adapter_accepts_unusual_adapter(loaded: WorkerRun, name: str) -> None:
    report = loaded.reports[f"{name}, without weights"]
    assert (report.failures, report.passed, report.result.level) == ([], True, "adapter")


@pytest.mark.parametrize("name", FAULTS)
def test_level_model_names_fault_of_unusual_adapter(loaded: WorkerRun, name: str) -> None:
    (failure,) = loaded.reports[name].failures
    assert FAULTS[name][3] in failure.problem
    assert failure.remedy
