# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Adapters that must pass: many kinds and bases, PEFT 0.14 to 0.21, transformers 4 and 5.

They are in ``tests/fixtures``, with the script that made them.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.structure import unchecked
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import WorkerRun, run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Target

from tests.support import tiny_adapters
from tests.support.damage import Damage, change_tensors, drop, rewrite
from tests.support.paths import FIXTURES

# One process loads all adapters.
pytestmark = pytest.mark.xdist_group("accepted_variants")

ADAPTERS: dict[str, dict[str, t.Any]] = json.loads((FIXTURES / "adapters.json").read_text(encoding="utf-8"))
# A family whose modules level structure does not know.
UNKNOWN = "phi3"


def base_config(name: str) -> dict[str, t.Any]:
    path = FIXTURES / "bases" / ADAPTERS[name]["family"] / "config.json"
    return t.cast("dict[str, t.Any]", json.loads(path.read_text(encoding="utf-8")))


def declared(name: str, **row: t.Any) -> Declaration:
    known = {"name": "adapter", "base": f"tiny/{ADAPTERS[name]['family']}", "rank": 2, "alpha": 8.0, "allow_pickle": False}
    known.update({"target_modules": None, "extra_files": None, "peft_config": ADAPTERS[name]["peft_config"]})
    return Declaration.from_row({**known, **row}, {"config": base_config(name)})


def message_of(adapter: pathlib.Path, one: Declaration, work: pathlib.Path) -> str:
    try:
        describe(str(adapter), one, {}, str(work / "entry.json"))
    except DeliveryError as exc:
        return str(exc)
    return ""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> WorkerRun:
    """All adapters at level model, and one without a module of an unknown base family."""
    work = tmp_path_factory.mktemp("variants")
    targets = [
        Target(
            name,
            str(FIXTURES / "adapters" / name),
            "adapter_model.safetensors",
            "model",
            None,
            str(FIXTURES / "bases" / ADAPTERS[name]["family"]),
            False,
        )
        for name in ADAPTERS
    ]
    shutil.copytree(FIXTURES / "adapters" / UNKNOWN, work / "short")
    change_tensors(work / "short", drop("layers.1.self_attn.qkv_proj"))
    short = Target("short", str(work / "short"), "adapter_model.safetensors", "adapter", base_config(UNKNOWN), None, False)
    outcome = run_worker(tiny_adapters.PEFT_PYTHON, "cpu", [*targets, short], 300, str(work))
    assert outcome.problems == ()
    return outcome


def test_fixtures_cover_versions_and_families() -> None:
    peft = {name.split("-")[1].rpartition(".")[0] for name in ADAPTERS if name.startswith("peft-")}
    assert peft == {f"0.{minor}" for minor in range(14, 22)}
    assert {name.partition("transformers-")[2][:1] for name in ADAPTERS if name.startswith("peft-")} == {"4", "5"}
    families = {adapter["family"] for adapter in ADAPTERS.values()}
    assert families == {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", UNKNOWN}
    assert all(path.stat().st_size <= 100_000 for path in FIXTURES.rglob("*.*"))


@pytest.mark.parametrize("name", ADAPTERS)
def test_level_structure_accepts_variant(tmp_path: pathlib.Path, name: str) -> None:
    assert message_of(FIXTURES / "adapters" / name, declared(name), tmp_path) == ""
    assert bool(unchecked(base_config(name))) == (name == UNKNOWN)


@pytest.mark.parametrize("name", [name for name in ADAPTERS if ADAPTERS[name]["peft_config"]])
def test_describe_undeclared_variant_is_an_error(tmp_path: pathlib.Path, name: str) -> None:
    assert "is not plain LoRA and not declared" in message_of(
        FIXTURES / "adapters" / name, declared(name, peft_config=None), tmp_path
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTERS)
def test_level_model_accepts_variant(loaded: WorkerRun, name: str) -> None:
    report = loaded.reports[name]
    assert (report.failures, report.passed, report.result.level) == ([], True, "model")
    assert (report.result.effect or 0) > 0.001


# In every known family, level structure finds missing and extra tensors.
FAMILIES = [name for name in ADAPTERS if name == ADAPTERS[name]["family"] and name != UNKNOWN]


def widen(tensors: dict[str, t.Any]) -> None:
    name = "base_model.model.model.layers.1.self_attn.o_proj.lora_A.weight"
    dtype, (rank, width), raw = tensors[name]
    tensors[name] = (dtype, [rank, width + 2], raw + bytes(8 * rank))


@pytest.mark.parametrize("name", FAMILIES)
def test_level_structure_finds_faults_in_every_family(tmp_path: pathlib.Path, name: str) -> None:
    def message(damage: t.Callable[[pathlib.Path], None]) -> str:
        copy = tmp_path / "adapter"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(FIXTURES / "adapters" / name, copy)
        damage(copy)
        return message_of(copy, declared(name), tmp_path)

    def tensors(damage: Damage) -> t.Callable[[pathlib.Path], None]:
        return lambda copy: change_tensors(copy, damage)

    assert "lacks 2 of 28 tensors" in message(tensors(drop("layers.1.self_attn.k_proj")))
    assert "lacks 14 of 28 tensors" in message(tensors(drop("layers.0.")))
    wide = message(lambda copy: rewrite(copy / "adapter_model.safetensors", widen))
    assert "layers.1.self_attn.o_proj.lora_A.weight is [2, " in wide
    assert ", expected [2, " in wide


@pytest.mark.slow
def test_level_adapter_finds_missing_module_of_unknown_family(loaded: WorkerRun, tmp_path: pathlib.Path) -> None:
    shutil.copytree(FIXTURES / "adapters" / UNKNOWN, tmp_path / "short")
    change_tensors(tmp_path / "short", drop("layers.1.self_attn.qkv_proj"))
    assert message_of(tmp_path / "short", declared(UNKNOWN), tmp_path) == ""
    (failure,) = loaded.reports["short"].failures
    assert "lacks base_model.model.model.layers.1.self_attn.qkv_proj.lora_A.weight" in failure.problem
