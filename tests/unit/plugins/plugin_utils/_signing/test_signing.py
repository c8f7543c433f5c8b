# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Statements that are proposed and signed on the controller, with real keys."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_signatures import SshSignatures, Verified
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import read_statement
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import read_trust
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.signing import (
    Proposal,
    is_signed,
    propose,
    sign,
    ssh_sign,
)

from tests.support.releases import NAME, manifest_of, release_of
from tests.support.signing import DAY, FLEET, NOW, Keys, run, signer_line, write_trust


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


class Signatures:
    """A directory of signatures, and two people who sign."""

    def __init__(self, base: pathlib.Path, keys: Keys) -> None:
        self.directory, self.keys = base / "signatures", keys
        lines = "".join(signer_line(name, keys.public(name)) for name in ("alice", "bob"))
        trust = read_trust(write_trust(base, lines))
        assert trust is not None
        self.trust = trust
        self.now = NOW

    def propose(self, manifest: Manifest, signer: str = "alice", **changes: t.Any) -> Proposal:
        options = {"trust": self.trust, "days": 90, "renew_days": 14, "key": self.keys.private(signer), **changes}
        return propose(manifest, str(self.directory), now=self.now, **options)

    def sign(self, manifest: Manifest, signer: str = "alice") -> tuple[str, int]:
        """Return the action and the serial."""
        proposal = self.propose(manifest, signer)
        if proposal.action != "unchanged":
            assert sign(proposal, self.keys.private(signer), self.trust, self.now) == signer
        return proposal.action, proposal.statement.serial

    def signers_of(self, version: int) -> list[str]:
        """Verify what is written about a version, and return who has signed it."""
        files = self.propose(manifest_of(version)).files
        written = files.read()
        assert written is not None
        text = written["statement"].encode()
        with SshSignatures(self.trust.signers, b"", self.now) as ssh:
            outcomes = [ssh.verify(text, one.encode()) for one in written["signatures"]]
        assert all(isinstance(one, Verified) for one in outcomes)
        return sorted(one.signer for one in outcomes if isinstance(one, Verified))


@pytest.fixture
def signatures(tmp_path: pathlib.Path, keys: Keys) -> Signatures:
    return Signatures(tmp_path, keys)


def test_sign_first_release_writes_statement_signature_and_manifest(signatures: Signatures) -> None:
    assert signatures.sign(manifest_of(1)) == ("signed", 1)
    directory = signatures.directory / NAME
    short = signatures.keys.public("alice").short
    assert sorted(os.listdir(directory)) == [f"{release_of(1)}.{end}" for end in (f"{short}.sig", "json", "manifest")]
    statement = read_statement((directory / f"{release_of(1)}.json").read_bytes())
    assert (statement.fleet, statement.issued, statement.expires) == (FLEET, NOW, NOW + 90 * DAY)
    # People can compare it with sha256sum.
    written = (directory / f"{release_of(1)}.manifest").read_bytes()
    assert hashlib.sha256(written).hexdigest() == statement.manifest
    assert signatures.signers_of(1) == ["alice"]


def test_sign_again_changes_nothing(signatures: Signatures) -> None:
    signatures.sign(manifest_of(1))
    assert signatures.sign(manifest_of(1)) == ("unchanged", 1)


def test_sign_by_another_person_adds_to_the_same_statement(signatures: Signatures) -> None:
    signatures.sign(manifest_of(1))
    signatures.now += DAY
    assert signatures.sign(manifest_of(1), "bob") == ("added", 1)
    assert signatures.signers_of(1) == ["alice", "bob"]


def test_sign_next_release_has_the_next_serial(signatures: Signatures) -> None:
    signatures.sign(manifest_of(1))
    assert signatures.sign(manifest_of(2)) == ("signed", 2)
    assert signatures.signers_of(1) == signatures.signers_of(2) == ["alice"]


def test_sign_earlier_release_again_has_a_higher_serial(signatures: Signatures) -> None:
    for version in (1, 2):
        signatures.sign(manifest_of(version))
    signatures.sign(manifest_of(1), "bob")
    assert signatures.propose(manifest_of(1)).statement.serial == 3
    # The signature of the first statement is gone.
    assert signatures.signers_of(1) == ["bob"]
    assert signatures.propose(manifest_of(1)).action == "added"


@pytest.mark.parametrize(("days", "action"), [(75, "unchanged"), (76, "renewed"), (100, "renewed")])
def test_sign_renews_statement_that_is_about_to_expire(signatures: Signatures, days: int, action: str) -> None:
    signatures.sign(manifest_of(1))
    signatures.now += days * DAY
    assert signatures.sign(manifest_of(1)) == (action, 1 if action == "unchanged" else 2)


def test_sign_renews_statement_about_another_manifest_or_fleet(signatures: Signatures) -> None:
    signatures.sign(manifest_of(1))
    changed = dataclasses.replace(manifest_of(1), golden={"positions": []})
    assert signatures.propose(changed).action == "renewed"
    policy = dataclasses.replace(signatures.trust.policy, fleet="other")
    assert signatures.propose(manifest_of(1), trust=dataclasses.replace(signatures.trust, policy=policy)).action == "renewed"


