# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""MANIFEST.md of real runs and with hostile text. test_fleet_manifest.py has the round trip."""

from __future__ import annotations

import re

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet_manifest import parse
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.markdown import as_markdown
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.model import adapters_of
from hypothesis import given
from hypothesis import strategies as st

from tests.support.reports import NAMES, SIGNED, UNSIGNED, in_waves, load, many

BOXES = ["Cleaner models → jw2", "Describer models → jw3", "All checksums verified", "All nodes tested"]


def boxes(text: str) -> dict[str, bool]:
    return {line[6:]: line[3] == "x" for line in text.splitlines() if re.match(r"- \[[x ]\] ", line)}


def test_as_markdown_delivery_ticks_boxes_and_has_evidence() -> None:
    report = load("deployed")
    text = as_markdown(report)
    assert boxes(text) == dict.fromkeys(BOXES, True)
    adapter = report["nodes"][0]["adapters"][0]
    assert adapter["digest"] in text
    for entry in adapter["files"]:
        assert f"| {entry['path']} | {entry['size']} | {entry['sha256']} |" in text
    assert "## Failures" not in text
    verdicts = [(node, adapter, verdict) for node, adapter in adapters_of(report) for verdict in adapter["engines"]]
    assert verdicts
    for node, adapter, verdict in verdicts:
        row = (node["node"], adapter["name"], verdict["engine"], verdict["version"], verdict["state"], verdict["message"])
        assert f"| {' | '.join(row)} |" in text


def test_as_markdown_without_engines_has_no_section_for_them() -> None:
    report = load("deployed")
    for _node, adapter in adapters_of(report):
        adapter["engines"] = []
    assert "## Engines" not in as_markdown(report)


def test_as_markdown_rollout_has_its_waves_and_reads_back_as_the_same_fleet() -> None:
    text = as_markdown(in_waves(load("failed")))
    assert "| cleaner | 2 of 2 | jw2-2, jw2-3 | not started: wave 1 failed (jw2-1) |" in text
    assert parse(text, "MANIFEST.md") == parse(as_markdown(load("failed")), "MANIFEST.md")
    assert "## Rollout" not in as_markdown(load("failed"))


def test_as_markdown_folded_adapter_says_what_it_was_made_of() -> None:
    report = load("deployed")
    adapter = report["nodes"][0]["adapters"][0]
    adapter["made_of"] = {"digest": "1" * 64, "form": "folded", "factors": [2.0], "rounded": 0, "difference": 0.0}
    text = as_markdown(report)
    assert text.count(f"| {adapter['release']} (folded from 111111111111) |") == 1
    assert text.count("folded from") == 1


def test_as_markdown_node_with_the_digest_of_another_does_not_change_its_files() -> None:
    report = load("deployed")
    adapters = [adapter for _node, adapter in adapters_of(report)]
    text = as_markdown(report)
    # The others keep their digest, so that the files of a node would be shown as those of another.
    false = {"path": "false.json", "size": 1, "sha256": "f" * 64}
    adapters[-1].update(digest=adapters[0]["digest"], release=adapters[0]["release"], files=[false], size=None)
    changed = as_markdown(report)
    assert "false.json | 1 |" not in changed
    for entry in adapters[0]["files"]:
        line = f"| {adapters[0]['name']} | {adapters[0]['release']} | {entry['path']} | {entry['size']} | {entry['sha256']} |"
        assert text.count(line) == changed.count(line) == 1


def test_as_markdown_failure_leaves_boxes_empty_with_reasons() -> None:
    text = as_markdown(load("failed"))
    assert boxes(text) == dict.fromkeys(BOXES, False)
    assert "  (llama31_8b_grammar_lora on jw2-1: not delivered)" in text
    assert "is 64; the inventory declares alpha 32. Deliver the intended adapter" in text


def test_as_markdown_recorded_reports_parse_as_inventory() -> None:
    for name in NAMES:
        fleet = parse(as_markdown(load(name)), "MANIFEST.md")
        assert {agent.name: agent.purpose for agent in fleet.agents} == {"cleaner": "Grammar/Noise", "describer": "Context"}
        assert fleet.agents[1].hosts.keys() == {"jw3-1", "jw3-2"}
        assert fleet.training == {"epochs": "3", "precision": "bf16"}
        assert fleet.notes == ()
        assert [len(agent.adapters) for agent in fleet.agents] == [2, 1]


def test_as_markdown_file_names_of_a_node_become_no_extra_files() -> None:
    report = load("deployed")
    adapter = report["nodes"][0]["adapters"][0]
    adapter["extra_files"] = ["labels.json"]
    adapter["files"] += [{"path": name, "size": 1, "sha256": "0" * 64} for name in ("labels.json", "evil.py", "notes.md")]
    fleet = parse(as_markdown(report), "MANIFEST.md")
    assert {file for agent in fleet.agents for row in agent.adapters for file in row.extra_files} == {"labels.json"}


def test_as_markdown_of_node_with_two_agents_has_a_section_for_each() -> None:
    report = load("deployed")
    node = report["nodes"][0]
    node["agents"], node["purpose"]["corrector"], node["notes"]["corrector"] = ["cleaner", "corrector"], "Style", ["Is new."]
    shared = {**node["adapters"][0], "agent": "corrector", "variant": "small", "default": True, "quality": "good"}
    node["adapters"].append(shared)
    text = as_markdown(report)
    headings = [line for line in text.splitlines() if line.startswith("### ")]
    assert headings[:2] == ["### Cleaner Agent (Grammar/Noise) → jw2 (jw2-1)", "### Corrector Agent (Style) → jw2 (jw2-1)"]
    [section] = re.findall(r"### Corrector.*?(?=\n##)", text, re.DOTALL)
    assert "- **SMALL Default:**" in section and "  - Quality: good" in section and "- Is new." in section
    assert section.count("  - Source: ") == 1
    # Files are listed once for each release.
    assert text.count(f"| {shared['name']} | {shared['release']} | {shared['files'][0]['path']} |") == 1


