# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.judgement import Judge, config_of_base
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.words import line_of, sentences
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.support.tiny_adapters import BASE_NAME

OPENVINO = {"name": "openvino", "version": "2026.4.1.0"}
VLLM = {"name": "vllm", "version": "0.32.0"}


def judge(engines: t.Any, policy: str = "enforce") -> Judge:
    return Judge({"engines": engines, "engine_policy": policy})


def test_judgement_of_wrong_engine_holds_back_and_says_what_helps(rslora: Manifest) -> None:
    judgement = judge([VLLM, OPENVINO]).judge(rslora, None)
    [problem] = judgement.problems()
    assert (problem.adapter, problem.subject) == ("rslora", "engine openvino_genai")
    assert problem.problem.startswith("OpenVINO GenAI 2026.4.1.0 does not read adapter_config.json")
    assert problem.problem.endswith("Log-probabilities were up to 1.302 away from PEFT's.")
    # The number to hand over is that of this adapter: 32 divided by the square root of 16.
    assert "AdapterConfig(adapter, 8)" in problem.remedy
    assert problem.remedy.endswith(" To deliver it nevertheless, set engine_policy to report.")
    assert [(one["engine"], one["state"], one["held_back"]) for one in judgement.engines()] == [
        ("vllm", "right", False),
        ("openvino_genai", "wrong", True),
    ]


def test_judgement_that_is_only_reported_holds_nothing_back(rslora: Manifest) -> None:
    judgement = judge(OPENVINO, "report").judge(rslora, None)
    assert judgement.problems() == []
    [warning] = judgement.warnings()
    assert warning.startswith("adapter rslora, engine openvino_genai: OpenVINO GenAI 2026.4.1.0 does not read")
    assert "engine_policy" not in warning
    [verdict] = judgement.engines()
    assert (verdict["state"], verdict["held_back"]) == ("wrong", False)


def test_judgement_of_unknown_version_is_delivered_without_a_warning(rslora: Manifest) -> None:
    judgement = judge({**OPENVINO, "version": "2030.1"}).judge(rslora, None)
    assert (judgement.problems(), judgement.warnings()) == ([], [])
    [verdict] = judgement.engines()
    assert (verdict["state"], verdict["held_back"]) == ("unknown", False)
    assert line_of(verdict).startswith("engine openvino_genai 2030.1 unknown: ")


def test_judgement_depends_on_the_settings_of_the_engine(rslora: Manifest) -> None:
    assert judge({**OPENVINO, "alpha": 2}).judge(rslora, None).problems()
    assert not judge({**OPENVINO, "alpha": 8}).judge(rslora, None).problems()


def test_judgement_without_engines_has_notes_only(rslora: Manifest) -> None:
    judgement = judge(None).judge(rslora, None)
    assert (judgement.problems(), judgement.warnings(), judgement.engines()) == ([], [], [])
    [note] = judgement.notes
    assert "rsLoRA" in note
    # This base is read wrongly by some engine, too, but that is no matter of the adapter.
    assert judge(None).judge(rslora, {"rope_parameters": {"rope_theta": 10000.0}}).notes == [note]
    plain = dataclasses.replace(rslora, config={**rslora.config, "use_rslora": False})
    assert judge(None).judge(plain, None).notes == []


def test_judge_of_unknown_engine_is_refused() -> None:
    with pytest.raises(DeliveryError, match="engines: names engine opnvino, which has no rules"):
        judge("opnvino")


@pytest.mark.parametrize(
    ("bases", "expected"),
    [
        ({}, None),
        ({BASE_NAME: {"config": {"model_type": "llama"}}}, {"model_type": "llama"}),
        ({"other": {"config": {"r": 1}}, "mine": {"aliases": [BASE_NAME], "config": {"r": 2}}}, {"r": 2}),
        ({BASE_NAME: None}, None),
        # The load test says what is wrong with them.
        ({BASE_NAME: "/data/llama"}, None),
        ({BASE_NAME: {"path": "/nowhere"}}, None),
        ({"other": {"aliases": 5}}, None),
    ],
)
def test_config_of_base_is_that_of_its_name_or_alias(
    rslora: Manifest, bases: dict[str, t.Any], expected: dict[str, t.Any] | None
) -> None:
    assert config_of_base(rslora, bases) == expected


def test_config_of_base_is_read_from_its_path(rslora: Manifest, tiny: pathlib.Path, base_config: dict[str, t.Any]) -> None:
    assert config_of_base(rslora, {BASE_NAME: {"path": str(tiny / "base")}}) == base_config


def test_judge_without_config_of_base_takes_that_of_the_training(rslora: Manifest) -> None:
    """Which a node without the base does not have otherwise."""
    rope = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
    trained = dataclasses.replace(rslora, base={"config": rope})
    kinds = {
        name: set(judge(VLLM).judge(manifest, config).engines()[0]["kinds"])
        for name, manifest, config in (
            ("unknown", rslora, None),
            ("training", trained, None),
            ("node", trained, {"rope_theta": 10000.0}),
            ("damaged", dataclasses.replace(rslora, base={"config": "text"}), None),
        )
    }
    assert kinds["training"] - kinds["unknown"] == {"rope_parameters"}
    assert kinds["node"] == kinds["damaged"] == kinds["unknown"]


def test_line_of_right_engine_gives_no_reason(rslora: Manifest) -> None:
    [verdict] = judge(VLLM).judge(rslora, None).engines()
    assert line_of(verdict) == "engine vllm 0.32.0 right"
    assert sentences(verdict) == "vLLM 0.32.0 answers as PEFT does."
