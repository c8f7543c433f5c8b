# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page on scale: its model agrees with what was measured, and its tables with the model."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing as t

import pytest

from tests.benchmarks import fleet_model as model
from tests.support.paths import CHECKOUT

TEXT = (CHECKOUT / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("one", model.TRANSFERS, ids=lambda one: f"{one.way}-{one.nodes}")
def test_transfer_seconds_measured_point_is_within_a_tenth(one: model.Measured) -> None:
    assert model.transfer_seconds(one.way, one.nodes, one.size, one.site) == pytest.approx(one.seconds, rel=0.1)


@pytest.mark.parametrize("one", [one for one in model.TRANSFERS if one.copies and not one.site.shared], ids=str)
def test_copies_sent_measured_point_is_within_a_tenth(one: model.Measured) -> None:
    assert model.copies_sent(one.way, one.nodes) == pytest.approx(one.copies, rel=0.1)


def test_transfers_of_the_benchmark_are_those_that_it_recorded() -> None:
    tables = json.loads((CHECKOUT / "docs" / "benchmarks.json").read_text(encoding="utf-8"))
    [rows] = [table["rows"] for table in tables if table["title"] == "Ways of transfer"]
    recorded = {(row["way"], row["nodes"]): row for row in rows}
    for one in model.BENCHMARK:
        row = recorded[one.way, one.nodes]
        found = (row["MB"], row["Mbit/s"], row["seconds to all"])
        assert (one.size, one.site.node, one.seconds) == pytest.approx(found, rel=0.005)
        assert one.copies in (None, pytest.approx(row["copies from the source"], rel=0.005))


@pytest.mark.parametrize(("nodes", "cpu", "elapsed"), model.DEPLOYS)
def test_deploy_measured_point_is_within_a_sixth(nodes: int, cpu: float, elapsed: float) -> None:
    assert model.deploy_cpu(nodes) == pytest.approx(cpu, rel=1 / 6)
    assert model.deploy_seconds_together(nodes) == pytest.approx(elapsed, rel=1 / 6)


def test_deploys_are_those_of_the_benchmark() -> None:
    text = (CHECKOUT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for nodes, cpu, elapsed in model.DEPLOYS:
        assert re.search(rf"^\| {nodes} \| [\d.]+ \| {cpu} \| [\d.]+ \| [\d.]+ \| {elapsed} \|", text, re.MULTILINE)


def test_transfer_seconds_the_narrowest_link_decides() -> None:
    site = model.Site(controller=1000, source=1000, node=1000)
    for way, narrow, longer in (
        (model.RELAY, {"controller": 10}, True),
        (model.DIRECT, {"controller": 10}, False),
        (model.SWARM, {"controller": 10}, False),
        (model.RELAY, {"source": 10}, True),
        (model.DIRECT, {"source": 10}, True),
        (model.SWARM, {"node": 10}, True),
    ):
        links: dict[str, t.Any] = {**narrow}
        before = model.transfer_seconds(way, 16, 700, site)
        after = model.transfer_seconds(way, 16, 700, dataclasses.replace(site, **links))
        assert (after > 2 * before) == longer, (way, narrow)
    # A source with a wide link serves as many slow nodes at a time as it has slots.
    slow = model.Site(controller=10_000, source=10_000, node=100)
    few, many = (model.transfer_seconds(model.DIRECT, 20, 700, slow, streams=streams) for streams in (10, 20))
    assert few == pytest.approx(2 * many)


def test_transfer_seconds_only_a_swarm_hardly_grows_with_the_nodes() -> None:
    site = model.Site(controller=1000, source=1000, node=1000)
    for way, most in ((model.RELAY, math.inf), (model.DIRECT, math.inf), (model.SWARM, 2.0)):
        ratio = model.transfer_seconds(way, 500, 700, site) / model.transfer_seconds(way, 8, 700, site)
        assert 1 < ratio <= most
        assert way == model.SWARM or ratio > 50


def test_ansible_seconds_the_narrowest_limit_decides() -> None:
    assert model.ansible_seconds(200, 20, 8, 40) == pytest.approx(model.START + 10 * 40)
    assert model.ansible_seconds(200, 200, 1, 1) == pytest.approx(model.START + 200 * model.NODE / 2)
    assert model.ansible_seconds(2000, 2000, 64, 1) == pytest.approx(model.START + 2000 * model.MAIN)


@pytest.mark.parametrize("table", [model.measured_table, model.transfer_table, model.ansible_table])
def test_scale_page_has_the_tables_of_the_model(table: t.Callable[[], list[list[str]]]) -> None:
    assert model.markdown(table()) in TEXT