# How GitHub splits the row of a table: a backslash escapes the character that follows it.
CELL = re.compile(r"(?:\\.|[^|\\])*")


def cells(line: str) -> list[str]:
    found, position = [], 1
    while position < len(line):
        cell = CELL.match(line, position)
        assert cell is not None
        found.append(cell[0])
        position = cell.end() + 1
    return found


HOSTILE = st.text(st.sampled_from("a|\\ \n\r\t`\u2028\x0b\x85#-[x]<!>→()"), max_size=20)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_as_markdown_hostile_text_adds_no_box_and_no_cell(purpose: str, message: str, device: str) -> None:
    report = load("failed")
    report["notes"] = [f"[x] {message}"]
    for node in report["nodes"]:
        for agent in node["agents"]:
            node["purpose"][agent], node["notes"][agent] = f"x\n- [x] {purpose}", [f"[x] {purpose}"]
        for adapter in node["adapters"]:
            adapter.update(dataset=message, quality=f"x\n- [x] All nodes tested{message}")
            if adapter["test"]:
                adapter["test"]["device_name"] = device
            texts = {"engine": message, "version": device, "state": "wrong", "message": f"x\n- [x] {message}"}
            adapter["signed"] = {"signers": [message, device], "serial": 7, "expires": None}
            adapter["engines"] = [{**texts, "figure": None, "remedy": "", "held_back": True}]
    report["failures"][0].update(problem=f"failed:\n- [x] All nodes tested\n{message}", subject=message)
    text = as_markdown(report)
    # Lines as Markdown splits them, and as Python does.
    for lines in (text.split("\n"), text.splitlines()):
        assert [line for line in lines if line.startswith("- [")] == [f"- [ ] {box}" for box in BOXES]
    evidence = text.split("\n## Evidence\n")[1].split("\n## ")[0].strip().split("\n")
    assert {len(cells(line)) for line in evidence} == {9}
    engines = text.split("\n## Engines\n")[1].split("\n## ")[0].strip().split("\n")
    assert {len(cells(line)) for line in engines} == {6}
    signatures = text.split("\n## Signatures\n")[1].split("\n## ")[0].strip().split("\n")
    assert {len(cells(line)) for line in signatures} == {6}


def table(text: str, heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading, without the header."""
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0].strip()
    return [[cell.strip() for cell in cells(line)] for line in section.splitlines()[2:] if line.startswith("|")]


def test_as_markdown_says_by_whom_releases_are_signed() -> None:
    report = many(20)
    for node in report["nodes"][:19]:
        node["adapters"][0]["signed"] = SIGNED
    report["nodes"][3]["adapters"][0]["signed"] = UNSIGNED
    adapter = report["nodes"][0]["adapters"][0]
    text, about = as_markdown(report), [adapter["name"], adapter["release"]]
    assert table(text, "Signatures") == [
        ["gpu-[001:003], gpu-[005:019]", *about, "alice, bob", "7", "2026-11-29T12:00:00+00:00"],
        ["gpu-004", *about, "unsigned", "", ""],
    ]
    assert parse(text, "MANIFEST.md") == parse(as_markdown(many(20)), "MANIFEST.md")
    assert "## Signatures" not in as_markdown(many(20))


def test_as_markdown_of_many_equal_nodes_has_one_row_for_them() -> None:
    report = many(200)
    [adapter] = report["nodes"][0]["adapters"]
    report["nodes"][6]["adapters"][0]["test"]["level"] = "structure"
    text = as_markdown(report)
    [first, second] = table(text, "Evidence")
    assert first[:4] == ["describer", "gpu-[001:006], gpu-[008:200]", adapter["name"], adapter["release"]]
    assert first[-2:] == ["2026-11-22T12:00:00+00:00 to 2026-11-22T12:03:19+00:00", adapter["digest"]]
    assert (second[1], second[5], second[7]) == ("gpu-007", "structure", "2026-11-22T12:00:06+00:00")
    assert [row[:2] for row in table(text, "Engines")] == [["gpu-[001:200]", adapter["name"]]]
    assert len(parse(text, "MANIFEST.md").agents[0].hosts) == 200
    assert len(table(as_markdown(many(10)), "Evidence")) == 10


def test_as_markdown_node_that_copies_answers_of_others_hides_none_of_them() -> None:
    report = many(20)
    for node in report["nodes"][4:6]:
        node["adapters"][0].update(state="failed", release="0" * 12, engines=[])
    # As another node that failed, and with text that would end a cell of it.
    report["nodes"][7]["adapters"][0].update(state="failed", release="0" * 12)
    report["nodes"][8]["adapters"][0].update(state="failed", release=f"{'0' * 12} | failed", engines=[])
    rows = table(as_markdown(report), "Evidence")
    assert [(row[1], row[3]) for row in rows if row[4] == "failed"] == [
        ("gpu-005, gpu-006, gpu-008", "0" * 12), ("gpu-009", f"{'0' * 12} \\| failed"),
    ]  # fmt: skip
