# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module adapter_up_to_date_info in this process."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.acceptance import record_accepted
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.serials import Accepted
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import read_statement

from tests.support.loaded_modules import loaded_by_module
from tests.support.opened_files import opened_by
from tests.support.served import Served
from tests.support.signing import NOW, Keys, offered

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
                "signed": None,
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


@pytest.mark.parametrize("part", ["_engines", "_golden", "_load_test.child", "_load_test.worker", "_formats.safetensors"])
def test_module_loads_no_part_until_it_needs_it(part: str) -> None:
    """It would cost time on every node, although most need none of these parts."""
    assert [name for name in loaded_by_module("adapter_up_to_date_info") if f".{part}" in name] == []


def test_verdicts_open_no_further_file(run: Run) -> None:
    engines = ["vllm", {"name": "openvino", "alpha": 2, "version": "2026.4.1.0"}]
    # The first run imports the rules.
    run(engines=engines)
    assert opened_by(lambda: run(engines=engines)) == opened_by(run)


@pytest.mark.usefixtures("trusting")
def test_up_to_date_is_release_that_was_accepted_as_it_is_signed(node: Served, run: Run, keys: Keys) -> None:
    signed = offered(keys, node.manifest, 7)
    refused = run(signed=[signed])
    assert refused["reasons"] == [
        f"adapter {node.manifest.name}, release {node.manifest.release}: this node has not accepted it as it is signed now."
    ]
    assert refused["adapters"] == []
    assert "this node has not accepted it" in run()["reasons"][0]
    statement = read_statement(signed["statement"].encode())
    record_accepted(node.paths.accepted, Accepted(statement, {"alice": signed["signatures"][0]}, NOW), [])
    done = run(signed=[signed])
    assert done["up_to_date"]
    expires = statement.expires.isoformat()
    assert [adapter["signed"] for adapter in done["adapters"]] == [{"signers": ["alice"], "serial": 7, "expires": expires}]
    assert run()["up_to_date"]
    # With a higher serial, it has to be recorded again.
    assert not run(signed=[offered(keys, node.manifest, 8)])["up_to_date"]
