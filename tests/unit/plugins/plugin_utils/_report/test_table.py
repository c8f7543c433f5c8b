# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table at the end of a run and the sentences below it."""

from __future__ import annotations

import re

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.table import (
    as_table,
    duration_lines,
    failure_lines,
    note_lines,
    wave_lines,
)

from tests.support.reports import NAMES, SIGNED, UNSIGNED, in_waves, load, many


def test_as_table_columns_are_aligned_and_complete() -> None:
    for name in NAMES:
        report = load(name)
        lines = [line for line, _state in as_table(report)]
        starts = [match.start() for match in re.finditer(r"(?<=  )\S", lines[0])][:-1]
        assert len(starts) == 5
        for line in lines[1:]:
            # Every column starts below its header, after two spaces.
            assert all(line.ljust(start)[start - 2 : start] == "  " for start in starts)
            assert line == line.rstrip()
        # An adapter that the run does not cover has no line.
        covered = [a for node in report["nodes"] for a in node["adapters"] if a["state"] != "not_selected"]
        assert len(lines) == 1 + len(covered)
        assert all(adapter["name"] in line for adapter, line in zip(covered, lines[1:]))


def test_as_table_line_has_release_level_device_and_seconds() -> None:
    lines = dict(zip(("header", "first", "second"), (line for line, _state in as_table(load("deployed")))))
    adapter = load("deployed")["nodes"][0]["adapters"][0]
    seconds = sum(load("deployed")["nodes"][0]["seconds"].values())
    assert lines["first"].split() == [
        "cleaner", "jw2-1", adapter["name"], adapter["release"], "activated", "golden", "on", "cpu",
        *adapter["test"]["device_name"].split(), f"{seconds:.1f}",
    ]  # fmt: skip
    # The seconds belong to the node: they appear once.
    assert lines["second"].split()[-1] == adapter["test"]["device_name"].split()[-1]


def test_as_table_in_check_mode_shows_expected_results() -> None:
    report = {**load("deployed"), "check_mode": True}
    words = [re.split(r" {2,}", line)[4] for line, _state in as_table(report)]
    assert words == ["result", "would be activated", "would be activated", "unchanged", "unchanged"]


def test_as_table_on_narrow_terminal_stacks_lines_that_fit() -> None:
    for name in NAMES:
        report = load(name)
        lines = [line for line, _state in as_table(report, width=60)]
        assert max(map(len, lines)) <= 60
        wide = [line for line, _state in as_table(report)]
        for word in " ".join(wide[1:]).split():
            assert word in " ".join(lines).replace(",", " ").split()
        assert as_table(report, width=max(map(len, wide))) == as_table(report)


def test_as_table_without_nodes_is_empty() -> None:
    assert as_table({**load("deployed"), "nodes": []}) == []


def test_note_lines_name_each_note_of_this_run_once() -> None:
    report = load("deployed")
    assert note_lines(report) == []
    first, second = report["nodes"][0]["adapters"][:2]
    for adapter in (first, second):
        adapter["test"] = {**adapter["test"], "from_receipt": False, "notes": ["Unusual.", f"Of {adapter['name']}."]}
    assert note_lines(report) == [
        f"note: jw2-1: adapter {adapter['name']}: {words}"
        for adapter in (first, second)
        for words in ("Unusual.", f"Of {adapter['name']}.")
    ]
    first["test"]["notes"] = [f"Note {number}." for number in range(20)]
    assert note_lines(report)[-1] == "note: 12 more notes in report.json."
    assert len(note_lines(report)) == 11
    # A receipt has the notes of an earlier run, which has shown them.
    first["test"]["from_receipt"] = second["test"]["from_receipt"] = True
    assert note_lines(report) == []


def test_note_lines_name_what_engines_make_of_an_adapter_that_is_delivered() -> None:
    report = load("deployed")
    adapter = report["nodes"][0]["adapters"][0]
    words = {"message": "It ignores use_rslora.", "figure": 1.161, "remedy": "Set alpha."}
    wrong = {"engine": "llama_cpp", "version": "0.3.36", "state": "wrong", "kinds": ["rslora"], **words, "held_back": False}
    adapter["engines"] = [wrong, {**wrong, "engine": "vllm", "state": "right"}]
    adapter["engine_notes"] = ["Some engines ignore it."]
    about = f"note: jw2-1: adapter {adapter['name']}:"
    said = "It ignores use_rslora. Log-probabilities were up to 1.161 away from PEFT's. Set alpha."
    line, note = f"{about} engine llama_cpp 0.3.36 wrong: {said}", f"{about} Some engines ignore it."
    assert note_lines(report) == [line, note]
    adapter["engines"] = [{**wrong, "held_back": True}]
    # The failures of a deploy say it. A status has none.
    assert note_lines(report) == [note]
    assert note_lines({**report, "kind": "status"}) == [line, note]


