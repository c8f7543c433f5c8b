# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A training server that offers signed releases which are not meant to be served, or none.

It has no key, but it chooses what it describes. The controller adds the statement that it has about
that, as the action plugins do, and the modules of the node decide.
"""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils import _trust_place
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter import offered as offered_manifests
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.acceptance import record_accepted
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.serials import Accepted, read_record
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import MAX_INTEGER, Statement
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.signature_files import SignatureFiles, with_signed

from tests.support.releases import NAME, manifest_of, release_of, stage, version_at, write_version
from tests.support.signing import DAY, Keys, signer_line, statement_about, write_trust
from tests.support.transactions import Node
from tests.unit.plugins.modules.conftest import Result, RunModule

OTHER = "other_lora"


class Site:
    """A node that requires signatures, and the directory with all statements there ever were."""

    def __init__(self, path: pathlib.Path, keys: Keys, run_module: RunModule) -> None:
        (path / "node").mkdir()
        self.node = Node(path / "node")
        self.signatures = path / "signatures"
        self.keys = keys
        self.run_module = run_module

    def sign(self, manifest: Manifest, serial: int, now: t.Optional[datetime.datetime] = None, days: int = 90) -> Statement:
        now = now or datetime.datetime.now(tz=datetime.timezone.utc)
        statement = statement_about(manifest, serial, issued=now, expires=now + days * DAY)
        files = SignatureFiles(str(self.signatures), manifest.name, manifest.release)
        pathlib.Path(files.directory).mkdir(parents=True, exist_ok=True)
        pathlib.Path(files.text).write_bytes(statement.to_bytes())
        pathlib.Path(files.signature("alice")).write_bytes(self.keys.sign(statement.to_bytes(), "alice"))
        return statement

    def run(self, module: str, manifest: Manifest, **options: t.Any) -> Result:
        places = {"models_dir": str(self.node.models), "store": str(self.node.store)}
        given = {"manifests": [manifest.to_text()], "signatures": str(self.signatures), **places, **options}
        return self.run_module(module, with_signed(given))

    def serve(self, manifest: Manifest) -> Result:
        return self.run("adapter_release", manifest)

    def served(self) -> tuple[t.Any, ...]:
        """Return what the node serves, stores and has accepted."""
        paths = self.node.paths
        return version_at(self.node.served), paths.release_names(), read_record(paths.accepted)

    def refusal(self, version: int, **changes: t.Any) -> str:
        """Return why nothing of an offer is transferred, nor activated if the files are there."""
        manifest = dataclasses.replace(manifest_of(version), **changes)
        row = {"name": manifest.name, "base": "base", "rank": 16, "alpha": 32}
        source = {"source": "sbs29", "source_models_dir": "/home/models", "phase": "plan"}
        before = self.node.snapshot()
        transfer = self.run("adapter_sync", manifest, adapters=[row], **source)
        assert self.node.snapshot() == before
        if not self.node.release(version).exists():
            stage(self.node.paths, version)
        served = self.served()
        activation = self.serve(manifest)
        assert self.served() == served
        assert transfer["failed"] and activation["failed"]
        assert activation["msg"] == transfer["msg"]
        return str(transfer["msg"])


@pytest.fixture
def site(tmp_path: pathlib.Path, keys: Keys, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> Site:
    # These manifests are too small to be those of an adapter.
    monkeypatch.setattr(offered_manifests, "check_offered", lambda *_arguments: None)
    monkeypatch.setattr(_trust_place, "PLACE", write_trust(tmp_path / "etc", signer_line("alice", keys.public("alice"))))
    return Site(tmp_path, keys, run_module)


@pytest.fixture
def updated(site: Site) -> Site:
    """The node has served version 1, and serves version 2 now."""
    for version in (1, 2):
        site.sign(manifest_of(version), version)
        site.serve(stage(site.node.paths, version))
    assert version_at(site.node.served) == 2
    return site


def test_older_release_with_its_good_signature_is_refused(updated: Site) -> None:
    assert "has the serial 1; this node has accepted 2. It is an older release." in updated.refusal(1)


def test_older_release_is_refused_after_a_rollback_too(site: Site) -> None:
    for version in (3, 1, 2):
        site.sign(manifest_of(version), {3: 1, 1: 2, 2: 3}[version])
        site.serve(stage(site.node.paths, version))
    places = {"models_dir": str(site.node.models), "store": str(site.node.store)}
    site.run_module("adapter_release", {"state": "rolled_back", "names": [NAME], **places})
    assert version_at(site.node.served) == 1
    assert "has the serial 1; this node has accepted 3." in site.refusal(3)


def test_older_release_is_refused_after_the_store_has_lost_it(updated: Site) -> None:
    shutil.rmtree(updated.node.release(1))
    pathlib.Path(updated.node.paths.manifest(release_of(1))).unlink()
    assert "It is an older release." in updated.refusal(1)


@pytest.mark.parametrize(("copied", "words"), [(False, "is not signed;"), (True, f"has a statement about the adapter {OTHER}")])
def test_signed_release_of_another_adapter_under_this_name_is_refused(updated: Site, copied: bool, words: str) -> None:
    """It has files that another adapter may serve, which are not meant for this one."""
    updated.sign(manifest_of(3, OTHER), 9)
    if copied:
        # By somebody who can write to the directory of signatures, too.
        shutil.copytree(updated.signatures / OTHER, updated.signatures / NAME, dirs_exist_ok=True)
    assert words in updated.refusal(3)


@pytest.mark.parametrize(
    "changes",
    [{"golden": {"positions": []}}, {"base": {"digest": "0" * 64}}, {"versions": {"peft": "0.1"}}],
    ids=["golden", "base", "versions"],
)
def test_signed_files_with_another_manifest_are_refused(updated: Site, changes: dict[str, t.Any]) -> None:
    updated.sign(manifest_of(3), 3)
    for version in (2, 3):
        assert "another manifest than the signed one" in updated.refusal(version, **changes)


def test_unsigned_release_is_refused_after_a_signed_one(updated: Site, tmp_path: pathlib.Path, keys: Keys) -> None:
    write_trust(tmp_path / "etc", signer_line("alice", keys.public("alice")), required=False)
    assert "The signatures have been removed." in updated.refusal(4)


def test_highest_serial_bars_later_ones_until_the_record_is_moved_aside(updated: Site) -> None:
    """What the thief of a key can do beside having something served."""
    updated.sign(manifest_of(3), MAX_INTEGER)
    updated.serve(stage(updated.node.paths, 3))
    updated.sign(manifest_of(4), 3)
    assert f"this node has accepted {MAX_INTEGER}." in updated.refusal(4)
    pathlib.Path(updated.node.paths.accepted).rename(updated.node.base / "aside")
    assert updated.serve(manifest_of(4))["adapters"][0]["action"] == "activated"


def test_copy_by_hand_is_reported_and_replaced(updated: Site) -> None:
    """Nobody asks a node before a copy. The next audit or delivery finds it."""
    shutil.rmtree(updated.node.served)
    write_version(updated.node.served, 3)
    places = {"models_dir": str(updated.node.models), "store": str(updated.node.store)}
    assert updated.run_module("adapter_release_info", {"names": [NAME], **places})["differences"]
    updated.refusal(3)
    assert updated.serve(manifest_of(2))["adapters"][0]["action"] == "repaired"
    assert version_at(updated.node.served) == 2


def test_another_store_knows_no_serial(updated: Site, tmp_path: pathlib.Path) -> None:
    """A limit, which docs/signing.md states: the record is in the store."""
    updated.node = Node(updated.node.base, store=tmp_path / "store")
    assert updated.serve(stage(updated.node.paths, 1))["adapters"][0]["action"] == "activated"
    # What nobody has signed is refused there, too.
    assert "is not signed" in updated.refusal(4)


def test_release_that_is_withheld_is_seen_by_its_expiry(site: Site, tmp_path: pathlib.Path) -> None:
    """Nodes serve on what they have, so only the time shows that there is nothing new."""
    now = datetime.datetime.now(tz=datetime.timezone.utc).replace(microsecond=0)
    statement = site.sign(manifest_of(1), 1, now=now - 91 * DAY)
    site.node.deploy(1)
    signature = site.keys.sign(statement.to_bytes(), "alice").decode()
    record_accepted(site.node.paths.accepted, Accepted(statement, {"alice": signature}, statement.issued), [release_of(1)])

    assert not site.serve(manifest_of(1))["changed"]
    (site.node.served / "tokenizer.json").unlink()
    assert site.serve(manifest_of(1))["adapters"][0]["action"] == "repaired"

    places = {"models_dir": str(site.node.models), "store": str(site.node.store)}
    found = site.run_module("adapter_release_info", {"names": [NAME], **places})
    until = datetime.datetime.fromisoformat(found["adapters"][0]["signed"]["expires"])
    assert until == now - DAY
    assert any("signed by alice" in line and f"{until:%Y-%m-%d}" in line for line in found["summary"][NAME])

    # A node without it gets nothing that has expired.
    (tmp_path / "second").mkdir()
    site.node = Node(tmp_path / "second")
    assert f"was to be served until {until:%Y-%m-%dT%H:%M:%SZ}" in site.refusal(1)
    assert read_record(site.node.paths.accepted) is None
