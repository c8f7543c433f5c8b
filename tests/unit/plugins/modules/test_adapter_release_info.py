# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and results of adapter_release_info; test_release_info.py tests the comparison."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.acceptance import record_accepted
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.serials import Accepted
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import read_statement
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import read_state

from tests.support.releases import NAME, WEIGHTS, manifest_of, release_of, write_version
from tests.support.served import Served
from tests.support.signing import NOW, Keys, offered, signer_line, write_trust
from tests.support.transactions import Node

from .conftest import Result, RunModule


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    base = tmp_path / "node"
    base.mkdir()
    return Node(base)


@pytest.fixture
def run(node: Node, run_module: RunModule) -> RunModule:
    """Return a function that runs the module on the node."""

    def run(check_mode: bool = False, **options: t.Any) -> Result:
        options = {"names": [NAME], "models_dir": str(node.models), "store": str(node.store), **options}
        return run_module("adapter_release_info", options, check_mode)

    return run


def info_of(node: Node, version: int) -> Result:
    """The whole result for a node that serves this version, with nothing that differs."""
    manifest, release = manifest_of(version), release_of(version)
    receipt = json.loads(pathlib.Path(node.paths.receipt(release)).read_text(encoding="utf-8"))
    [activation] = read_state(node.paths).history
    return {
        "changed": False,
        "adapters": [
            {
                "name": NAME,
                "release": release,
                "digest": manifest.digest,
                "size": sum(entry.size for entry in manifest.files),
                "files": [{"path": entry.path, "size": entry.size, "sha256": entry.sha256} for entry in manifest.files],
                "made_of": None,
                "previous": None,
                "since": activation.at,
                "activation": "exchange",
                "history": [{"release": release, "at": activation.at}],
                "receipt": receipt,
                "signed": None,
                "engines": [],
                "differences": [],
            }
        ],
        "active": [NAME],
        "differences": [],
        "others": [],
        "summary": {NAME: [f"release {release} active since {activation.at}", f"level model on cpu verified {receipt['at']}"]},
    }


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("check_mode", [True, False])
def test_adapter_release_info_returns_active_release(node: Node, run: RunModule, content: bool, check_mode: bool) -> None:
    node.deploy(1)
    before = node.snapshot()
    assert run(check_mode=check_mode, content=content) == info_of(node, 1)
    assert node.snapshot() == before


def test_adapter_release_info_hashes_content_by_default(node: Node, run: RunModule) -> None:
    node.deploy(1)
    weights = node.served / WEIGHTS
    weights.write_bytes(weights.read_bytes()[::-1])
    weights.chmod(0o600)
    assert run(content=False) == info_of(node, 1)
    found = run()
    [adapter] = found["adapters"]
    changed, mode = adapter["differences"]
    assert changed.startswith(f"changed  {weights}  sha256 ")
    assert mode == f"mode     {weights}  0600 instead of 0644"
    assert found["differences"] == [f"{NAME}: {changed}", f"{NAME}: {mode}"]
    assert found["summary"][NAME][2:] == [changed, mode]


def test_adapter_release_info_of_lower_level_is_difference(node: Node, run: RunModule) -> None:
    node.deploy(1)
    assert run(required_level="model") == info_of(node, 1)
    assert run(required_level="golden")["differences"] == [f"{NAME}: lower    verified at level model, level golden is required"]


def test_adapter_release_info_lists_unexpected_adapters(node: Node, run: RunModule) -> None:
    node.deploy(1)
    write_version(node.models / "by_hand", 1)
    found = run()
    assert found["others"] == ["by_hand"]
    assert found["summary"]["by_hand"] == ["extra    not expected on this node"]
    assert run(expected=[NAME, "by_hand"]) == info_of(node, 1)


@pytest.mark.parametrize(
    ("options", "subject", "problem"),
    [
        ({"names": ["../x"]}, "adapter '../x'", "is not a valid name."),
        ({"file_mode": "rw"}, "file_mode", "is 'rw'."),
    ],
)
def test_adapter_release_info_with_bad_option_fails(run: RunModule, options: Result, subject: str, problem: str) -> None:
    failed = run(**options)
    [found] = failed["problems"]
    assert (found["adapter"], found["subject"], found["problem"]) == (None, subject, problem)
    assert failed == {"failed": True, "msg": f"{subject}: {problem} {found['remedy']}", "problems": [found]}