def test_note_lines_name_statements_that_are_about_to_expire() -> None:
    report = many(20)
    for node in report["nodes"]:
        node["adapters"][0]["signed"] = SIGNED
    report["nodes"][3]["adapters"][0]["signed"] = UNSIGNED
    report["nodes"][5]["adapters"][0]["signed"] = {**SIGNED, "expires": "2027-11-29T12:00:00+00:00"}
    [line] = note_lines({**report, "started": "2026-11-22T12:00:00+00:00"})
    about = f"note: gpu-[001:003], gpu-005, gpu-[007:020]: adapter {report['nodes'][0]['adapters'][0]['name']}:"
    assert line.startswith(f"{about} its statement expires on 2026-11-29; ")
    assert note_lines({**report, "started": "2026-11-01T12:00:00+00:00"}) == []


def test_note_lines_name_what_is_served_without_a_proof() -> None:
    report = load("deployed")
    adapter = report["nodes"][0]["adapters"][0]
    served = {"engine": "vllm", "url": "http://127.0.0.1:8000", "state": "served", "release": "a" * 12, "why": ""}
    adapter["serving"] = [served, {**served, "state": "unproved", "why": "It has no golden."}]
    about = f"note: jw2-1: adapter {adapter['name']}:"
    assert note_lines(report) == [f"{about} engine vllm at http://127.0.0.1:8000: unproved: It has no golden."]


def test_failure_lines_have_problem_and_remedy() -> None:
    report = load("failed")
    _alpha, row, lost = (failure["problem"] for failure in report["failures"])
    assert failure_lines(report) == [
        "sbs29 (needed by jw2-1): adapter llama31_8b_grammar_lora, lora_alpha in adapter_config.json: is 64;"
        " the inventory declares alpha 32. Deliver the intended adapter, or correct the inventory.",
        f"sbs29 (needed by jw2-1): adapter llama31_8b_grammar_lora: {' '.join(row.split())}."
        " If it is the intended adapter, put that row into agent_adapters.",
        f"jw3-2: {lost}."
        " Restore the connection and run again. The node still serves a complete release, the old one or the new one.",
    ]


def test_failure_lines_of_one_adapter_are_limited() -> None:
    report = load("drifted")
    first, *others = report["failures"]
    report["failures"] = [{**first, "problem": f"missing  /x/{number}"} for number in range(50)] + [
        {**failure, "adapter": "other"} for failure in others
    ]
    lines = failure_lines(report)
    assert len(lines) == 5 + 1 + 1
    assert lines[-1] == f"jw2-1: {first['adapter']}: 45 more of this kind, all in report.json."


def test_failure_lines_of_one_node_are_unique() -> None:
    report = load("failed")
    report["failures"] = [report["failures"][0]] * 2
    [line] = failure_lines(report)
    assert line.startswith("sbs29 (needed by jw2-1): adapter ")


def test_failure_lines_of_many_nodes_are_grouped() -> None:
    report = load("failed")
    rejected = report["failures"][0]
    report["failures"] = [{**rejected, "node": f"jw2-{number}"} for number in range(1, 51)]
    [line] = failure_lines(report)
    assert line.startswith(f"sbs29 (needed by jw2-[1:50]): {rejected['subject']}: is 64; ")
    report["failures"] = [{**rejected, "node": f"jw2-{number}", "host": f"jw2-{number}"} for number in range(1, 51)]
    [line] = failure_lines(report)
    assert line.startswith(f"jw2-[1:50]: {rejected['subject']}: is 64; ")


def test_failure_lines_of_unreachable_training_server_name_it_once() -> None:
    report = load("failed")
    lost = {**report["failures"][2], "host": "sbs29", "subject": "sbs29"}
    report["failures"] = [{**lost, "node": f"jw2-{number}"} for number in range(1, 5)]
    [line] = failure_lines(report)
    assert line.startswith("sbs29 (needed by jw2-[1:4]): is unreachable: ")
    assert line.count("sbs29") == 1


