# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table at the end of a run, and the sentences below it."""

from __future__ import annotations

import re

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.table import as_table, failure_lines

from tests.support.reports import NAMES, load


def test_columns_are_aligned_and_complete() -> None:
    for name in NAMES:
        report = load(name)
        lines = [line for line, _state in as_table(report)]
        starts = [match.start() for match in re.finditer(r"(?<=  )\S", lines[0])][:-1]
        assert len(starts) == 5
        for line in lines[1:]:
            # Every column begins where its header does, with two spaces before it.
            assert all(line.ljust(start)[start - 2 : start] == "  " for start in starts)
            assert line == line.rstrip()
        # An adapter that the run was not about has no line.
        about = [a for node in report["nodes"] for a in node["adapters"] if a["state"] != "not_selected"]
        assert len(lines) == 1 + len(about)
        assert all(adapter["name"] in line for adapter, line in zip(about, lines[1:]))


def test_a_line_says_what_is_known() -> None:
    lines = dict(zip(("header", "first", "second"), (line for line, _state in as_table(load("deployed")))))
    adapter = load("deployed")["nodes"][0]["adapters"][0]
    seconds = sum(load("deployed")["nodes"][0]["seconds"].values())
    assert lines["first"].split() == [
        "cleaner", "jw2-1", adapter["name"], adapter["release"], "activated", "golden", "on", "cpu",
        *adapter["test"]["device_name"].split(), f"{seconds:.1f}",
    ]  # fmt: skip
    # The seconds are the node's: they stand once.
    assert lines["second"].split()[-1] == adapter["test"]["device_name"].split()[-1]


def test_in_check_mode_it_says_what_would_happen() -> None:
    report = {**load("deployed"), "check_mode": True}
    words = [re.split(r" {2,}", line)[4] for line, _state in as_table(report)]
    assert words == ["what happened", "would be activated", "would be activated", "unchanged", "unchanged"]


def test_a_narrow_terminal_gets_lines_that_fit() -> None:
    for name in NAMES:
        report = load(name)
        lines = [line for line, _state in as_table(report, width=60)]
        assert max(map(len, lines)) <= 60
        wide = [line for line, _state in as_table(report)]
        for word in " ".join(wide[1:]).split():
            assert word in " ".join(lines).replace(",", " ").split()
        assert as_table(report, width=max(map(len, wide))) == as_table(report)


def test_a_run_about_nothing_says_nothing() -> None:
    assert as_table({**load("deployed"), "nodes": []}) == []


def test_each_failure_is_one_sentence_with_its_remedy() -> None:
    report = load("failed")
    assert failure_lines(report) == [
        "jw2-1: adapter llama31_8b_grammar_lora, lora_alpha in adapter_config.json: is 64; the inventory declares alpha 32."
        " Deliver the intended adapter, or correct the inventory.",
        f"jw3-2: {report['failures'][1]['problem']}."
        " See that it answers, then run again: what is served is whole, the old release or the new one.",
    ]


def test_one_adapter_does_not_bury_the_others() -> None:
    report = load("drifted")
    first, *others = report["failures"]
    report["failures"] = [{**first, "problem": f"missing  /x/{number}"} for number in range(50)] + [
        {**failure, "adapter": "other"} for failure in others
    ]
    lines = failure_lines(report)
    assert len(lines) == 5 + 1 + 1
    assert lines[-1] == f"jw2-1: {first['adapter']}: 45 more of this kind, all in report.json."


def test_what_a_node_says_twice_is_said_once() -> None:
    report = load("failed")
    report["failures"] = [report["failures"][0]] * 2
    [line] = failure_lines(report)
    assert line.startswith("jw2-1: adapter ")


def test_what_many_nodes_have_in_common_is_said_once() -> None:
    report = load("failed")
    refused = report["failures"][0]
    report["failures"] = [{**refused, "node": f"jw2-{number}"} for number in range(1, 51)]
    [line] = failure_lines(report)
    assert line.startswith(f"jw2-1, jw2-2, jw2-3 and 47 more: {refused['subject']}: is 64; ")
