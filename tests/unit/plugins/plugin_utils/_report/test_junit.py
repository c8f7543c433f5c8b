# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""junit.xml, read by an independent parser."""

from __future__ import annotations

import junitparser
import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.junit import as_junit
from hypothesis import given
from hypothesis import strategies as st

from tests.support.reports import NAMES, SIGNED, load

CLEANER_3B, CLEANER_8B = "llama32_3b_grammar_lora", "llama31_8b_grammar_lora"


def cases(text: str) -> dict[tuple[str, str], junitparser.TestCase]:
    return {(suite.hostname, case.name): case for suite in junitparser.JUnitXml.fromstring(text.encode()) for case in suite}


@pytest.mark.parametrize("name", NAMES)
def test_as_junit_every_adapter_of_every_node_is_a_case(name: str) -> None:
    report = load(name)
    text = as_junit(report)
    found = cases(text)
    assert set(found) == {(node["node"], adapter["name"]) for node in report["nodes"] for adapter in node["adapters"]}
    for suite in junitparser.JUnitXml.fromstring(text.encode()):
        written = (suite.tests, suite.failures, suite.errors, suite.skipped)
        suite.update_statistics()
        assert (suite.tests, suite.failures, suite.errors, suite.skipped) == written


def test_as_junit_delivery_passes() -> None:
    assert all(case.is_passed for case in cases(as_junit(load("deployed"))).values())


def test_as_junit_delivery_names_verdicts_of_engines() -> None:
    case = cases(as_junit(load("deployed")))["jw2-1", CLEANER_3B]
    assert case.system_out.splitlines()[-1] == "engine vllm 0.32.0 right"


def test_as_junit_delivery_says_by_whom_releases_are_signed() -> None:
    report = load("deployed")
    report["nodes"][0]["adapters"][0]["signed"] = SIGNED
    lines = cases(as_junit(report))["jw2-1", CLEANER_3B].system_out.splitlines()
    assert "signed by alice, bob, serial 7, until 2026-11-29T12:00:00+00:00" in lines


def test_as_junit_failure_has_problem_and_remedy() -> None:
    found = cases(as_junit(load("failed")))
    [failure] = found["jw2-1", CLEANER_8B].result
    assert isinstance(failure, junitparser.Failure)
    assert failure.message.startswith("is 64; the inventory declares alpha 32.; matches this row instead: ")
    assert "Deliver the intended adapter, or correct the inventory." in failure.text
    [skipped] = found["jw2-1", CLEANER_3B].result
    assert (type(skipped), skipped.message) == (junitparser.Skipped, "Another adapter of its node failed.")
    assert found["jw3-1", "llama32_3b_wikipedia_only_lora"].is_passed
    [unreachable] = found["jw3-2", "llama32_3b_wikipedia_only_lora"].result
    assert unreachable.type == "unreachable"


def test_as_junit_adapter_that_was_held_back_is_skipped_with_the_reason() -> None:
    report = load("deployed")
    report["nodes"][0]["adapters"][0]["state"] = "not_started"
    assert '<skipped message="An earlier wave of its agent failed." />' in as_junit(report)


def test_as_junit_drift_fails_its_adapter_only() -> None:
    found = cases(as_junit(load("drifted")))
    assert [key for key, case in found.items() if not case.is_passed] == [("jw2-1", CLEANER_3B)]
    [failure] = found["jw2-1", CLEANER_3B].result
    assert failure.text.count("Deploy again") == 2


def test_as_junit_failure_at_another_host_names_it() -> None:
    report = load("failed")
    del report["failures"][1:]
    report["failures"][0].update(host="sbs29", subject="sbs29", problem="is unreachable: refused", adapter=None)
    [failure] = cases(as_junit(report))["jw2-1", CLEANER_8B].result
    assert failure.message == "sbs29 is unreachable: refused"
    assert failure.text.startswith("sbs29: is unreachable: refused. ")


@given(st.text(max_size=20))
def test_as_junit_any_text_is_valid_xml(text: str) -> None:
    report = load("failed")
    report["failures"][0].update(subject=text, problem=text, remedy=text)
    report["nodes"][1]["adapters"][0]["test"]["device_name"] = text
    assert len(cases(as_junit(report))) == 4