def test_failure_lines_of_the_run_name_no_host() -> None:
    report = load("failed")
    of_run = {"node": None, "host": "localhost", "adapter": None, "subject": "group agents", "problem": "is empty."}
    report["failures"] = [{**report["failures"][0], **of_run, "remedy": f"Fix {number}."} for number in range(9)]
    assert failure_lines(report) == [f"group agents: is empty. Fix {number}." for number in range(9)]


def test_as_table_of_node_with_two_agents_has_lines_for_both() -> None:
    report = load("deployed")
    [node] = [node for node in report["nodes"] if node["node"] == "jw3-1"]
    report["nodes"] = [{**node, "adapters": [node["adapters"][0], {**node["adapters"][0], "agent": "corrector"}]}]
    _header, first, second = (line for line, _state in as_table(report))
    assert (first.split()[:3], second.split()[:3]) == (
        ["describer", "jw3-1", node["adapters"][0]["name"]], ["corrector", "jw3-1", node["adapters"][0]["name"]],
    )  # fmt: skip


def test_wave_lines_of_a_rollout_are_a_table() -> None:
    assert [line for line, _state in wave_lines(in_waves(load("failed")))] == [
        "agent    wave  nodes         result",
        "cleaner  1/2   jw2-1         failed (jw2-1)",
        "cleaner  2/2   jw2-2, jw2-3  not started: wave 1 failed (jw2-1)",
    ]


def test_wave_lines_without_waves_are_none() -> None:
    assert wave_lines(load("failed")) == []


def test_as_table_of_many_equal_nodes_has_one_line_for_them() -> None:
    report = many(200)
    report["nodes"][6]["adapters"][0]["state"] = "failed"
    header, others, failed = as_table(report)
    assert [re.split(r" {2,}", line)[1] for line, _state in (header, others, failed)] == [
        "node", "gpu-[001:006], gpu-[008:200]", "gpu-007",
    ]  # fmt: skip
    sums = [sum(node["seconds"].values()) for node in report["nodes"]]
    assert others[0].endswith(f"  {sums[0]:.1f} to {sums[-1]:.1f}")
    assert (others[1], failed[1]) == ("unchanged", "failed")
    assert len(as_table(many(10))) == 11


def test_as_table_long_list_of_nodes_is_below_their_line() -> None:
    report = many(200)
    odd = report["nodes"][::2]
    for node in odd:
        node["adapters"][0]["state"] = "failed"
    for width in (None, 60):
        lines = [line for line, _state in as_table(report, width)]
        assert max(map(len, lines)) <= 130
        assert sum("100 nodes" in line for line in lines) == 2
        listed = " ".join(lines)
        # All of them: a node must not be hidden behind others.
        assert all(f" {node['node']}" in listed for node in report["nodes"])


def test_duration_lines_name_the_slowest_of_many_nodes() -> None:
    assert duration_lines(many(10)) == []
    report = many(200)
    slowest = report["nodes"][6]
    slowest["seconds"]["transfer"] = 900.25
    total = sum(slowest["seconds"].values())
    [line] = duration_lines(report)
    usual = sum(report["nodes"][101]["seconds"].values())
    last = [f"gpu-{number} {sum(report['nodes'][number - 1]['seconds'].values()):.1f} s" for number in (200, 199, 198, 197)]
    assert line == f"Half of 200 nodes took at most {usual:.1f} s. The slowest: gpu-007 {total:.1f} s, {', '.join(last)}."


def test_note_lines_of_a_talkative_node_leave_room_for_others() -> None:
    report = many(20)
    for node in report["nodes"]:
        node["adapters"][0]["test"].update(from_receipt=False, notes=["Unusual."])
    report["nodes"][0]["adapters"][0]["test"]["notes"] = [f"Note {number}." for number in range(50)]
    lines = note_lines(report)
    about = f"adapter {report['nodes'][0]['adapters'][0]['name']}"
    assert lines[:2] == [f"note: gpu-001: {about}: Note 0.", f"note: gpu-[002:020]: {about}: Unusual."]
    assert len(lines) == 11


def test_failure_lines_of_nodes_with_too_many_are_counted_together() -> None:
    report = load("failed")
    one = {**report["failures"][2], "adapter": None, "step": "transfer"}
    report["failures"] = [{**one, "node": f"jw2-{node}", "host": f"jw2-{node}", "problem": f"lacks {number}."}
                          for node in range(1, 51) for number in range(7)]  # fmt: skip
    lines = failure_lines(report)
    assert len(lines) == 6
    assert lines[-1] == "jw2-[1:50]: transfer: 2 more of this kind each, all in report.json."
