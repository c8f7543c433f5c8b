# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The worker on adapters that PEFT trained and saved, intact and damaged, with the real PEFT.

Importing torch takes seconds, so one run loads all adapters, and each test checks one report.
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
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import WorkerRun, run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Target

from tests.support.damage import NORM, Q0_A, Q0_B, Damage, add, damaged, drop, put, reshape, rewrite, zero
from tests.support.tiny_adapters import PEFT_PYTHON

# One process serves nearly all tests.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("load_worker")]

FAULTS: dict[str, Damage] = {
    "missing": drop(Q0_B),
    # PEFT reports neither missing nor unexpected keys for this, and the base is changed afterwards.
    "overwriting": add(NORM, (64,), 3),
    "unknown": add(Q0_A.replace("s.0.", "s.9."), (16, 64)),
    "misshapen": reshape(Q0_A, (8, 64)),
    "nan": put(Q0_A, np.nan),
    "untrained": zero("lora_B"),
}


class Hostile:
    """Creates a file if it is unpickled."""

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
    """The file that the hostile pickle would create."""
    return tmp_path_factory.mktemp("victim") / "was-here"


@pytest.fixture(scope="module")
def run(tiny: pathlib.Path, victim: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> WorkerRun:
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
    # Nothing beside the weights is ever imported.
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
    # A sparse file, which needs no space; nothing may try to read it.
    os.truncate(work / "huge" / "model.safetensors", 8 << 40)
    also("base-huge", base_path=str(work / "huge"))
    shutil.copytree(tiny / "base", work / "garbled")
    os.truncate(work / "garbled" / "model.safetensors", 1000)
    also("base-garbled", base_path=str(work / "garbled"))
    shutil.copytree(tiny / "base", work / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    also("base-empty", base_path=str(work / "empty"))
    shutil.copytree(tiny / "base", work / "pointers")
    (work / "pointers" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:6b\nsize 9\n")
    also("base-pointers", base_path=str(work / "pointers"))
    quantized = with_config(
        tiny / "base", work / "quantized", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}
    )
    also("base-quantized", base_path=str(quantized))
    # Once more at the end of the base's group: the adapters before left nothing in the base.
    also("zz-again")

    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(work / "carries-code")
        outcome = run_worker(PEFT_PYTHON, "cpu", targets, 300, str(work))
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
def test_worker_intact_adapter_reaches_level_model(run: WorkerRun, name: str) -> None:
    report = run.reports[name]
    result = report.result
    assert report.failures == []
    assert (report.passed, result.level, result.limited_by) == (True, "model", None)
    assert (result.device, bool(result.device_name), result.peak_memory_bytes) == ("cpu", True, None)
    assert (result.effect or 0) > 0.01
    assert (result.load_seconds or 0) > 0
    assert len(result.checks) >= 7


def test_worker_level_adapter_needs_no_base_weights(run: WorkerRun) -> None:
    report = run.reports["no-base-weights"]
    assert (report.passed, report.result.level, report.result.effect) == (True, "adapter", None)
    assert report.result.checks == [
        "28 tensors have the names and shapes that PEFT expects.",
        "28 tensors are bit-equal to the file on cpu.",
        "14 modules compute the same as float64, within 0.0001.",
        "transformers loads its tokenizer without code from it: 512 tokens,"
        " chat_template.jinja, tokenizer.json, tokenizer_config.json.",
        "1 chat template compiles in the sandbox of transformers.",
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
        ("base-unheard-of", None, "its base has model_type 'unheard-of', which transformers cannot load"),
        ("pickle-refused", None, "which may carry code"),
        ("hostile", None, "cannot be read: UnpicklingError"),
        ("code-in-base", None, "has auto_map, which can make transformers load code"),
        ("base-cut", "adapter", "lacks model.norm.weight."),
        ("base-empty", "adapter", "has no safetensors weights"),
        ("base-pointers", "adapter", "its base has Git LFS pointers instead of files"),
        ("base-quantized", "adapter", "needs a package that this host lacks: ImportError: "),
        ("base-garbled", "adapter", "garbled cannot be loaded: "),
    ],
)
def test_worker_fault_is_a_failure_with_remedy(run: WorkerRun, name: str, level: str | None, problem: str) -> None:
    report = run.reports[name]
    assert (report.passed, report.result.level) == (False, level)
    (failure,) = report.failures
    assert problem in failure.problem
    assert failure.remedy


def test_worker_runs_no_code_of_adapters(run: WorkerRun, victim: pathlib.Path) -> None:
    assert run.reports["hostile"].failures
    assert not victim.exists()


def test_worker_too_large_base_is_not_a_failure(run: WorkerRun) -> None:
    report = run.reports["base-huge"]
    assert (report.passed, report.result.level, report.failures) == (False, "adapter", [])
    assert "huge does not fit: it needs 8193.0 GiB of memory on cpu, " in (report.result.limited_by or "")


def test_worker_other_alpha_passes_with_another_effect(run: WorkerRun) -> None:
    # Not a fault of loading: the configuration is compared with the inventory before.
    assert run.reports["other-alpha"].passed
    assert run.reports["other-alpha"].result.effect != run.reports["adapter"].result.effect


def test_worker_shared_base_is_unchanged_by_adapters(run: WorkerRun) -> None:
    assert run.reports["zz-again"].result.effect == run.reports["adapter"].result.effect


def test_worker_reports_versions(run: WorkerRun) -> None:
    assert {"python", *PACKAGES} <= set(run.reports["adapter"].result.versions)
    assert run.seconds > 0
