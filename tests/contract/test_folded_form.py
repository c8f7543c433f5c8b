# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Folded adapters of all kinds against PEFT: the logits of the original, and no factor left."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._source.fold import FoldedAdapter, Folding

from tests.support import tiny_adapters
from tests.support.damage import change_tensors, scale
from tests.support.trainers import declare

# One process loads all adapters.
pytestmark = pytest.mark.xdist_group("folded_form")

TARGETS = ["q_proj", "v_proj", "down_proj", "lm_head"]
_PATTERN = {"q_proj": 4, r"layers\.1\.mlp\..*": 16}
_ALPHAS = {r".*\.layers\.0\..*v_proj": 4, "down_proj": 64, "layers.1.mlp.down_proj": 3}
# Name of the kind: options of LoraConfig beside rank 8 and alpha 16, the dtype, and the form.
KINDS: dict[str, tuple[dict[str, t.Any], str, str]] = {
    "plain": ({}, "float32", "folded"),
    "rslora": ({"r": 16, "use_rslora": True}, "float32", "folded"),
    "alpha_pattern": ({"alpha_pattern": {"q_proj": 4, "down_proj": 64}}, "float32", "folded"),
    "rank_pattern": ({"rank_pattern": _PATTERN}, "float32", "folded"),
    "both_patterns": ({"rank_pattern": _PATTERN, "alpha_pattern": {"q_proj": 4, "down_proj": 64}}, "float32", "folded"),
    "overlapping": ({"alpha_pattern": _ALPHAS}, "float32", "folded"),
    "rslora_odd": ({"use_rslora": True}, "float32", "folded"),
    "all_odd": ({"use_rslora": True, "rank_pattern": _PATTERN, "alpha_pattern": _ALPHAS}, "float32", "folded"),
    "negative": ({"lora_alpha": -16}, "float32", "folded"),
    "bf16": ({}, "bfloat16", "folded"),
    "bf16_odd": ({"use_rslora": True}, "bfloat16", "folded"),
    "bf16_odd_kept": ({"use_rslora": True}, "bfloat16", "folded_same_dtype"),
    "fp16": ({}, "float16", "folded"),
    "fp16_kept": ({}, "float16", "folded_same_dtype"),
    "fp16_odd_kept": ({"use_rslora": True}, "float16", "folded_same_dtype"),
}
MAKE = """
import copy, json, pathlib, sys
import peft, torch, transformers
torch.set_num_threads(1)
base = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
for name, (options, dtype, _form) in json.loads(sys.argv[3]).items():
    torch.manual_seed(1)
    model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**options))
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            parameter.data.copy_(torch.randn_like(parameter) * 0.1)
        if "lora_" in key:
            parameter.data = parameter.data.to(getattr(torch, dtype))
    model.save_pretrained(pathlib.Path(sys.argv[2], name), save_embedding_layers=False)
"""
COMPARE = """
import json, sys
import peft, torch, transformers
torch.set_num_threads(1)
ids = torch.arange(40, 72)[None]
def loaded(directory):
    base = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    return peft.PeftModel.from_pretrained(base, directory).eval()
def logits(model):
    with torch.no_grad():
        return model(input_ids=ids).logits
found = {}
for name, (original, folded) in json.loads(sys.argv[2]).items():
    one, other = loaded(original), loaded(folded)
    layers = [layer for layer in other.modules() if isinstance(layer, peft.tuners.lora.LoraLayer)]
    with one.disable_adapter():
        without = logits(one)
    found[name] = {
        "difference": float((logits(one) - logits(other)).abs().max()),
        "change": float((logits(one) - without).abs().max()),
        "scalings": sorted({scaling for layer in layers for scaling in layer.scaling.values()}),
        "ranks": sorted({rank for layer in layers for rank in layer.r.values()}),
    }
print(json.dumps(found))
"""


def peft(code: str, *arguments: str) -> str:
    command = [tiny_adapters.PEFT_PYTHON, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Kinds(t.NamedTuple):
    folded: dict[str, FoldedAdapter]
    # What PEFT itself says of each pair.
    found: dict[str, dict[str, t.Any]]


@pytest.fixture(scope="module")
def kinds(tiny: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    """Adapters of all kinds, folded, compared by the product and by PEFT alone."""
    work = tmp_path_factory.mktemp("folded")
    base = tiny / "base"
    common = {"r": 8, "lora_alpha": 16, "target_modules": TARGETS, "task_type": "CAUSAL_LM"}
    options = {name: ({**common, **own}, dtype, form) for name, (own, dtype, form) in KINDS.items()}
    peft(MAKE, str(base), str(work), json.dumps(options))
    (work / "scratch").mkdir()
    folding = Folding(tiny_adapters.PEFT_PYTHON, str(work / "cache"), str(work / "scratch"), True)
    folded = {name: fold(folding, work / name, base, name, form) for name, (_own, _dtype, form) in KINDS.items()}
    problems: list[Problem] = []
    assert folding.compare_new(list(folded.values()), problems, []) == list(folded.values())
    assert problems == []
    pairs = {name: (str(work / name), one.place.path) for name, one in folded.items()}
    return Kinds(folded, json.loads(peft(COMPARE, str(base), json.dumps(pairs))))


def fold(folding: Folding, adapter: pathlib.Path, base: pathlib.Path, name: str, form: str) -> FoldedAdapter:
    declared: Declaration = dataclasses.replace(declare(adapter, base), name=name, base_path=str(base), form=form)
    declared = dataclasses.replace(declared, base_names=declared.base_names | {str(base)})
    described = describe(str(adapter), declared, {}, str(adapter.parent / f"{name}.json"))
    return folding.fold(described.manifest, described, str(adapter), declared)


@pytest.mark.parametrize("name", KINDS)
def test_folded_adapter_has_logits_of_original_in_peft(kinds: Kinds, name: str) -> None:
    found, folded = kinds.found[name], kinds.folded[name]
    assert found["change"] > 0.1
    assert (found["scalings"], len(found["ranks"])) == ([1.0], 1)
    made_of = folded.manifest.made_of
    assert made_of is not None
    assert made_of.difference is not None
    rounded = KINDS[name][2] != "folded" and "odd" in name
    for difference in (found["difference"], made_of.difference):
        assert difference < (0.01 * found["change"] if rounded else 1e-4)
    dtypes = {tensor.dtype for tensor in folded.manifest.tensors}
    kept = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[KINDS[name][1]]
    assert dtypes == ({kept} if name in ("bf16", "fp16_kept") or rounded else {"F32"})


def test_folded_adapter_of_equal_ranks_and_powers_of_two_has_same_logits(kinds: Kinds) -> None:
    """Zeros for one rank change the order of sums in a matrix product."""
    same = [name for name, found in kinds.found.items() if found["difference"] == 0]
    assert {"plain", "rslora", "alpha_pattern", "negative", "bf16"} <= set(same)


def test_compare_folded_adapter_with_another_factor_is_rejected(kinds: Kinds, tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    name = "alpha_pattern"
    shutil.copytree(kinds.folded[name].original_directory, tmp_path / name)
    folding = Folding(tiny_adapters.PEFT_PYTHON, str(tmp_path / "cache"), str(tmp_path), True)
    folded = fold(folding, tmp_path / name, tiny / "base", name, "folded")
    change_tensors(pathlib.Path(folded.place.path), scale("layers.1.mlp.down_proj.lora_B", 0.5))
    problems: list[Problem] = []
    assert folding.compare_new([folded], problems, []) == []
    [problem] = problems
    assert problem.problem.startswith("answers otherwise when it is folded: logits differ by")
