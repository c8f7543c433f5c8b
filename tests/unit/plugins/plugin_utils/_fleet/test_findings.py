# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.findings import Finding, Findings

GROUPS = {"all": ["a", "b", "c"], "agents": ["a", "b"], "jw2": ["a", "b"], "jw3": ["c"]}
FINDING = Finding("agent_keep", "is wrong.", "Write 3.")


def subjects(*hosts: str) -> list[str]:
    findings = Findings(GROUPS)
    for host in hosts:
        findings.add(host, FINDING)
    return [problem.subject for problem in findings.problems()]


def test_findings_of_all_hosts_of_a_group_name_innermost_group() -> None:
    assert subjects("a", "b") == ["group jw2 (a, b), agent_keep"]
    assert subjects("c") == ["group jw3 (c), agent_keep"]


def test_findings_of_other_hosts_name_hosts() -> None:
    assert subjects("a") == ["a, agent_keep"]
    assert subjects("a", "c") == ["a, c, agent_keep"]
    assert subjects("a", "b", "c") == ["a, b, c, agent_keep"]


def test_findings_that_differ_are_problems_of_their_own() -> None:
    findings = Findings(GROUPS)
    findings.add("a", FINDING)
    findings.add("a", Finding("agent_keep", "is wrong.", "Write 3.", "grammar_lora"))
    assert [str(problem) for problem in findings.problems()] == [
        "a, agent_keep: is wrong. Write 3.",
        "adapter grammar_lora, a, agent_keep: is wrong. Write 3.",
    ]
