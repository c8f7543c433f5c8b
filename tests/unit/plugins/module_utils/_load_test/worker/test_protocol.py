# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The facts of a load test: one definition, and their documentation."""

from __future__ import annotations

import dataclasses
import json

import pytest
import yaml
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import (
    Failure,
    LoadTestResult,
    OpenedDevice,
    Recording,
    Report,
    Request,
    RunError,
    RunResult,
    Target,
)
from ansible_collections.lorafleet.delivery.plugins.modules import adapter_load_test

from tests.support.paths import CHECKOUT

FACTS = [field.name for field in dataclasses.fields(LoadTestResult)]


@pytest.mark.parametrize("fact", FACTS)
def test_fact_is_documented_in_module_and_report_schema(fact: str) -> None:
    module = yaml.safe_load(adapter_load_test.RETURN)["adapters"]["contains"]
    schema = json.loads((CHECKOUT / "docs" / "report.schema.json").read_text(encoding="utf-8"))["$defs"]
    assert fact in module
    assert fact in schema["test"]["properties"]
    assert fact in schema["complete"]["properties"]["test"]["required"]


def test_request_json_round_trip() -> None:
    recording = Recording(["a prompt"], length=16, top=20)
    target = Target("a", "/a", "adapter_model.safetensors", "model", None, "/base", False, recording=recording)
    request = Request("cpu", ("torch",), (target, dataclasses.replace(target, recording=None)), memory_limit=1)
    assert Request.from_json(json.loads(json.dumps(dataclasses.asdict(request)))) == request


@pytest.mark.parametrize("error", [None, RunError("cuda", "no GPU")])
def test_run_result_json_round_trip(error: RunError | None) -> None:
    report = Report(LoadTestResult(level="model"), True, [Failure("a problem.", "A remedy.")], warnings=["a warning"])
    result = RunResult({"a": report}, "b", error, OpenedDevice("cpu", None, 1), 1.5)
    assert RunResult.from_json(json.loads(json.dumps(dataclasses.asdict(result)))) == result
