# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures by real keys and certificates, verified by a real ssh-keygen."""

from __future__ import annotations

import os
import pathlib
import stat
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing import refusal, ssh_signatures
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import read_allowed_signers
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.refusal import Refusal
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_signatures import SshSignatures, Verified

from tests.support.releases import manifest_of
from tests.support.signing import NOW, Keys, signer_line, statement_about

TEXT = statement_about(manifest_of(1)).to_bytes()


@pytest.fixture
def allowed(keys: Keys) -> str:
    """Return the signers of a fleet: alice, bob, whose key has ended, and an authority for ci."""
    lines = [
        signer_line("alice", keys.public("alice")),
        signer_line("bob", keys.public("bob"), 'valid-before="20260101Z"'),
        signer_line("ci@lab", keys.public("authority"), "cert-authority"),
    ]
    return "".join(lines)


def verify(allowed: str, signature: bytes, text: bytes = TEXT, revoked: bytes = b"") -> t.Union[Verified, Refusal]:
    with SshSignatures(read_allowed_signers(allowed, "file"), revoked, NOW) as ssh:
        return ssh.verify(text, signature)


def code_of(outcome: t.Union[Verified, Refusal]) -> str:
    assert isinstance(outcome, Refusal), outcome
    assert outcome.problem
    assert outcome.remedy
    return outcome.code


def test_verify_signature_by_key_names_signer_and_key(keys: Keys, allowed: str) -> None:
    assert verify(allowed, keys.sign(TEXT, "alice")) == Verified("alice", keys.public("alice").fingerprint)


def test_verify_signature_by_certificate_names_its_principal(keys: Keys, allowed: str) -> None:
    certificate = keys.certificate("authority", "short", "ci@lab", "20260601115500:20260601125500")
    outcome = verify(allowed, keys.sign(TEXT, certificate))
    assert isinstance(outcome, Verified)
    assert outcome.signer == "ci@lab"


def test_verify_before_the_key_has_ended_is_good(keys: Keys, allowed: str) -> None:
    signature = keys.sign(TEXT, "bob")
    with SshSignatures(read_allowed_signers(allowed, "file"), b"", NOW.replace(year=2025)) as ssh:
        assert isinstance(ssh.verify(TEXT, signature), Verified)


@pytest.mark.parametrize(
    ("key", "code", "words"),
    [
        ("mallory", refusal.OTHER_KEY, "which this node does not know"),
        ("bob", refusal.KEY_NOT_IN_FORCE, "a key of bob that is not in force on 2026-06-01"),
        # The key of an authority signs certificates only.
        ("authority", refusal.OTHER_KEY, "which this node does not know"),
    ],
)
def test_verify_signature_by_key_that_does_not_count_is_refused(
    keys: Keys, allowed: str, key: str, code: str, words: str
) -> None:
    outcome = verify(allowed, keys.sign(TEXT, key))
    assert code_of(outcome) == code
    assert words in str(outcome)


@pytest.mark.parametrize(
    ("authority", "principal", "validity", "words"),
    [
        ("authority", "ci@lab", "20240101:20240201", "Certificate invalid: expired"),
        ("authority", "ci@lab", "20270101:20270201", "Certificate invalid: not yet valid"),
        ("authority", "ci@other", "always:forever", "name is not a listed principal"),
        ("mallory", "ci@lab", "always:forever", "none of its authorities"),
    ],
)
def test_verify_signature_by_other_certificate_is_refused(
    keys: Keys, allowed: str, authority: str, principal: str, validity: str, words: str
) -> None:
    outcome = verify(allowed, keys.sign(TEXT, keys.certificate(authority, "short", principal, validity)))
    assert code_of(outcome) == refusal.CERTIFICATE
    assert words in str(outcome)


def test_verify_signature_for_another_purpose_is_refused(keys: Keys, allowed: str) -> None:
    outcome = verify(allowed, keys.sign(TEXT, "alice", "git"))
    assert code_of(outcome) == refusal.NAMESPACE
    assert "'git'" in str(outcome)


@pytest.mark.parametrize(
    "text", [TEXT.replace(b'"serial": 7', b'"serial": 8'), TEXT + b"\n", b""], ids=["serial", "line feed", "empty"]
)
def test_verify_signature_of_another_text_is_refused(keys: Keys, allowed: str, text: bytes) -> None:
    assert code_of(verify(allowed, keys.sign(TEXT, "alice"), text)) == refusal.CHANGED


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN SSH SIGNATURE-----\n"])
def test_verify_of_no_signature_is_refused(allowed: str, damage: bytes) -> None:
    assert code_of(verify(allowed, damage)) == refusal.DAMAGED


