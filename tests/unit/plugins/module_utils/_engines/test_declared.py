# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared import DeclaredEngine, declared_engines
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.support.environments import install

OPTION = "agent_engine"


@pytest.mark.parametrize("value", [None, "", []])
def test_declared_engines_of_no_value_are_none(value: t.Any) -> None:
    assert declared_engines(value, OPTION) == []


def test_declared_engines_have_a_name_a_dictionary_or_a_list_of_both() -> None:
    vllm = {"name": "vllm", "version": "0.32.0", "python": "/opt/vllm/bin/python", "max_lora_rank": 64, "dtype": None}
    first = DeclaredEngine("vllm", "0.32.0", "/opt/vllm/bin/python", {"max_lora_rank": 64})
    second = DeclaredEngine("openvino", None, None, {})
    assert declared_engines("openvino", OPTION) == [second]
    assert declared_engines(vllm, OPTION) == [first]
    assert declared_engines([vllm, "openvino"], OPTION) == [first, second]


FORM = "Write the name of an engine, a dictionary with name, or a list of these."


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (5, f"has 5 as an engine. {FORM}"),
        ([["vllm"]], f'has ["vllm"] as an engine. {FORM}'),
        ({"version": "0.32"}, f'has an engine without a name: {{"version": "0.32"}}. {FORM}'),
        ("opnvino", "names engine opnvino, which has no rules. Use the name of a known engine: openvino_genai."),
        ({"name": "vllm", "max_lora_rnk": 64}, "has the unknown key max_lora_rnk for engine vllm. Write max_lora_rank."),
        (
            {"name": "openvino", "tensor_parallel_size": 2},
            "has the unknown key tensor_parallel_size for engine openvino."
            " The keys of this engine are name, version, python, alpha, kv_cache_precision, url, api_key_file, allow_remote,"
            " base, public_name, drain_timeout, start_timeout, probe_timeout, restart, convert.",
        ),
        ({"name": "vllm", "version": 0.3}, "has version 0.3 for engine vllm, which is not text. Put it in quotes."),
        (
            {"name": "vllm", "python": "bin/python"},
            'has python "bin/python" for engine vllm. Write the absolute path of an interpreter.',
        ),
        (
            {"name": "vllm", "max_lora_rank": "64"},
            'has max_lora_rank "64" for engine vllm, which is not an integer. Write an integer.',
        ),
        (
            {"name": "llama.cpp", "alpha": True},
            "has alpha true for engine llama.cpp, which is not a number or the word factor. Write a number or the word factor.",
        ),
    ],
)
def test_declared_engines_of_another_form_are_refused(value: t.Any, problem: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        declared_engines(value, OPTION)
    assert str(caught.value) == f"{OPTION}: {problem}"


def test_declared_engines_with_several_mistakes_name_all_of_them() -> None:
    with pytest.raises(DeliveryError) as caught:
        declared_engines(["vlm", {"name": "vllm", "version": 1, "dtype": 16}], OPTION)
    assert [problem.problem.split(" for ")[0] for problem in caught.value.problems] == [
        "names engine vlm, which has no rules.",
        "has version 1",
        "has dtype 16",
    ]


def test_engine_on_this_host_has_the_installed_version_or_else_the_declared_one(tmp_path: pathlib.Path) -> None:
    python = tmp_path / "bin" / "python3.11"
    value = {"name": "openvino", "version": "2026.3.0.0", "python": str(python), "alpha": 2.0}
    [declared], [undeclared] = (declared_engines(one, OPTION) for one in (value, {**value, "version": None}))
    engine, missing = declared.on_this_host()
    assert engine.version == "2026.3.0.0"
    start = f"engine openvino_genai: {python} has no package openvino-genai, so "
    end = "Correct python of this engine in engines."
    assert str(missing) == f"{start}version 2026.3.0.0 is assumed. {end}"
    engine, missing = undeclared.on_this_host()
    assert (engine.version, str(missing)) == (None, f"{start}its version is not known. {end}")

    install(tmp_path / "lib" / "python3.11" / "site-packages", "openvino-genai", "2026.4.1.0")
    engine, missing = declared.on_this_host()
    assert (engine.name, engine.version, engine.settings, missing) == ("openvino", "2026.4.1.0", {"alpha": 2.0}, None)
    [plain] = declared_engines("openvino", OPTION)
    engine, missing = plain.on_this_host()
    assert (engine.version, missing) == (None, None)
