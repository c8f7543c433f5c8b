# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module adapter_release through Ansible; what it does is tested with the transaction (tests/unit)."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from tests.support.playbooks import recording
from tests.support.releases import NAME, WEIGHTS, manifest_of, release_of, stage, version_at
from tests.support.transactions import Node

ANSIBLE = pathlib.Path(sys.executable).with_name("ansible")


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


def run(node: Node, *flags: str, **options: t.Any) -> dict[str, t.Any]:
    """Call the module on this machine and return its result."""
    arguments = {"models_dir": str(node.models), "store": str(node.store), **options}
    record = node.base.with_name("record.jsonl")
    record.unlink(missing_ok=True)
    environment = {**recording(record), "ANSIBLE_LOAD_CALLBACK_PLUGINS": "true"}
    command = [ANSIBLE, "-i", "localhost,", "-c", "local", "localhost", "-e", f"ansible_python_interpreter={sys.executable}"]
    module = ["-m", "lorafleet.delivery.adapter_release", "-a", json.dumps(arguments)]
    done = subprocess.run([*command, *module, *flags], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert record.exists(), done.stdout + done.stderr
    entry = json.loads(record.read_text())
    return {**entry["result"], "failed": entry["status"] == "failed"}


def untimed(adapters: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The same without the time of each activation, which cannot be predicted."""
    return [{**adapter, "history": [entry["release"] for entry in adapter["history"]]} for adapter in adapters]


def test_check_do_check_do(node: Node) -> None:
    manifest = stage(node.paths, 1)
    options: dict[str, t.Any] = {"manifests": [manifest.to_text()], "required_level": "model", "run": "the test"}
    staged = node.snapshot()
    predicted = run(node, "--check", "--diff", **options)
    assert predicted["changed"]
    assert node.snapshot() == staged

    done = run(node, "--diff", **options)
    assert done["changed"]
    assert (untimed(done["adapters"]), done["diff"]) == (untimed(predicted["adapters"]), predicted["diff"])
    (adapter,) = done["adapters"]
    assert (adapter["action"], adapter["release"], adapter["digest"]) == ("activated", manifest.release, manifest.digest)
    assert done["diff"][0]["after"]["rank"] == 16
    assert version_at(node.served) == version_at(adapter["path"]) == 1

    active = node.snapshot()
    for flags in (["--check"], []):
        again = run(node, *flags, **options)
        assert not again["changed"]
        assert again["adapters"][0]["action"] == "unchanged"
        assert node.snapshot() == active


def test_rollback_without_manifests(node: Node) -> None:
    node.deploy(1)
    node.deploy(2)
    done = run(node, state="rolled_back", names=[NAME])
    assert done["changed"]
    assert (done["adapters"][0]["action"], done["adapters"][0]["previous"]) == ("rolled_back", release_of(2))
    assert version_at(node.served) == 1
    named = {"state": "rolled_back", "names": [NAME], "release": release_of(2)}
    assert run(node, **named)["changed"]
    assert not run(node, **named)["changed"]
    assert version_at(node.served) == 2


def test_refusal_names_adapter_and_remedy(node: Node) -> None:
    manifest = stage(node.paths, 1, level="structure")
    done = run(node, manifests=[manifest.to_text()], required_level="model")
    assert done["failed"]
    assert not done["changed"]
    (problem,) = done["problems"]
    assert problem == {
        "adapter": NAME,
        "subject": f"{NAME}, release {manifest.release}",
        "problem": "was verified at level structure only on this node, level model is required.",
        "remedy": "Run the load test at that level first; nothing was activated.",
    }
    assert done["msg"] == f"{problem['subject']}: {problem['problem']} {problem['remedy']}"
    assert not node.served.exists()


def test_what_was_done_before_a_failure_is_told(node: Node) -> None:
    other = Node(node.base, "other_lora")
    manifests = [stage(node.paths, 1), stage(other.paths, 2)]
    # In the way of the first thing that is written for the second one, and not looked at before.
    pathlib.Path(other.paths.manifest(manifests[1].release) + ".new").mkdir()
    done = run(node, manifests=[manifest.to_text() for manifest in manifests])
    assert done["failed"]
    assert done["changed"]
    assert [adapter["name"] for adapter in done["adapters"]] == [NAME]
    assert "other_lora, release" in done["msg"]
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
            "release 0123456789ab: not a valid release ID.",
        ),
        ({"state": "rolled_back", "names": [NAME], "release": "../x"}, "release ../x: not a valid release ID."),
    ],
)
def test_bad_options(node: Node, options: dict[str, t.Any], message: str) -> None:
    if "state" not in options:
        options = {**options, "manifests": [manifest_of(1).to_text()]}
    done = run(node, **options)
    assert done["failed"]
    assert message in done["msg"]
    assert os.listdir(node.base) == ["models"]


def test_manifest_that_was_changed_on_the_way(node: Node) -> None:
    data = stage(node.paths, 1).to_json()
    next(entry for entry in data["files"] if entry["path"] == WEIGHTS)["sha256"] = "0" * 64
    done = run(node, manifests=[json.dumps(data)])
    assert "It was changed after it was made. Run adapter_info again." in done["msg"]
    assert not node.served.exists()