@pytest.mark.parametrize(
    ("policy", "days", "action"),
    [({"certificate_days": 14}, 1, "unchanged"), ({"certificate_days": 14}, 15, "renewed"), ({}, 1, "added")],
)
def test_sign_by_certificate_of_another_day_leaves_one_signature_that_counts(
    tmp_path: pathlib.Path, keys: Keys, policy: dict[str, int], days: int, action: str
) -> None:
    signatures = Signatures(tmp_path, keys)
    line = signer_line("ci", keys.public("authority"), "cert-authority")
    trust = read_trust(write_trust(tmp_path, line, **policy))
    assert trust is not None
    signatures.trust = trust

    def sign_with_certificate() -> str:
        """Sign as a CI job does, with a key and a certificate of this hour."""
        hour = f"{signatures.now:%Y%m%d%H%M%S}:{signatures.now + DAY / 24:%Y%m%d%H%M%S}"
        certificate = keys.certificate("authority", f"job-{action}-{signatures.now:%d}", "ci", hour)
        proposal = signatures.propose(manifest_of(1), key=certificate)
        if proposal.action != "unchanged":
            assert sign(proposal, certificate, trust, signatures.now) == "ci"
        return proposal.action

    assert sign_with_certificate() == "signed"
    signatures.now += days * DAY
    assert sign_with_certificate() == action
    proposal = signatures.propose(manifest_of(1))
    assert len(proposal.files.signatures()) == 1
    assert is_signed(proposal.files, proposal.statement, trust, signatures.now)
    # Somebody with a key still adds a signature.
    assert proposal.action == "added"


def test_sign_by_certificate_adds_to_what_too_few_have_signed(tmp_path: pathlib.Path, keys: Keys) -> None:
    signatures = Signatures(tmp_path, keys)
    lines = signer_line("ci", keys.public("authority"), "cert-authority") + signer_line("alice", keys.public("alice"))
    trust = read_trust(write_trust(tmp_path, lines, certificate_days=14, threshold=2))
    assert trust is not None
    signatures.trust = trust
    signatures.sign(manifest_of(1))
    signatures.now += DAY
    certificate = keys.certificate("authority", "job-of-two", "ci", "20260602000000:20260603000000")
    proposal = signatures.propose(manifest_of(1), key=certificate)
    assert proposal.action == "added"
    assert sign(proposal, certificate, trust, signatures.now) == "ci"
    assert signatures.propose(manifest_of(1), key=certificate).action == "unchanged"


def test_propose_shows_what_has_changed_since_the_release_before(signatures: Signatures) -> None:
    assert "after release" not in "".join(signatures.propose(manifest_of(1)).summary())
    signatures.sign(manifest_of(1))
    lines = signatures.propose(manifest_of(2)).summary()
    assert lines[0] == f"adapter {NAME}, release {release_of(2)}: signed"
    assert f"  after release {release_of(1)}, serial 1" in lines
    assert "  rank: 16 -> 32" in lines
    # A manifest that is not the signed one says nothing.
    path = signatures.directory / NAME / f"{release_of(1)}.manifest"
    path.write_text(manifest_of(3).to_text(), encoding="utf-8")
    lines = signatures.propose(manifest_of(2)).summary()
    assert "  its manifest is not among the signatures: what has changed is unknown" in lines


def test_propose_shows_nothing_that_steers_a_terminal(signatures: Signatures) -> None:
    signatures.sign(manifest_of(1))
    hostile = dataclasses.replace(manifest_of(2), config={"r": "\x1b[2K\r16", "lora_alpha": 32})
    assert all(line.isprintable() for line in signatures.propose(hostile).summary())


def test_sign_with_key_that_nodes_do_not_trust_writes_nothing(signatures: Signatures) -> None:
    proposal = signatures.propose(manifest_of(1))
    key = signatures.keys.private("mallory")
    with pytest.raises(DeliveryError, match=f"the signature by {key}: is by the key .* which this node does not know"):
        sign(proposal, key, signatures.trust, NOW)
    assert not signatures.directory.exists()


def test_propose_beside_file_that_is_no_statement_is_error(signatures: Signatures) -> None:
    signatures.sign(manifest_of(1))
    path = signatures.directory / NAME / f"{release_of(1)}.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"serial": 1', '"serial": 99 '), encoding="utf-8")
    with pytest.raises(DeliveryError, match=f"{release_of(1)}.json: statement: is another text"):
        signatures.propose(manifest_of(2))


def test_ssh_sign_with_key_that_does_not_exist_is_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DeliveryError, match=r"did not sign: .*No such file"):
        ssh_sign(b"text", str(tmp_path / "none"))


def test_ssh_sign_with_key_of_agent_signs(
    signatures: Signatures, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "agent"
    started = run("ssh-agent", "-s", "-a", socket).decode()
    process = int(started.split("SSH_AGENT_PID=")[1].split(";")[0])
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        run("ssh-add", "-q", signatures.keys.private("alice"))
        public = tmp_path / "only.pub"
        public.write_text(f"{signatures.keys.public('alice')}\n", encoding="utf-8")
        proposal = signatures.propose(manifest_of(1), key=str(public))
        assert sign(proposal, str(public), signatures.trust, NOW) == "alice"
        assert signatures.propose(manifest_of(1), key=str(public)).action == "unchanged"
    finally:
        os.kill(process, 15)
