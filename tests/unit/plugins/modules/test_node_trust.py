# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module node_trust in this process."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import stat
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils import _trust_place
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import read_trust
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import Place

from tests.support.signing import FLEET, Keys, signer_line

from .conftest import Result, RunModule


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    found = Place(str(tmp_path / "lorafleet" / "trust"), os.geteuid())
    monkeypatch.setattr(_trust_place, "PLACE", found)
    return found


@pytest.fixture
def run(run_module: RunModule, keys: Keys, place: Place) -> RunModule:
    """Return a function that runs the module with a policy of alice and bob."""

    def run(
        check_mode: bool = False, revoked: bytes = b"", people: t.Sequence[str] = ("alice", "bob"), **policy: t.Any
    ) -> Result:
        lines = "".join(signer_line(name, keys.public(name)) for name in people)
        content = json.dumps({"fleet": FLEET, "required": True, "threshold": 1, "version": 1, **policy})
        options = {"source": "trust", "policy": content, "allowed_signers": lines}
        if revoked:
            options["revoked_keys"] = base64.b64encode(revoked).decode()
        return run_module("node_trust", options, check_mode, diff=True)

    return run


def test_node_trust_first_run_writes_what_the_node_reads(run: RunModule, place: Place, tmp_path: pathlib.Path) -> None:
    assert run(check_mode=True)["changed"]
    assert os.listdir(tmp_path) == []
    umask = os.umask(0)
    try:
        done = run()
    finally:
        os.umask(umask)
    expected = {"changed": True, "fleet": FLEET, "required": True, "threshold": 1, "version": 1, "signers": ["alice", "bob"]}
    assert {key: value for key, value in done.items() if key != "diff"} == expected
    assert (done["diff"]["before"], "alice namespaces" in done["diff"]["after"]) == ("", True)
    trust = read_trust(place)
    assert trust is not None
    assert [signer.name for signer in trust.signers] == ["alice", "bob"]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"lorafleet": 0o755, "trust": 0o755, "policy.json": 0o644, "allowed_signers": 0o644}


def test_node_trust_second_run_changes_nothing(run: RunModule, place: Place) -> None:
    run()
    before = os.stat(os.path.join(place.directory, "policy.json"))
    assert not run()["changed"]
    assert os.stat(os.path.join(place.directory, "policy.json")).st_ctime_ns == before.st_ctime_ns


def test_node_trust_higher_version_replaces_all_files(run: RunModule, keys: Keys, place: Place) -> None:
    run()
    assert run(version=2, people=["bob"], revoked=f"{keys.public('alice')}\n".encode())["signers"] == ["bob"]
    trust = read_trust(place)
    assert trust is not None
    assert trust.revoked == f"{keys.public('alice')}\n".encode()
    run(version=3, people=["bob"])
    assert sorted(os.listdir(place.directory)) == ["allowed_signers", "policy.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "is 2; this node has 3. Find out which is right."),
        ({"version": 3, "threshold": 2}, "is 3, which this node has with other content."),
        ({"version": 3, "people": ["alice"]}, "To bring this one to the nodes, set version to 4."),
        ({"version": 4, "threshold": 3}, "names 2 signers, but 3 have to sign"),
        ({"version": 4, "more": 1}, "differs in more"),
        ({"version": 4, "revoked": b"alice"}, "revoked_keys: line 1 has no type of a key"),
    ],
)
def test_node_trust_of_files_that_are_not_accepted_changes_nothing(
    run: RunModule, place: Place, change: dict[str, t.Any], words: str
) -> None:
    run(version=3)
    before = read_trust(place)
    for check_mode in (True, False):
        done = run(check_mode, **change)
        assert done["failed"]
        assert words in done["msg"]
    assert read_trust(place) == before


def test_node_trust_replaces_what_the_node_cannot_read(run: RunModule, place: Place) -> None:
    run(version=3)
    pathlib.Path(place.directory, "policy.json").write_text("{", encoding="utf-8")
    assert run(version=1)["changed"]
    assert read_trust(place) is not None


def test_node_trust_without_root_is_error(run: RunModule, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trust_place, "PLACE", place._replace(owner=os.geteuid() + 1))
    assert "can be written by root only. Run with become." in run()["msg"]


def test_node_trust_without_action_plugin_is_error(run_module: RunModule, place: Place) -> None:
    assert "was run without its action plugin" in run_module("node_trust", {"source": place.directory})["msg"]
