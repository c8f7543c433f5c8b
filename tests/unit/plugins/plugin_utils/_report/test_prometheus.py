# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""lorafleet.prom, read by the official Prometheus client."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.prometheus import as_prometheus
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.support.reports import NAMES, SIGNED, UNSIGNED, load


def samples(text: str) -> dict[str, list[t.Any]]:
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        assert {sample.name for sample in family.samples} == {family.name}
        # The collector rejects the whole file when two samples have the same labels.
        labels = [tuple(sorted(sample.labels.items())) for sample in family.samples]
        assert len(labels) == len(set(labels))
        assert family.name not in found
        found[family.name] = family.samples
    return found


@pytest.mark.parametrize("name", NAMES)
def test_as_prometheus_recorded_reports_parse_with_the_client(name: str) -> None:
    report = load(name)
    found = samples(as_prometheus(report))
    covered = [(node, adapter) for node in report["nodes"] for adapter in node["adapters"] if adapter["state"] != "not_selected"]
    verified = {(sample.labels["node"], sample.labels["adapter"]): sample.value for sample in found["lorafleet_adapter_verified"]}
    assert verified == {(node["node"], adapter["name"]): float(adapter["verified"]) for node, adapter in covered}
    assert [sample.labels["release"] for sample in found["lorafleet_adapter_info"]] == [
        adapter["release"] or "" for _node, adapter in covered
    ]
    [failures] = found["lorafleet_run_failures"]
    assert (failures.labels["kind"], failures.value) == (report["kind"], len(report["failures"]))


def test_as_prometheus_values_keep_full_precision() -> None:
    report = load("deployed")
    found = samples(as_prometheus(report))
    node = report["nodes"][0]
    steps = {s.labels["step"]: s.value for s in found["lorafleet_step_duration_seconds"] if s.labels["node"] == node["node"]}
    assert steps == node["seconds"]
    assert found["lorafleet_adapter_effect_ratio"][0].value == node["adapters"][0]["test"]["effect"]
    assert found["lorafleet_adapter_golden_distance_permitted"][0].value == 0.12


def test_as_prometheus_engines_of_same_name_and_version_are_one_sample() -> None:
    report = load("deployed")
    adapter = report["nodes"][0]["adapters"][0]
    [right] = adapter["engines"]
    adapter["engines"] = [right, {**right, "version": None, "state": "unknown"}, right]
    labels = [sample.labels for sample in samples(as_prometheus(report))["lorafleet_adapter_engine_verdict"]]
    assert [(one["engine"], one["version"], one["state"]) for one in labels if one["adapter"] == adapter["name"]] == [
        ("vllm", "", "unknown"),
        ("vllm", "0.32.0", "right"),
    ]


def test_as_prometheus_has_what_each_engine_serves() -> None:
    report = load("deployed")
    adapter = report["nodes"][0]["adapters"][0]
    adapter["serving"] = [{"engine": "vllm", "url": "http://127.0.0.1:8000", "state": "behind", "release": None, "why": "Old."}]
    [sample] = samples(as_prometheus(report))["lorafleet_adapter_serving"]
    assert (sample.labels["state"], sample.labels["release"], sample.labels["adapter"]) == ("behind", "", adapter["name"])


def test_as_prometheus_has_when_statements_expire() -> None:
    report = load("deployed")
    name = "lorafleet_adapter_signature_expires_timestamp_seconds"
    assert name not in samples(as_prometheus(report))
    first, second = report["nodes"][0]["adapters"]
    first["signed"], second["signed"] = SIGNED, UNSIGNED
    [sample] = samples(as_prometheus(report))[name]
    assert (sample.value, sample.labels["adapter"]) == (1795953600.0, first["name"])


def test_as_prometheus_unfinished_run_has_no_end() -> None:
    report = {**load("deployed"), "ended": None}
    assert "lorafleet_run_end_timestamp_seconds" not in samples(as_prometheus(report))


@given(st.text(max_size=20))
def test_as_prometheus_any_label_is_escaped(text: str) -> None:
    report = load("deployed")
    report["nodes"][0]["adapters"][0]["agent"] = text
    found = samples(as_prometheus(report))
    assert found["lorafleet_adapter_verified"][0].labels["agent"] == text
