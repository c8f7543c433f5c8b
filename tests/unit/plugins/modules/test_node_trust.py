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
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import ROOT_NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.roots import signed_text
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import read_trust
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import Place

from tests.support.signing import FLEET, Keys, root_lines, signer_line

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
        check_mode: bool = False,
        revoked: bytes = b"",
        people: t.Sequence[str] = ("alice", "bob"),
        roots: t.Sequence[str] = (),
        signed_by: t.Sequence[str] = (),
        **policy: t.Any,
    ) -> Result:
        lines = "".join(signer_line(name, keys.public(name)) for name in people)
        content = json.dumps({"fleet": FLEET, "required": True, "threshold": 1, "version": 1, **policy})
        options: dict[str, t.Any] = {"source": "trust", "policy": content, "allowed_signers": lines}
        if revoked:
            options["revoked_keys"] = base64.b64encode(revoked).decode()
        if roots:
            options["roots"] = root_lines(keys, *roots)
        texts = {name: str(options[name]).encode() for name in ("allowed_signers", "roots") if name in options}
        text = signed_text({**texts, **({"revoked_keys": revoked} if revoked else {}), "policy.json": content.encode()})
        options["signatures"] = {f"{name}.sig": keys.sign(text, name, ROOT_NAMESPACE).decode() for name in signed_by}
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
    expected.update(roots=[], root_threshold=None, snapshot_hours=None)
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


ROOTS: dict[str, t.Any] = {"roots": ["rita", "rosa", "ruth"], "root_threshold": 2}


def test_node_trust_with_roots_takes_versions_that_they_have_signed(run: RunModule, place: Place) -> None:
    assert "is signed by 0 of its own roots" in run(**ROOTS)["msg"]
    assert not os.path.exists(place.directory)
    done = run(**ROOTS, signed_by=["rita", "rosa"])
    assert (done["roots"], done["root_threshold"]) == (ROOTS["roots"], 2)
    assert "rita namespaces" in done["diff"]["after"]
    assert sorted(os.listdir(place.directory)) == ["allowed_signers", "policy.json", "roots"]
    # What is there needs no signature.
    assert not run(**ROOTS)["changed"]

    before = read_trust(place)
    for change in ({"people": ["bob"], **ROOTS}, {"people": ["bob"]}):
        for check_mode in (True, False):
            done = run(check_mode, version=2, signed_by=["rita"], **change)
            assert "version 2 of the trust: is signed by 1 of the roots of version 1" in done["msg"]
    assert read_trust(place) == before
    assert run(version=2, people=["bob"], signed_by=["rita", "ruth"], **ROOTS)["changed"]
    assert run(version=3, signed_by=["rosa", "ruth"])["roots"] == []
    assert sorted(os.listdir(place.directory)) == ["allowed_signers", "policy.json"]


@pytest.mark.parametrize("damaged", ["policy.json", "allowed_signers", "roots"])
def test_node_trust_with_damaged_files_and_roots_is_not_replaced(run: RunModule, place: Place, damaged: str) -> None:
    run(**ROOTS, signed_by=["rita", "rosa"])
    path = pathlib.Path(place.directory, damaged)
    for text in ("{", None):
        path.unlink() if text is None else path.write_text(text, encoding="utf-8")
        done = run(version=2, signed_by=["rita", "rosa"], **ROOTS)
        assert "had roots, who have to sign a change, but is damaged" in done["msg"]
        assert "Restore it from a node that has the same version." in done["msg"]


def test_node_trust_writes_all_files_before_it_replaces_one(
    run: RunModule, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(**ROOTS, signed_by=["rita", "rosa"])
    before = read_trust(place)
    fsync, calls = os.fsync, iter(range(100))

    def killed(descriptor: int) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        run(version=2, people=["bob"], signed_by=["rita", "rosa"], **ROOTS)
    monkeypatch.setattr(os, "fsync", fsync)
    assert read_trust(place) == before
    assert run(version=2, people=["bob"], signed_by=["rita", "rosa"], **ROOTS)["changed"]


def test_node_trust_that_was_interrupted_has_not_raised_the_version(
    run: RunModule, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next run would find other content of the same version."""
    run()
    rename, calls = os.rename, iter(range(100))

    def killed(source: str, target: str) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        run(version=2, people=["bob"])
    monkeypatch.setattr(os, "rename", rename)
    assert run(version=2, people=["bob"])["changed"]


def test_node_trust_without_root_is_error(run: RunModule, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trust_place, "PLACE", place._replace(owner=os.geteuid() + 1))
    assert "can be written by root only. Run with become." in run()["msg"]


def test_node_trust_without_action_plugin_is_error(run_module: RunModule, place: Place) -> None:
    assert "was run without its action plugin" in run_module("node_trust", {"source": place.directory})["msg"]
