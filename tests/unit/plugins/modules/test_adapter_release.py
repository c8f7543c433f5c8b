# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and results of adapter_release; test_transaction.py tests the transaction itself."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.serials import read_record
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import read_state

from tests.support import releases
from tests.support.releases import NAME, WEIGHTS, manifest_of, release_of, stage, version_at
from tests.support.signing import Keys, offered
from tests.support.transactions import Node

from .conftest import Result, RunModule


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    (tmp_path / "node").mkdir()
    return Node(tmp_path / "node")


@pytest.fixture
def run(node: Node, run_module: RunModule) -> RunModule:
    """Return a function that runs the module on the node."""

    def run(check_mode: bool = False, verbosity: int = 0, **options: t.Any) -> Result:
        options.update(models_dir=str(node.models), store=str(node.store))
        return run_module("adapter_release", options, check_mode, verbosity=verbosity)

    return run


def adapter_of(node: Node, version: int, action: str, **more: t.Any) -> Result:
    """One entry of ``adapters``."""
    manifest = manifest_of(version, node.paths.name)
    state = read_state(node.paths)
    return {
        "name": node.paths.name,
        "release": manifest.release,
        "digest": manifest.digest,
        "size": sum(entry.size for entry in manifest.files),
        "files": [{"path": entry.path, "size": entry.size, "sha256": entry.sha256} for entry in manifest.files],
        "made_of": None,
        "previous": None,
        "history": [{"release": entry.release, "at": entry.at} for entry in state.history],
        "action": action,
        "activation": "exchange",
        "path": str(node.release(version)),
        "served": node.paths.served,
        "signed": None,
        "engines": [],
        "receipt": json.loads(pathlib.Path(node.paths.receipt(manifest.release)).read_text(encoding="utf-8")),
        "adopted": None,
        "pruned": [],
        "drift": [],
        **more,
    }


def untimed(result: Result) -> Result:
    """The result without the times of activations, which cannot be predicted."""
    adapters = [{**adapter, "history": [entry["release"] for entry in adapter["history"]]} for adapter in result["adapters"]]
    return {**result, "adapters": adapters}


def test_adapter_release_activates_staged_release(node: Node, run: RunModule) -> None:
    manifest = stage(node.paths, 1)
    options: Result = {"manifests": [manifest.to_text()], "required_level": "model", "run": "the test"}
    staged = node.snapshot()
    predicted = run(check_mode=True, **options)
    assert node.snapshot() == staged

    done = run(**options)
    assert done == {"changed": True, "adapters": [adapter_of(node, 1, "activated")], "diff": done["diff"]}
    assert untimed(done) == untimed(predicted)
    [diff] = done["diff"]
    assert (diff["before_header"], diff["after"]["rank"]) == (f"active release of {NAME}", 16)
    assert version_at(node.served) == version_at(node.release(1)) == 1


def test_adapter_release_of_active_release_changes_nothing(node: Node, run: RunModule) -> None:
    node.deploy(1)
    active = node.snapshot()
    for check_mode in (True, False):
        again = run(manifests=[manifest_of(1).to_text()], check_mode=check_mode)
        assert again == {"changed": False, "adapters": [adapter_of(node, 1, "unchanged")], "diff": again["diff"]}
        assert again["diff"][0]["before"] == again["diff"][0]["after"]
        assert node.snapshot() == active


def test_adapter_release_diff_lists_tensors_with_verbosity(node: Node, run: RunModule) -> None:
    node.deploy(1)
    manifest = stage(node.paths, 2)
    short, long = (run(manifests=[manifest.to_text()], check_mode=True, verbosity=number)["diff"][0] for number in (0, 2))
    assert len(json.dumps(long)) > len(json.dumps(short))