def test_verify_of_truncated_signature_is_refused(keys: Keys, allowed: str) -> None:
    lines = keys.sign(TEXT, "alice").splitlines(keepends=True)
    assert code_of(verify(allowed, b"".join([*lines[:-2], lines[-1]]))) in (refusal.CHANGED, refusal.DAMAGED)


def test_verify_signature_by_revoked_key_is_refused(keys: Keys, allowed: str) -> None:
    signature = keys.sign(TEXT, "alice")
    for revoked in (f"{keys.public('alice')}\n".encode(), keys.krl(f"{keys.private('alice')}.pub")):
        assert code_of(verify(allowed, signature, revoked=revoked)) == refusal.REVOKED
    assert isinstance(verify(allowed, signature, revoked=f"{keys.public('bob')}\n".encode()), Verified)


def test_verify_signature_by_revoked_certificate_is_refused(keys: Keys, allowed: str) -> None:
    authority = f"{keys.private('authority')}.pub"
    signature = keys.sign(TEXT, keys.certificate("authority", "short", "ci@lab", "always:forever", serial=5))
    assert code_of(verify(allowed, signature, revoked=keys.krl("-s", authority, "-", data=b"serial: 5\n"))) == refusal.REVOKED
    assert isinstance(verify(allowed, signature, revoked=keys.krl("-s", authority, "-", data=b"serial: 6\n")), Verified)


def test_verify_under_damaged_list_of_revoked_keys_is_refused(keys: Keys, allowed: str) -> None:
    damaged = keys.krl(f"{keys.private('bob')}.pub")[:-9]
    assert code_of(verify(allowed, keys.sign(TEXT, "alice"), revoked=damaged)) == refusal.REVOKED


def test_is_revoked_does_not_ask_who_is_trusted(keys: Keys) -> None:
    certificate = keys.certificate("authority", "short", "ci@lab", "20240101:20240201")
    for signature, key in ((keys.sign(TEXT, "alice"), "alice"), (keys.sign(TEXT, certificate), "short")):
        for revoked, expected in ((b"", False), (keys.krl(f"{keys.private(key)}.pub"), True)):
            with SshSignatures((), revoked, NOW) as ssh:
                assert ssh.is_revoked(TEXT, signature) is expected


def test_is_revoked_of_no_signature_is_true() -> None:
    """A record that was damaged opens no way back."""
    with SshSignatures((), b"", NOW) as ssh:
        assert ssh.is_revoked(TEXT, b"-----BEGIN SSH SIGNATURE-----\n")


def test_verify_leaves_no_files(keys: Keys, allowed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = []
    with SshSignatures(read_allowed_signers(allowed, "file"), b"", NOW) as ssh:
        ssh.verify(TEXT, keys.sign(TEXT, "alice"))
        [directory] = tmp_path.iterdir()
        seen.append(stat.S_IMODE(directory.stat().st_mode))
    assert (seen, os.listdir(tmp_path)) == ([0o700], [])


def program(directory: pathlib.Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (directory / name).chmod(0o755)


def test_verify_with_too_old_openssh_is_error(
    keys: Keys, allowed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """What OpenSSH 8.0 of EL 8 answers."""
    signature = keys.sign(TEXT, "alice")
    program(tmp_path, "ssh-keygen", "echo 'unknown option -- Y' >&2; exit 1")
    program(tmp_path, "ssh", "echo 'OpenSSH_8.0p1, OpenSSL 1.1.1k  FIPS 25 Mar 2021' >&2")
    monkeypatch.setattr(ssh_signatures, "_DIRECTORIES", str(tmp_path))
    with pytest.raises(DeliveryError, match=r"is of OpenSSH 8\.0 on this host; signatures need 8\.7 or newer"):
        verify(allowed, signature)


def test_verify_without_openssh_is_error(allowed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(ssh_signatures, "_DIRECTORIES", str(tmp_path))
    with pytest.raises(DeliveryError, match="ssh-keygen: is not installed on this host"):
        verify(allowed, b"")


def test_verify_with_program_that_does_not_end_is_error(
    keys: Keys, allowed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    signature = keys.sign(TEXT, "alice")
    program(tmp_path, "ssh-keygen", "exec /bin/sleep 600")
    monkeypatch.setattr(ssh_signatures, "_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(ssh_signatures, "_SECONDS", 0.2)
    with pytest.raises(DeliveryError, match="did not end within"):
        verify(allowed, signature)