def test_adapter_release_info_without_read_permission_fails(node: Node, run: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.listdir", denied)
    assert run() == {
        "failed": True,
        "msg": f"{node.models}: cannot be read: Permission denied. Run with become.",
        "problems": [
            {
                "adapter": None,
                "subject": str(node.models),
                "problem": "cannot be read: Permission denied.",
                "remedy": "Run with become.",
            }
        ],
    }


@pytest.fixture
def served(tmp_path: pathlib.Path, tiny: pathlib.Path, declare: t.Callable[..., t.Any]) -> Served:
    """A node with an adapter that PEFT saved, whose factor is 2."""
    return Served(tmp_path, tiny, declare())


@pytest.mark.parametrize("content", [True, False])
def test_adapter_release_info_returns_verdicts_of_engines(served: Served, run_module: RunModule, content: bool) -> None:
    options = {"names": ["adapter"], "models_dir": str(served.models), "store": str(served.store), "content": content}
    result = run_module("adapter_release_info", {**options, "engines": ["vllm", "openvino"]})
    [adapter] = result["adapters"]
    assert [(verdict["engine"], verdict["state"], verdict["held_back"]) for verdict in adapter["engines"]] == [
        ("vllm", "right", False),
        ("openvino_genai", "wrong", True),
    ]
    right, wrong = result["summary"]["adapter"][-2:]
    assert right == "engine vllm right"
    assert wrong.startswith("engine openvino_genai wrong: OpenVINO GenAI does not read adapter_config.json")
    # The node serves what was verified.
    assert (adapter["differences"], result["differences"]) == ([], [])
    # A status shows its summary, an audit does not.
    assert [warning.partition(": ")[0] for warning in result.get("warnings", ())] == [
        "adapter adapter, engine openvino_genai"
    ] * content


def test_adapter_release_info_with_unknown_engine_fails(run: RunModule) -> None:
    assert run(engines="vlm")["msg"].startswith("engines: names engine vlm, which has no rules.")


def test_adapter_release_info_of_adapter_that_is_not_active_has_no_verdict(run: RunModule) -> None:
    assert run(engines="vllm")["adapters"][0]["engines"] == []


def accept(node: Node, keys: Keys, version: int) -> Accepted:
    """Record that the node has accepted a version."""
    signed = offered(keys, manifest_of(version), 7)
    accepted = Accepted(read_statement(signed["statement"].encode()), {"alice": signed["signatures"][0]}, NOW)
    record_accepted(node.paths.accepted, accepted, [])
    return accepted


@pytest.mark.usefixtures("trusting")
def test_adapter_release_info_returns_by_whom_the_release_is_signed(node: Node, run: RunModule, keys: Keys) -> None:
    node.deploy(1)
    expires = accept(node, keys, 1).statement.expires.isoformat()
    found = run()
    assert found["adapters"][0]["signed"] == {"signers": ["alice"], "serial": 7, "expires": expires}
    assert found["differences"] == []
    assert f"signed by alice, serial 7, until {expires}" in found["summary"][NAME]


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("content", [True, False])
def test_adapter_release_info_before_the_statement_expires_says_so(node: Node, run: RunModule, keys: Keys, content: bool) -> None:
    node.deploy(1)
    expires = accept(node, keys, 1).statement.expires.date().isoformat()
    found = run(content=content)
    note = f"its statement expires on {expires}; after that, no node begins to serve this release."
    note += " Renew it with playbooks/sign.yml."
    assert found["summary"][NAME][-1] == note
    assert found.get("warnings", []) == ([f"adapter {NAME}: {note}"] if content else [])
    assert found["differences"] == []


@pytest.mark.usefixtures("trusting")
def test_adapter_release_info_of_unsigned_release_where_none_is_required_says_so(
    node: Node, run: RunModule, keys: Keys, tmp_path: pathlib.Path
) -> None:
    write_trust(tmp_path / "etc", signer_line("alice", keys.public("alice")), required=False)
    node.deploy(1)
    found = run()
    assert found["adapters"][0]["signed"] == {"signers": [], "serial": None, "expires": None}
    assert (found["differences"], found["summary"][NAME][-1]) == ([], "unsigned")


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("content", [True, False])
def test_adapter_release_info_of_release_that_was_not_accepted_is_difference(node: Node, run: RunModule, content: bool) -> None:
    node.deploy(1)
    found = run(content=content)
    assert found["adapters"][0]["signed"]["signers"] == []
    [difference] = found["differences"]
    assert f"release {release_of(1)} was never accepted as signed on this node" in difference


@pytest.mark.usefixtures("trusting")
def test_adapter_release_info_of_release_by_revoked_key_is_difference(
    node: Node, run: RunModule, keys: Keys, tmp_path: pathlib.Path
) -> None:
    node.deploy(1)
    accept(node, keys, 1)
    write_trust(tmp_path / "etc", signer_line("bob", keys.public("bob")), f"{keys.public('alice')}\n".encode())
    found = run()
    assert found["adapters"][0]["signed"]["signers"] == ["alice"]
    assert "was signed with a key of alice that is revoked now" in found["differences"][0]


@pytest.mark.usefixtures("trusting")
def test_adapter_release_info_with_damaged_record_is_difference(node: Node, run: RunModule) -> None:
    node.deploy(1)
    pathlib.Path(node.paths.accepted).write_text("{", encoding="utf-8")
    assert "accepted.json: cannot be read" in run()["differences"][0]
