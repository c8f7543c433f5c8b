# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts with names of variables. tests/adversary has hosts that return them."""

from __future__ import annotations

import typing as t

import pytest
from ansible import constants as C
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fact_checks import findings_of, overriding_facts


@pytest.fixture(autouse=True)
def injected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of Ansible."""
    monkeypatch.setattr(C, "INJECT_FACTS_AS_VARS", True)


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (
            {"agent_store": "/etc", "training_python": "/x", "lorafleet_notes": []},
            {"agent_store", "training_python", "lorafleet_notes"},
        ),
        ({"runtime_wheelhouse_from": "~/.ssh"}, {"runtime_wheelhouse_from"}),
        # ``ansible_facts`` has them without the beginning that variables have.
        ({"host_key_checking": False, "control_path_dir": "/x"}, {"ansible_host_key_checking", "ansible_control_path_dir"}),
        ({"system": "Linux", "user_id": "root", "python": {}, "ssh_host_key_rsa_public": "x", "local": {}}, set()),
        ({"agent_of_mine": 1, "agent": 1}, set()),
        ({}, set()),
        (None, set()),
    ],
)
def test_overriding_facts_are_those_with_names_of_variables(facts: t.Any, found: set[str]) -> None:
    assert overriding_facts({"ansible_facts": facts, "agent_keep": 3}) == found


def test_facts_that_are_no_variables_override_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(C, "INJECT_FACTS_AS_VARS", False)
    assert overriding_facts({"ansible_facts": {"agent_store": "/etc"}}) == set()


def test_findings_name_variable_and_remedy() -> None:
    [finding] = findings_of({"agent_store"})
    assert (finding.variable, finding.problem) == ("agent_store", "is set by a fact of the host, which overrides the inventory.")
    assert "inject_facts_as_vars" in finding.remedy