def test_adapter_release_rolls_back_without_manifests(node: Node, run: RunModule) -> None:
    node.deploy(1)
    node.deploy(2)
    done = run(state="rolled_back", names=[NAME])
    expected = adapter_of(node, 1, "rolled_back", previous=release_of(2))
    assert done == {"changed": True, "adapters": [expected], "diff": done["diff"]}
    assert version_at(node.served) == 1
    named: Result = {"state": "rolled_back", "names": [NAME], "release": release_of(2)}
    assert run(**named)["changed"]
    assert not run(**named)["changed"]
    assert version_at(node.served) == 2


@pytest.mark.parametrize("check_mode", [True, False])
def test_adapter_release_rollback_for_engine_that_misreads_the_release_fails(
    node: Node, run: RunModule, check_mode: bool
) -> None:
    node.deploy(1)
    node.deploy(2)
    before = node.snapshot()
    # Its tensors have names that PEFT ignores, unlike llama.cpp.
    done = run(state="rolled_back", names=[NAME], engines=["openvino_genai", "llama.cpp"], check_mode=check_mode)
    assert (done["changed"], done["adapters"]) == (False, [])
    [problem] = done["problems"]
    assert (problem["adapter"], problem["subject"]) == (NAME, f"adapter {NAME}, engine llama_cpp")
    assert problem["remedy"].endswith(" To roll back to it nevertheless, set engine_policy to report.")
    assert node.snapshot() == before


def test_adapter_release_rollback_reports_what_the_engines_make_of_the_release(node: Node, run: RunModule) -> None:
    node.deploy(1)
    node.deploy(2)
    options: Result = {"state": "rolled_back", "names": [NAME]}
    done = run(**options, engines="llama.cpp", engine_policy="report")
    [warning] = done["warnings"]
    assert warning.startswith(f"adapter {NAME}, engine llama_cpp: llama.cpp applies the tensors")
    [adapter] = done["adapters"]
    assert (adapter["action"], adapter["release"]) == ("rolled_back", release_of(1))
    assert [(one["state"], one["held_back"]) for one in adapter["engines"]] == [("wrong", False)]
    # Nobody has examined that version, so it is a note.
    done = run(**options, engines={"name": "llama.cpp", "version": "99"})
    [adapter] = done["adapters"]
    assert (adapter["release"], "warnings" in done) == (release_of(2), False)
    assert [one["state"] for one in adapter["engines"]] == ["unknown"]


def test_adapter_release_rollback_for_engine_that_is_not_installed_warns(node: Node, run: RunModule) -> None:
    node.deploy(1)
    node.deploy(2)
    done = run(state="rolled_back", names=[NAME], engines={"name": "openvino_genai", "python": "/nowhere/python"})
    assert done["warnings"][0].startswith("engine openvino_genai: /nowhere/python has no package openvino-genai")


def test_adapter_release_rollback_judges_the_release_on_the_base_of_the_node(
    node: Node, run: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "config_of", lambda version: {"r": version, "base_model_name_or_path": "tiny"})
    node.deploy(1)
    node.deploy(2)
    bases = {"tiny": {"config": {"rope_parameters": {"rope_theta": 10000.0}}}}
    done = run(state="rolled_back", names=[NAME], engines="mistralrs", engine_policy="report", bases=bases)
    [verdict] = done["adapters"][0]["engines"]
    assert (verdict["state"], verdict["kinds"]) == ("refused", ["saved_other", "rope_parameters"])


def test_adapter_release_activation_does_not_judge_again(node: Node, run: RunModule) -> None:
    manifest = stage(node.paths, 1)
    done = run(manifests=[manifest.to_text()], engines="llama.cpp")
    assert done["adapters"] == [adapter_of(node, 1, "activated")]


