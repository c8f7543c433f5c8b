# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What PEFT does right today is never seen to fail. Here the load test's program runs with single parts of it changed."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest

from tests.support.damage import NORM, Q0_A, Q0_B, Damage, add, damaged, drop
from tests.support.tiny_adapters import CHECKOUT, PEFT_PYTHON

# All look at what one process has said.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("tampered_worker")]
DAMAGED: dict[str, Damage] = {
    "missing": drop(Q0_B),
    "unknown": add(Q0_A.replace("s.0.", "s.9."), (16, 64)),
    "overwriting": add(NORM, (64,), 3),
}


class Tampered(t.NamedTuple):
    """What was said of each part that was changed, and the whole reports of adapters."""

    said: dict[str, list[str]]
    reports: dict[str, t.Any]


@pytest.fixture(scope="module")
def tampered(tiny: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Tampered:
    work = tmp_path_factory.mktemp("tampered")
    shutil.copytree(tiny / "adapter", work / "whole")
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
    return Tampered(*json.loads(done.stdout))


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("whole", None),
        ("tolerance", "computes something else on cpu than in float64"),
        ("scaling", "scales base_model.model.model.layers.0.self_attn.q_proj by 2.0, the configuration means 1.0"),
        ("missing", "PEFT reports missing keys"),
        ("unknown", "PEFT reports unexpected keys"),
        ("overwriting", "the base is another one once the adapter is taken out of it"),
        ("silent", "does not change the model's answer"),
        ("on meta", "PEFT left without values: base_model"),
        ("shared", None),
        ("equal", None),
        ("widened", None),
        ("one bit", "differs from the file after it was loaded on cpu"),
        ("rounded", "differs from the file after it was loaded on cpu"),
        ("elsewhere", "is on meta after loading"),
    ],
)
def test_each_check_sees_what_it_is_for(tampered: Tampered, what: str, problem: t.Optional[str]) -> None:
    if problem is None:
        assert tampered.said[what] == []
    else:
        assert len(tampered.said[what]) == 1
        assert problem in tampered.said[what][0]


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
def test_a_lack_of_memory_is_no_fault_of_the_adapter(tampered: Tampered, what: str, level: t.Optional[str], why: str) -> None:
    assert tampered.said[what] == []
    report = tampered.reports[what]
    assert (report["passed"], report["level"], report["effect"]) == (False, level, None)
    assert report["limited_by"].startswith(why)


@pytest.mark.parametrize("where", ["host", "device"])
def test_where_memory_ran_out_all_of_it_is_given_back(tampered: Tampered, where: str) -> None:
    assert tampered.said[f"{where} gives back"] == []
