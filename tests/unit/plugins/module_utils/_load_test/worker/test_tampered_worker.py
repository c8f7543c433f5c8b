# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The worker with single parts of it changed: each check fails for the fault that it is for."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Report

from tests.support.damage import NORM, Q0_A, Q0_B, Damage, add, damaged, drop
from tests.support.tiny_adapters import CHECKOUT, PEFT_PYTHON

# One process serves all tests.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("tampered_worker")]
DAMAGED: dict[str, Damage] = {
    "missing": drop(Q0_B),
    "unknown": add(Q0_A.replace("s.0.", "s.9."), (16, 64)),
    "overwriting": add(NORM, (64,), 3),
}


class Tampered(t.NamedTuple):
    """The failures by changed part, and the reports."""

    failures: dict[str, list[str]]
    reports: dict[str, Report]


@pytest.fixture(scope="module")
def tampered(tiny: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Tampered:
    work = tmp_path_factory.mktemp("tampered")
    shutil.copytree(tiny / "adapter", work / "intact")
    for name, damage in DAMAGED.items():
        damaged(tiny / "adapter", work / name, damage)
    done = subprocess.run(
        [PEFT_PYTHON, str(pathlib.Path(__file__).with_name("tampered_worker.py")), str(work), str(tiny / "base")],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / ".collections")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failures, reports = json.loads(done.stdout)
    return Tampered(failures, {name: Report.from_json(report) for name, report in reports.items()})


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("intact", None),
        ("tolerance", "computes another result on cpu than in float64"),
        ("scaling", "scales base_model.model.model.layers.0.self_attn.q_proj by 2.0, the configuration specifies 1.0"),
        ("missing", "PEFT reports missing keys"),
        ("unknown", "PEFT reports unexpected keys"),
        ("overwriting", "the base has changed after the adapter was removed"),
        ("silent", "does not change the model's answer"),
        ("on meta", "PEFT loaded no values for base_model"),
        ("shared", None),
        ("equal", None),
        ("widened", None),
        ("one bit", "differs from the file after it was loaded on cpu"),
        ("rounded", "differs from the file after it was loaded on cpu"),
        ("elsewhere", "is on meta after loading"),
    ],
)
def test_check_fails_for_its_fault(tampered: Tampered, what: str, problem: str | None) -> None:
    if problem is None:
        assert tampered.failures[what] == []
    else:
        assert len(tampered.failures[what]) == 1
        assert problem in tampered.failures[what][0]


@pytest.mark.parametrize(
    ("what", "level", "why"),
    [
        ("no room", None, "the adapter alone does not fit: it needs "),
        ("host at model", "adapter", "memory ran out on cpu: RuntimeError: [enforce fail] DefaultCPUAllocator: can't"),
        ("device at model", "adapter", "memory ran out on cpu: OutOfMemoryError: CUDA out of memory."),
        ("host at adapter", None, "memory ran out on cpu: RuntimeError: [enforce fail]"),
        ("device at adapter", None, "memory ran out on cpu: OutOfMemoryError: CUDA out of memory."),
        ("while it is read", None, "memory ran out on cpu: OSError: [Errno 12] Cannot allocate memory."),
        ("full", None, "cpu cannot be used: CUDA error: out of memory."),
    ],
)
def test_out_of_memory_is_not_a_failure(tampered: Tampered, what: str, level: str | None, why: str) -> None:
    assert tampered.failures[what] == []
    report = tampered.reports[what]
    assert (report.passed, report.result.level, report.result.effect) == (False, level, None)
    assert (report.result.limited_by or "").startswith(why)


@pytest.mark.parametrize("where", ["host", "device"])
def test_out_of_memory_frees_all_memory(tampered: Tampered, where: str) -> None:
    assert tampered.failures[f"{where} gives back"] == []