def test_adapter_release_without_required_level_fails_with_remedy(node: Node, run: RunModule) -> None:
    manifest = stage(node.paths, 1, level="structure")
    done = run(manifests=[manifest.to_text()], required_level="model")
    [problem] = done["problems"]
    assert done == {
        "failed": True,
        "changed": False,
        "adapters": [],
        "diff": [],
        "msg": f"{problem['subject']}: {problem['problem']} {problem['remedy']}",
        "problems": [
            {
                "adapter": NAME,
                "subject": problem["subject"],
                "problem": "was verified at level structure only on this node, level model is required.",
                "remedy": "Run the load test at that level first; nothing was activated.",
            }
        ],
    }
    assert f"{NAME}, release {manifest.release}" in problem["subject"]
    assert not node.served.exists()


def test_adapter_release_failure_returns_adapters_completed_before(node: Node, run: RunModule) -> None:
    other = Node(node.base, "other_lora")
    manifests = [stage(node.paths, 1), stage(other.paths, 2)]
    # It blocks the record of the second adapter's swap, which is written after the first one's.
    pathlib.Path(f"{other.paths.state}.new").mkdir()
    done = run(manifests=[manifest.to_text() for manifest in manifests])
    assert (done["failed"], done["changed"], done["adapters"]) == (True, True, [adapter_of(node, 1, "activated")])
    [problem] = done["problems"]
    assert (problem["adapter"], problem["subject"]) == ("other_lora", f"adapter other_lora, release {release_of(2)}")
    assert "is unchanged." in done["msg"]
    assert (version_at(node.served), other.served.exists()) == (1, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file_mode": "420"}, "file_mode: is '420'. Write it with four octal digits in quotes"),
        ({"owner": "no such user"}, "owner no such user: does not exist on this node."),
        ({"keep": 0}, "keep: is 0. Keep at least one release."),
        ({"state": "rolled_back", "names": ["../x"]}, "adapter '../x': is not a valid name."),
        (
            {"state": "rolled_back", "names": [NAME, "b"], "release": "0123456789ab"},
            "release 0123456789ab: is not a valid release ID.",
        ),
        ({"state": "rolled_back", "names": [NAME], "release": "../x"}, "release ../x: is not a valid release ID."),
    ],
)
def test_adapter_release_with_bad_option_fails(node: Node, run: RunModule, options: Result, message: str) -> None:
    if "state" not in options:
        options = {**options, "manifests": [manifest_of(1).to_text()]}
    done = run(**options)
    assert done["failed"]
    assert message in done["msg"]
    assert os.listdir(node.base) == ["models"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "state is active but all of the following are missing: manifests"),
        ({"state": "rolled_back"}, "state is rolled_back but all of the following are missing: names"),
        ({"manifests": [], "names": []}, "parameters are mutually exclusive: manifests|names"),
        ({"manifests": [], "required_level": "available"}, "value of required_level must be one of: structure, adapter"),
    ],
)
def test_adapter_release_with_bad_arguments_fails(run: RunModule, options: Result, message: str) -> None:
    done = run(**options)
    assert done["failed"]
    assert message in done["msg"]


def test_adapter_release_of_altered_manifest_fails(node: Node, run: RunModule) -> None:
    data = stage(node.paths, 1).to_json()
    next(entry for entry in data["files"] if entry["path"] == WEIGHTS)["sha256"] = "0" * 64
    done = run(manifests=[json.dumps(data)])
    assert done["failed"]
    assert "It was changed after it was made. Run adapter_info again." in done["msg"]
    assert not node.served.exists()


# Signed releases


def signed(keys: Keys, version: int, serial: int, signer: str = "alice") -> list[Result]:
    return [offered(keys, manifest_of(version), serial, signer)]


