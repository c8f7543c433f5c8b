# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.findings import Findings
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.variable_checks import VariableChecks

# Imported before a test installs Ansible's importer, which would need the collection's metadata.
importlib.import_module("ansible_collections.lorafleet.delivery.plugins.module_utils._engines.declared")


class Variables(t.Dict[str, t.Any]):
    def names(self) -> list[str]:
        return list(self)


def found(**variables: t.Any) -> list[str]:
    findings = Findings({})
    VariableChecks(findings).check("jw2-1", Variables(variables))
    return [str(problem) for problem in findings.problems()]


def test_variable_checks_valid_and_own_variables_have_no_findings() -> None:
    assert (
        found(agent_keep="4", agent_port=8000, ansible_host="jw2", agent_adapters="checked elsewhere", agent_minimum_level=None)
        == []
    )


def test_variable_checks_near_miss_is_refused() -> None:
    assert found(agent_modelsdir="/srv") == [
        "jw2-1, agent_modelsdir: is not a variable of the roles, but agent_models_dir is."
        " Write agent_models_dir. If the variable is your own, name it in lorafleet_own_variables."
    ]


@pytest.mark.parametrize("own", [["agent_modelsdir"], "agent_modelsdir"])
def test_variable_checks_own_variable_is_exempt(own: t.Any) -> None:
    assert found(agent_modelsdir="/srv", lorafleet_own_variables=own) == []


def test_variable_checks_wrong_type_is_refused() -> None:
    assert found(agent_keep="many") == ['jw2-1, agent_keep: is "many", which is not an integer. Write an integer.']


def test_variable_checks_list_is_no_misspelt_text() -> None:
    assert found(agent_groups=["web"], runtime_env={"PATH": "/opt"}) == []
    assert [text.split(":")[0] for text in found(agent_groups="web", agent_prompt=["a"])] == [
        "jw2-1, agent_groups",
        "jw2-1, agent_prompt",
    ]


def test_variable_checks_waves_are_numbers_and_percentages() -> None:
    for value in (1, "2", "30%", [1, "50%"], {"cleaner": 1, "describer": "100%"}, None):
        assert found(agent_serial=value, agent_on_failure="back") == []
    assert found(agent_serial="0%", agent_on_failure="return") == [
        'jw2-1, agent_on_failure: is "return", which is not one of stay, back. Write one of stay, back.',
        'jw2-1, agent_serial: is "0%", which is not a number of nodes from 1, a percentage from 1% to 100%, or a list of these.'
        " Write a number of nodes from 1, a percentage from 1% to 100%, or a list of these.",
    ]


def test_variable_checks_near_misses_of_waves_are_refused() -> None:
    assert [text.split(" Write")[0] for text in found(agent_serials=1, agent_onfailure="back")] == [
        "jw2-1, agent_onfailure: is not a variable of the roles, but agent_on_failure is.",
        "jw2-1, agent_serials: is not a variable of the roles, but agent_serial is.",
    ]


def test_variable_checks_engine_that_is_declared_right_has_no_findings() -> None:
    engines = ["openvino", {"name": "vllm", "version": "0.32.0", "max_lora_rank": 64}]
    for value in (*engines, engines, "", None):
        assert found(agent_engine=value, agent_engine_policy="report") == []


def test_variable_checks_mistakes_in_engines_are_refused() -> None:
    mistakes = found(agent_engine=["opnvino", {"name": "vllm", "version": 0.32}], agent_engine_policy="warn")
    assert mistakes == [
        "jw2-1, agent_engine: names engine opnvino, which has no rules. Use the name of a known engine: openvino_genai.",
        "jw2-1, agent_engine: has version 0.32 for engine vllm, which is not text. Put it in quotes.",
        'jw2-1, agent_engine_policy: is "warn", which is not one of enforce, report. Write one of enforce, report.',
    ]
