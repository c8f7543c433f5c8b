# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load test itself, on adapters that PEFT trained and saved, whole and damaged; the real PEFT loads them all.

To import torch and its like takes seconds, so all adapters are loaded in one run, and each test looks at one report.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import typing as t

import numpy as np
import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.interpreter import PACKAGES
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import LoadTest, load_test
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.request import Target

from tests.support.damage import NORM, Q0_A, Q0_B, Damage, add, damaged, drop, put, reshape, rewrite, zero
from tests.support.tiny_adapters import PEFT_PYTHON

# Nearly all of them look at what one process has said: it is started once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("load_worker")]

FAULTS: dict[str, Damage] = {
    "missing": drop(Q0_B),
    # PEFT itself reports neither missing nor unexpected keys for this, and the base is another one from then on.
    "overwriting": add(NORM, (64,), 3),
    "unknown": add(Q0_A.replace("s.0.", "s.9."), (16, 64)),
    "misshapen": reshape(Q0_A, (8, 64)),
    "nan": put(Q0_A, np.nan),
    "untrained": zero("lora_B"),
}


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, victim: pathlib.Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[t.Any, ...]:
        return (open, (str(self.victim), "w"))


def with_config(source: pathlib.Path, where: pathlib.Path, **changes: t.Any) -> pathlib.Path:
    shutil.copytree(source, where)
    name = "config.json" if (where / "config.json").exists() else "adapter_config.json"
    config = json.loads((where / name).read_text(encoding="utf-8"))
    (where / name).write_text(json.dumps({**config, **changes}), encoding="utf-8")
    return where


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What the hostile pickle would create."""
    return tmp_path_factory.mktemp("victim") / "was-here"


@pytest.fixture(scope="module")
def run(tiny: pathlib.Path, victim: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> LoadTest:
    work = tmp_path_factory.mktemp("worker")
    base = str(tiny / "base")
    targets = [
        Target(name, str(tiny / name), "adapter_model.safetensors", "model", None, base, False)
        for name in sorted(entry.name for entry in tiny.iterdir() if (entry / "adapter_config.json").exists())
    ]
    plain = next(target for target in targets if target.name == "adapter")

    def also(name: str, **changes: t.Any) -> None:
        targets.append(dataclasses.replace(plain, name=name, **changes))

    for name, fault in FAULTS.items():
        also(name, directory=str(damaged(tiny / "adapter", work / name, fault)))
    also("absent", directory=str(work / "absent"))
    also("other-alpha", directory=str(with_config(tiny / "adapter", work / "other-alpha", lora_alpha=64)))
    also("r8", directory=str(with_config(tiny / "adapter", work / "r8", r=8)))

    shutil.copytree(tiny / "adapter", work / "pickle", ignore=shutil.ignore_patterns("*.safetensors"))
    convert = "import sys, torch, safetensors.torch as s; torch.save(s.load_file(sys.argv[1]), sys.argv[2])"
    command = [PEFT_PYTHON, "-c", convert, str(tiny / "adapter" / "adapter_model.safetensors")]
    subprocess.run([*command, str(work / "pickle" / "adapter_model.bin")], check=True, timeout=120)
    shutil.copytree(work / "pickle", work / "hostile")
    (work / "hostile" / "adapter_model.bin").write_bytes(pickle.dumps({"lora_A": Hostile(victim)}, protocol=2))
    pickled = {"directory": str(work / "pickle"), "weights_file": "adapter_model.bin"}
    also("pickle", **pickled, allow_pickle=True)
    also("pickle-refused", **pickled)
    # Nothing that lies beside the weights is ever imported.
    shutil.copytree(tiny / "adapter", work / "carries-code")
    for name in ("torch", "peft", "json", "sitecustomize", "usercustomize", "modeling_llama"):
        (work / "carries-code" / f"{name}.py").write_text(f"open({str(victim)!r}, 'w')", encoding="utf-8")
    also("carries-code", directory=str(work / "carries-code"))
    also("hostile", directory=str(work / "hostile"), weights_file="adapter_model.bin", allow_pickle=True)

    config = json.loads((tiny / "base" / "config.json").read_text(encoding="utf-8"))
    also("no-base-weights", level="adapter", base_path=None, base_config=config)
    also("other-base", level="adapter", base_path=None, base_config={**config, "intermediate_size": 96})
    also("base-unheard-of", level="adapter", base_path=None, base_config={**config, "model_type": "unheard-of"})
    also("code-in-base", base_path=str(with_config(tiny / "base", work / "code", auto_map={"AutoModel": "evil.Model"})))
    shutil.copytree(tiny / "base", work / "cut")
    rewrite(work / "cut" / "model.safetensors", lambda tensors: tensors.pop("model.norm.weight") and None)
    also("base-cut", base_path=str(work / "cut"))
    shutil.copytree(tiny / "base", work / "huge")
    # Sparse: it takes no space, and nothing may try to read it.
    os.truncate(work / "huge" / "model.safetensors", 8 << 40)
    also("base-huge", base_path=str(work / "huge"))
    shutil.copytree(tiny / "base", work / "garbled")
    os.truncate(work / "garbled" / "model.safetensors", 1000)
    also("base-garbled", base_path=str(work / "garbled"))
    shutil.copytree(tiny / "base", work / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    also("base-empty", base_path=str(work / "empty"))
    # Once more at the end of its base's group: none of those before has left anything in the base.
    also("zz-again")

    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(work / "carries-code")
        outcome = load_test(PEFT_PYTHON, "cpu", targets, 300, str(work))
    assert outcome.problems == ()
    assert set(outcome.reports) == {target.name for target in targets}
    return outcome


@pytest.mark.parametrize(
    "name",
    [
        *("adapter", "adapter_b", "bf16", "dora", "embeddings", "lm_head_saved", "qv", "rank_pattern", "rslora"),
        *("pickle", "carries-code"),
    ],
)
def test_whole_adapters_reach_level_model(run: LoadTest, name: str) -> None:
    report = run.reports[name]
    assert report["problems"] == []
    assert (report["passed"], report["level"], report["limited_by"]) == (True, "model", None)
    assert (report["device"], bool(report["device_name"]), report["peak_memory_bytes"]) == ("cpu", True, None)
    assert report["effect"] > 0.01
    assert report["load_seconds"] > 0
    assert len(report["checks"]) >= 7


def test_level_adapter_needs_no_weights_of_the_base(run: LoadTest) -> None:
    report = run.reports["no-base-weights"]
    assert (report["passed"], report["level"], report["effect"]) == (True, "adapter", None)
    assert report["checks"] == [
        "28 tensors have the names and shapes that PEFT expects.",
        "28 tensors are bit-equal to the file on cpu.",
        "14 modules compute the same as float64, within 0.0001.",
    ]


@pytest.mark.parametrize(
    ("name", "level", "problem"),
    [
        ("missing", None, f"the weights file lacks {Q0_B}."),
        ("overwriting", None, f"the weights file has {NORM}, which PEFT does not make"),
        ("unknown", None, "layers.9.self_attn.q_proj.lora_A.weight, which PEFT does not make"),
        ("misshapen", None, "has shape [8, 64], PEFT expects [16, 64]"),
        ("nan", None, "holds NaN or infinity"),
        ("untrained", None, "no effect"),
        ("absent", None, "cannot be read"),
        ("r8", None, "PEFT expects [8, 64]"),
        ("other-base", None, "has shape [128, 16], PEFT expects [96, 16]"),
        ("base-unheard-of", None, "its base is of type 'unheard-of', with which transformers cannot do anything"),
        ("pickle-refused", None, "which may carry code"),
        ("hostile", None, "cannot be read: UnpicklingError"),
        ("code-in-base", None, "has auto_map, which can bring in code"),
        ("base-cut", "adapter", "lacks model.norm.weight."),
        ("base-empty", "adapter", "has no safetensors weights"),
        ("base-garbled", "adapter", "garbled cannot be loaded: "),
    ],
)
def test_what_is_wrong_is_refused_with_a_remedy(run: LoadTest, name: str, level: t.Optional[str], problem: str) -> None:
    report = run.reports[name]
    assert (report["passed"], report["level"]) == (False, level)
    assert len(report["problems"]) == 1
    assert report["problems"][0]["subject"] == name
    assert problem in report["problems"][0]["problem"]
    assert report["problems"][0]["remedy"]


def test_nothing_that_an_adapter_carries_ran(run: LoadTest, victim: pathlib.Path) -> None:
    assert run.reports["hostile"]["problems"]
    assert not victim.exists()


def test_a_base_that_does_not_fit_is_no_fault_of_the_adapter(run: LoadTest) -> None:
    report = run.reports["base-huge"]
    assert (report["passed"], report["level"], report["problems"]) == (False, "adapter", [])
    assert "huge does not fit: it needs 8193.0 GiB of memory on cpu, " in report["limited_by"]


def test_another_scaling_cannot_be_seen_here(run: LoadTest) -> None:
    # It is no fault of loading: the configuration is compared with the inventory before anything is loaded.
    assert run.reports["other-alpha"]["passed"]
    assert run.reports["other-alpha"]["effect"] != run.reports["adapter"]["effect"]


def test_adapters_leave_nothing_in_the_base_that_they_share(run: LoadTest) -> None:
    assert run.reports["zz-again"]["effect"] == run.reports["adapter"]["effect"]


def test_the_versions_are_told(run: LoadTest) -> None:
    assert set(PACKAGES) <= set(run.versions)
    assert run.seconds > 0
