# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Level golden: every legitimate computation against every wrong adapter and base, with margins.

PEFT computes everything over the tiny base. ``docs/golden.md`` has the same table for a base of
135 million weights.
"""

from __future__ import annotations

import collections.abc as c
import json
import math
import pathlib
import shutil
import typing as t

import numpy
import pytest
import safetensors.numpy
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import (
    PERMITTED,
    Distances,
    distances,
    permitted,
    problems,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Recording, Target

from tests.support import tiny_adapters
from tests.support.fleet import CONFIG, WEIGHTS

# One test process for all: each would compute the whole table.
pytestmark = pytest.mark.xdist_group("golden_table")

RECORDED = ("float32", "bfloat16")
COMPUTED = (("float32", "sdpa"), ("bfloat16", "eager"), ("float16", "sdpa"))
PROMPTS = ["import os\n", "def walk(top, topdown=True):\n    ", 'raise TypeError("', {"user": "class PathLike(abc.ABC):"}]

Tensors = dict[str, t.Any]


def config(**changes: t.Any) -> c.Callable[[pathlib.Path], None]:
    """Change adapter_config.json, or the config.json of a base."""

    def change(directory: pathlib.Path) -> None:
        path = next(path for path in (directory / CONFIG, directory / "config.json") if path.exists())
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")

    return change


def weights(change: c.Callable[[Tensors], object]) -> c.Callable[[pathlib.Path], None]:
    """Change the tensors of an adapter or a base."""

    def rewrite(directory: pathlib.Path) -> None:
        path = next(path for path in (directory / WEIGHTS, directory / "model.safetensors") if path.exists())
        tensors = safetensors.numpy.load_file(path)
        change(tensors)
        safetensors.numpy.save_file(tensors, path, {"format": "pt"})

    return rewrite


def zero(*parts: str) -> c.Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in tensors:
            if any(part in name for part in parts):
                tensors[name][:] = 0

    return change


def flip(bit: int) -> c.Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        name = min(name for name in tensors if "lora_B" in name)
        tensors[name].view(numpy.uint32).flat[0] ^= numpy.uint32(1 << bit)

    return change


def noise(share: float) -> c.Callable[[Tensors], None]:
    """Another base of the same shape: every matrix differs by a share of its standard deviation."""

    def change(tensors: Tensors) -> None:
        random = numpy.random.default_rng(0)
        for name, values in tensors.items():
            if values.ndim == 2:
                tensors[name] = values + share * values.std() * random.standard_normal(values.shape, numpy.float32)

    return change


def second_half(directory: pathlib.Path) -> None:
    """Zeros in the second half of the file, as after an aborted copy."""
    data = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))


# Faults of the adapter, and of its base.
WRONG_ADAPTERS: dict[str, c.Callable[[pathlib.Path], None]] = {
    "alpha 64": config(lora_alpha=64),
    "rsLoRA": config(use_rslora=True),
    "alpha 48": config(lora_alpha=48),
    "second half zeroed": second_half,
    "a layer zeroed": weights(zero("layers.1.")),
    "all but nothing": config(lora_alpha=0.01),
    "exponent bit": weights(flip(30)),
}
WRONG_BASES: dict[str, c.Callable[[pathlib.Path], None]] = {
    "other base": weights(noise(1.0)),
    "base 10 % off": weights(noise(0.1)),
    "a matrix of the base zeroed": weights(zero("layers.0.mlp.down_proj")),
}
# Faults below the noise, which only the digest finds.
UNSEEN: dict[str, c.Callable[[pathlib.Path], None]] = {
    "sign bit": weights(flip(31)),
    "lowest bit": weights(flip(0)),
}
STRENGTH = "has an effect of the recorded direction but another strength"
PROBLEMS = {
    "alpha 64": STRENGTH,
    "rsLoRA": STRENGTH,
    "alpha 48": STRENGTH,
    "second half zeroed": STRENGTH,
    "a layer zeroed": STRENGTH,
    "all but nothing": "answers as if the adapter were not there",
    "exponent bit": "",
    "other adapter": "answers like another adapter than the recorded one",
    **dict.fromkeys(WRONG_BASES, "is on a base whose answers differ from the training server's even without the adapter"),
}


class Table:
    """Goldens recorded in several dtypes, and the distances of all computations from them."""

    def __init__(self, tiny: pathlib.Path, work: pathlib.Path) -> None:
        self.tiny, self.work = tiny, work
        plain = tiny / "adapter"
        self.recordings = {dtype: self._record(dtype) for dtype in RECORDED}
        self.adapters = {"other adapter": tiny / "qv"}
        self.bases = {}
        for name, change in {**WRONG_ADAPTERS, **UNSEEN}.items():
            self.adapters[name] = self._changed(plain, change)
        for name, change in WRONG_BASES.items():
            self.bases[name] = self._changed(tiny / "base", change)
        self.found: dict[tuple[str, str], Distances] = {}
        for dtype, attention in COMPUTED:
            self._measure(dtype, attention, [("plain", tiny / "adapter", tiny / "base")], RECORDED)
        cases = [(name, directory, tiny / "base") for name, directory in self.adapters.items()]
        cases += [(name, plain, base) for name, base in self.bases.items()]
        # Compared with the golden of another dtype, which is the harder case.
        self._measure("float32", "sdpa", cases, ["bfloat16"])

    def _changed(self, source: pathlib.Path, change: c.Callable[[pathlib.Path], None]) -> pathlib.Path:
        target = self.work / f"changed-{len(list(self.work.iterdir()))}"
        shutil.copytree(source, target)
        change(target)
        return target

    def _target(self, name: str, directory: pathlib.Path, base: pathlib.Path, level: str, **more: t.Any) -> Target:
        return Target(name, str(directory), WEIGHTS, level, None, str(base), False, **more)

    def _record(self, dtype: str) -> dict[str, t.Any]:
        recording = Recording(PROMPTS, length=16, top=20)
        target = self._target("plain", self.tiny / "adapter", self.tiny / "base", "model", recording=recording)
        outcome = run_worker(tiny_adapters.PEFT_PYTHON, "cpu", [target], 300, str(self.work), dtype=dtype)
        assert outcome.problems == ()
        report = outcome.reports["plain"]
        assert (report.failures, report.result.level, report.result.dtype) == ([], "model", dtype)
        return report.recorded or {}

    def _measure(
        self, dtype: str, attention: str, cases: list[tuple[str, pathlib.Path, pathlib.Path]], goldens: c.Iterable[str]
    ) -> None:
        """Answer all questions in one run, with a target for each golden of each adapter."""
        targets = [
            self._target(f"{recorded}/{name}", *where, "golden", questions=self.recordings[recorded]["questions"])
            for recorded in goldens
            for name, *where in cases
        ]
        outcome = run_worker(tiny_adapters.PEFT_PYTHON, "cpu", targets, 300, str(self.work), dtype=dtype, attention=attention)
        assert outcome.problems == ()
        for name, report in outcome.reports.items():
            assert (report.failures, report.result.level) == ([], "golden"), name
            recorded, _slash, case = name.partition("/")
            key = case if case != "plain" else f"{dtype} {attention}"
            self.found[recorded, key] = distances(self.recordings[recorded]["answer"], report.answer or {})


@pytest.fixture(scope="module")
def table(tiny: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table(tiny, tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("recorded", RECORDED)
def test_recording_has_greedy_answers_and_likeliest_tokens(table: Table, recorded: str) -> None:
    found = table.recordings[recorded]
    assert len(found["questions"]) == len(PROMPTS)
    for question in found["questions"]:
        answer = len(question["ids"]) - question["start"]
        assert 1 <= answer == len(question["tokens"]) <= 16
        assert all(20 <= len(tokens) <= 40 and tokens == sorted(set(tokens)) for tokens in question["tokens"])
        # The answer is greedy, so each of its tokens is among the compared ones.
        assert all(token in tokens for token, tokens in zip(question["ids"][question["start"] :], question["tokens"]))
    # The user's prompt went through the chat template of the adapter's tokenizer, which ends the
    # line.
    assert found["questions"][3]["start"] > 1
    assert (found["attention"], found["other_attention"]) == ("sdpa", "eager")
    assert all(math.exp(value) <= 1 for rows in found["answer"]["on"] for row in rows for value in row)
    own = distances(found["answer"], found["other"])
    assert own.on < 0.01
    assert permitted([own]) == PERMITTED


@pytest.mark.parametrize("recorded", RECORDED)
@pytest.mark.parametrize("computed", [" ".join(computed) for computed in COMPUTED])
def test_other_dtype_or_kernel_is_noise(table: Table, recorded: str, computed: str) -> None:
    found = table.found[recorded, computed]
    assert problems(found, PERMITTED) == [], found
    # With a margin, or the limit would be useless.
    assert found.on < PERMITTED["on"] / 3
    assert found.off < PERMITTED["off"] / 2


@pytest.mark.parametrize("wrong", PROBLEMS)
def test_fault_is_identified(table: Table, wrong: str) -> None:
    found = table.found["bfloat16", wrong]
    reported = problems(found, PERMITTED)
    assert len(reported) == 1, found
    assert reported[0][0].startswith(PROBLEMS[wrong]), (reported[0], found)
    assert reported[0][1]
    # The distance without the adapter shows whether the base differs.
    assert (found.off > PERMITTED["off"]) == (wrong in WRONG_BASES)


@pytest.mark.parametrize("unseen", UNSEEN)
def test_single_bit_is_below_the_noise(table: Table, unseen: str) -> None:
    # A golden does not prove integrity: one of many weights changes less than another kernel.
    assert problems(table.found["bfloat16", unseen], PERMITTED) == []