@pytest.mark.usefixtures("trusting")
def test_adapter_release_activates_and_records_signed_release(node: Node, run: RunModule, keys: Keys) -> None:
    options: Result = {"manifests": [stage(node.paths, 1).to_text()], "signed": signed(keys, 1, 7)}
    assert run(check_mode=True, **options)["changed"]
    assert not os.path.exists(node.paths.accepted)
    [activated] = run(**options)["adapters"]
    record = read_record(node.paths.accepted)
    assert record is not None
    assert (record.serial, record.releases) == (7, [release_of(1)])
    assert activated["action"] == "activated"
    expires = record.accepted[0].statement.expires.isoformat()
    assert activated["signed"] == {"signers": ["alice"], "serial": 7, "expires": expires}
    active = node.snapshot()
    unchanged = run(**options)
    assert (unchanged["changed"], unchanged["adapters"][0]["signed"]) == (False, activated["signed"])
    assert node.snapshot() == active


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    ("version", "serial", "signer", "words"),
    [
        (2, 8, "mallory", "which this node does not know"),
        (2, 6, "alice", "this node has accepted 7. It is an older release."),
        (2, 7, "alice", "A signer's key may be in the wrong hands."),
        (3, 8, "alice", "has a statement about the release"),
    ],
)
def test_adapter_release_of_release_that_is_not_accepted_changes_nothing(
    node: Node, run: RunModule, keys: Keys, version: int, serial: int, signer: str, words: str
) -> None:
    run(manifests=[stage(node.paths, 1).to_text()], signed=signed(keys, 1, 7))
    manifest = stage(node.paths, 2)
    before = node.snapshot()
    for check_mode in (True, False):
        done = run(manifests=[manifest.to_text()], signed=signed(keys, version, serial, signer), check_mode=check_mode)
        assert done["failed"]
        assert words in done["msg"]
    assert node.snapshot() == before
    assert version_at(node.served) == 1


@pytest.mark.usefixtures("trusting")
def test_adapter_release_of_unsigned_release_fails_where_signatures_are_required(node: Node, run: RunModule) -> None:
    done = run(manifests=[stage(node.paths, 1).to_text()])
    assert done["failed"]
    assert "is not signed; this node serves signed releases only." in done["msg"]
    assert not node.served.exists()


def test_adapter_release_of_signed_release_fails_where_nobody_is_trusted(node: Node, run: RunModule, keys: Keys) -> None:
    done = run(manifests=[stage(node.paths, 1).to_text()], signed=signed(keys, 1, 7))
    assert done["failed"]
    assert "this node: has no /etc/lorafleet/trust, so it trusts no signature." in done["msg"]


@pytest.mark.usefixtures("trusting")
def test_adapter_release_whose_record_cannot_be_written_changes_nothing(node: Node, run: RunModule, keys: Keys) -> None:
    """The serial is on disk before the release is served."""
    run(manifests=[stage(node.paths, 1).to_text()], signed=signed(keys, 1, 7))
    pathlib.Path(f"{node.paths.accepted}.new").mkdir()
    done = run(manifests=[stage(node.paths, 2).to_text()], signed=signed(keys, 2, 8))
    assert done["failed"]
    assert f"Release {release_of(1)} is active." in done["msg"]
    assert version_at(node.served) == 1


@pytest.mark.usefixtures("trusting")
def test_adapter_release_rolls_back_to_accepted_releases_only(node: Node, run: RunModule, keys: Keys) -> None:
    for version in (1, 2):
        run(manifests=[stage(node.paths, version).to_text()], signed=signed(keys, version, version))
    [returned] = run(state="rolled_back", names=[NAME])["adapters"]
    record = read_record(node.paths.accepted)
    assert record is not None
    assert record.serial == 2
    # By whom the release was signed that is active now.
    assert (returned["release"], returned["signed"]["serial"]) == (release_of(1), 1)
    # The way forward is open, too.
    again: Result = {"manifests": [manifest_of(2).to_text()], "signed": signed(keys, 2, 2)}
    assert run(**again)["adapters"][0]["release"] == release_of(2)
    os.unlink(node.paths.accepted)
    done = run(state="rolled_back", names=[NAME])
    assert done["failed"]
    assert "was never accepted as signed on this node (accepted: none)." in done["msg"]
    assert version_at(node.served) == 2
