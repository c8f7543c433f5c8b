# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module adapter_up_to_date_info in this process."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from tests.support.opened_files import opened_by
from tests.support.paths import CHECKOUT
from tests.support.served import Served

Run = t.Callable[..., t.Dict[str, t.Any]]


@pytest.fixture
def node(tmp_path: pathlib.Path, tiny: pathlib.Path, declare: t.Callable[..., t.Any]) -> Served:
    return Served(tmp_path, tiny, declare())


@pytest.fixture
def run(node: Served, run_module: Run) -> Run:
    """Return a function that runs the module on the node with changed options."""

    def run(**changes: t.Any) -> dict[str, t.Any]:
        options = {key: value for key, value in {**node.params, **changes}.items() if value is not None}
        return run_module("adapter_up_to_date_info", options)

    return run


def test_up_to_date_node_returns_whole_result(node: Served, run: Run) -> None:
    result = run()
    (adapter,) = result["adapters"]
    receipt, history = adapter.pop("receipt"), adapter.pop("history")
    assert (receipt["level"], receipt["release"]) == ("structure", node.manifest.release)
    assert [entry["release"] for entry in history] == [node.manifest.release]
    assert result == {
        "changed": False,
        "up_to_date": True,
        "reasons": [],
        "adapters": [
            {
                "name": node.manifest.name,
                "release": node.manifest.release,
                "required_level": "structure",
                **node.manifest.content(),
                "previous": None,
                "activation": "exchange",
                "path": node.paths.release(node.manifest.release),
                "engines": [],
            }
        ],
    }


def test_node_without_receipt_returns_reason(node: Served, run: Run) -> None:
    os.unlink(node.paths.receipt(node.manifest.release))
    assert run() == {
        "changed": False,
        "up_to_date": False,
        "reasons": ["adapter adapter: no valid receipt for level structure on this node."],
        "adapters": [],
    }


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "tpu"}, "device is tpu: expected cpu, cuda, or cuda: and a number."),
        ({"keep": 0}, "keep: is 0."),
        ({"user": "no-such-user"}, "user no-such-user: does not exist on this host."),
        ({"engines": "vlm"}, "engines: names engine vlm, which has no rules."),
    ],
)
def test_invalid_options_are_reasons(run: Run, options: dict[str, t.Any], reason: str) -> None:
    result = run(**options)
    assert (result["up_to_date"], len(result["reasons"])) == (False, 1)
    assert result["reasons"][0].startswith(reason)


def test_up_to_date_node_returns_verdicts_of_its_engines(run: Run) -> None:
    result = run(engines=["vllm", {"name": "openvino", "alpha": 2}])
    assert result["up_to_date"]
    [adapter] = result["adapters"]
    assert [(verdict["engine"], verdict["state"]) for verdict in adapter["engines"]] == [
        ("vllm", "right"),
        ("openvino_genai", "right"),
    ]


def test_node_whose_engine_answers_wrongly_is_not_up_to_date(node: Served, run: Run) -> None:
    before = node.snapshot()
    result = run(engines=["vllm", "openvino"])
    assert (result["up_to_date"], result["adapters"]) == (False, [])
    [reason] = result["reasons"]
    assert reason.startswith("adapter adapter, engine openvino_genai: OpenVINO GenAI does not read adapter_config.json")
    assert "warnings" not in result
    assert node.snapshot() == before


def test_node_whose_engine_is_only_reported_is_up_to_date_with_a_warning(node: Served, run: Run) -> None:
    result = run(engines="openvino", engine_policy="report")
    assert (result["up_to_date"], result["reasons"]) == (True, [])
    [warning] = result["warnings"]
    assert warning.startswith("adapter adapter, engine openvino_genai: ")
    assert [verdict["held_back"] for verdict in result["adapters"][0]["engines"]] == [False]
    os.unlink(node.paths.receipt(node.manifest.release))
    # adapter_sync gives the warning then.
    assert "warnings" not in run(engines="openvino", engine_policy="report")


def test_module_loads_no_rules_of_engines_until_it_needs_them() -> None:
    """They would cost time on every node, although most name no engine."""
    module = "ansible_collections.lorafleet.delivery.plugins.modules.adapter_up_to_date_info"
    code = f"import sys, {module}; print([name for name in sys.modules if '_engines' in name])"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / ".collections")}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout == "[]\n"


def test_verdicts_open_no_further_file(run: Run) -> None:
    engines = ["vllm", {"name": "openvino", "alpha": 2, "version": "2026.4.1.0"}]
    # The first run imports the rules.
    run(engines=engines)
    assert opened_by(lambda: run(engines=engines)) == opened_by(run)
