# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of a preflight, for few and for many hosts."""

from __future__ import annotations

import re

from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.preflight import (
    Preflight,
    as_preflight,
    preflight_lines,
)
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.run import Data

RSYNC = {"check": "rsync", "state": "ok", "found": "version 3.2.7", "remedy": ""}
SPACE = {"check": "free space", "state": "ok", "found": "97 GB", "remedy": ""}
NO_RSYNC = {"check": "rsync", "state": "failed", "found": "is not installed.", "remedy": "Install rsync."}
OLD_TORCH = {"check": "versions", "state": "warning", "found": "torch 2.0\nis old.", "remedy": "Update it."}
NOT_ASKED = {"check": "device", "state": "unknown", "found": "There is no interpreter.", "remedy": ""}


def preflight(**hosts: list[Data]) -> Preflight:
    made = Preflight()
    for host, checks in hosts.items():
        made.add(host, checks)
    return made


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line)


def test_as_preflight_of_few_hosts_has_all_checks_of_all_hosts() -> None:
    found = preflight(jw3=[RSYNC, SPACE], jw2=[NO_RSYNC, SPACE, OLD_TORCH, NOT_ASKED], sbs29=[RSYNC])
    lines = as_preflight(found.in_order(["jw2", "jw3"]))
    assert [cells(line) for line, _state in lines] == [
        ["host", "check", "state", "found"],
        ["sbs29", "rsync", "ok", "version 3.2.7"],
        ["jw2", "rsync", "failed", "is not installed."],
        ["jw2", "free space", "ok", "97 GB"],
        ["jw2", "versions", "warning", "torch 2.0 is old."],
        ["jw2", "device", "unknown", "There is no interpreter."],
        ["jw3", "rsync", "ok", "version 3.2.7"],
        ["jw3", "free space", "ok", "97 GB"],
    ]
    assert [state for _line, state in lines[:4]] == ["", "ok", "failed", "ok"]
    starts = {line.index(cell) for line, _state in lines for cell in cells(line)[-1:]}
    assert len(starts) == 1


def test_as_preflight_of_many_hosts_has_one_line_for_those_that_are_ready() -> None:
    nodes = [f"gpu-{number:03}" for number in range(200)]
    found = preflight(**{node: [RSYNC, SPACE] for node in nodes})
    found.hosts["gpu-007"] = [RSYNC, SPACE, NO_RSYNC]
    lines = [cells(line) for line, _state in as_preflight(found.in_order(nodes))]
    assert lines[1:] == [
        ["gpu-[000:006], gpu-[008:199]", "2 checks", "ok"],
        ["gpu-007", "rsync", "failed", "is not installed."],
        ["gpu-007", "2 other checks", "ok"],
    ]


def test_as_preflight_long_list_of_hosts_is_below_their_lines() -> None:
    nodes = [f"gpu-{number:03}" for number in range(40)]
    found = preflight(**{node: [RSYNC, NO_RSYNC if number % 2 else SPACE] for number, node in enumerate(nodes)})
    lines = [line for line, _state in as_preflight(found.in_order(nodes), 80)]
    assert [cells(line)[0] for line in lines if line.startswith("20 hosts")] == ["20 hosts"] * 3
    assert max(map(len, lines)) <= 80
    assert all(f" {node}" in " ".join(lines) for node in nodes)


def test_as_preflight_on_terminal_fits_its_width() -> None:
    long = {**NO_RSYNC, "found": "is not installed. " * 20}
    found = preflight(jw2=[long, RSYNC])
    assert max(len(line) for line, _state in as_preflight(found.hosts, 60)) == 60
    assert " ".join(long["found"].split()) in preflight_lines(found.hosts)[0][0]


def test_preflight_lines_have_what_is_wrong_and_the_remedy() -> None:
    found = preflight(jw2=[OLD_TORCH, NO_RSYNC], jw3=[NO_RSYNC], jw4=[RSYNC], jw5=[NO_RSYNC], jw6=[NO_RSYNC])
    assert preflight_lines(found.hosts) == [
        ("jw2, jw3, jw5, jw6: rsync: is not installed. Install rsync.", "failed"),
        ("Warning: jw2: versions: torch 2.0 is old. Update it.", "warning"),
        ("Ready for a delivery: 1 of 5 hosts. Not ready: jw2, jw3, jw5, jw6.", "failed"),
    ]


def test_preflight_lines_of_ready_hosts_say_so() -> None:
    assert preflight_lines(preflight(jw2=[OLD_TORCH], jw3=[RSYNC]).hosts)[1:] == [("Ready for a delivery: 2 of 2 hosts.", "ok")]


def test_add_checks_of_another_request_keeps_problems_and_replaces_the_rest() -> None:
    first = {"check": "adapter a", "state": "ok", "found": "16", "remedy": ""}
    second = {"check": "adapter b", "state": "ok", "found": "32", "remedy": ""}
    found = preflight(sbs29=[NO_RSYNC, SPACE, first])
    found.add("sbs29", [RSYNC, {**SPACE, "found": "96 GB"}, second])
    assert found.hosts["sbs29"] == [NO_RSYNC, first, {**SPACE, "found": "96 GB"}, second]
    found.add("sbs29", [NO_RSYNC])
    assert found.hosts["sbs29"].count(NO_RSYNC) == 1


def test_fail_host_is_a_row_and_not_ready() -> None:
    found = preflight(jw3=[RSYNC])
    found.fail("jw2", "Connection refused.", unreachable=True)
    [row] = [cells(line) for line, state in as_preflight(found.hosts) if state == "failed"]
    assert row == ["jw2", "connection", "failed", "Connection refused."]
    assert preflight_lines(found.hosts)[-1][0] == "Ready for a delivery: 1 of 2 hosts. Not ready: jw2."
