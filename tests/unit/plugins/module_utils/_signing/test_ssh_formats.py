# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The formats of OpenSSH, on what ssh-keygen writes and on anything else."""

from __future__ import annotations

import base64
import datetime
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_formats import (
    MAX_SIGNATURE,
    FormatError,
    PublicKey,
    read_public_key,
    read_signature,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.signing import Keys, run


def armored(blob: bytes) -> bytes:
    return b"-----BEGIN SSH SIGNATURE-----\n" + base64.b64encode(blob) + b"\n-----END SSH SIGNATURE-----\n"


def strings_of(text: str) -> list[bytes]:
    """Return the strings of a public key in base64."""
    found, blob = [], base64.b64decode(text)
    while blob:
        end = 4 + int.from_bytes(blob[:4], "big")
        found.append(blob[4:end])
        blob = blob[end:]
    return found


def test_read_signature_returns_key_and_namespace(keys: Keys) -> None:
    found = read_signature(keys.sign(b"text", "alice", "git"))
    assert (found.key, found.namespace) == (keys.public("alice"), "git")
    assert not found.key.is_certificate


def test_read_signature_by_certificate_returns_the_certificate(keys: Keys) -> None:
    found = read_signature(keys.sign(b"text", keys.certificate("authority", "short", "ci", "always:forever")))
    assert found.key.is_certificate
    assert found.namespace == NAMESPACE


def test_certificate_says_when_it_begins(tmp_path: pathlib.Path, keys: Keys) -> None:
    """For each type of keys. Those of tokens are made up: only public keys are needed."""
    for key_type in ("ed25519", "rsa", "ecdsa"):
        run("ssh-keygen", "-q", "-t", key_type, "-N", "", "-f", tmp_path / key_type)
    strings = {
        name: strings_of((tmp_path / f"{name}.pub").read_text(encoding="utf-8").split()[1]) for name in ("ed25519", "ecdsa")
    }
    for name, plain, token in (
        ("token", "ed25519", "sk-ssh-ed25519@openssh.com"),
        ("other", "ecdsa", "sk-ecdsa-sha2-nistp256@openssh.com"),
    ):
        blob = b"".join(len(one).to_bytes(4, "big") + one for one in (token.encode(), *strings[plain][1:], b"ssh:"))
        (tmp_path / f"{name}.pub").write_text(f"{token} {base64.b64encode(blob).decode()}\n", encoding="utf-8")
    types = set()
    for name in ("ed25519", "rsa", "ecdsa", "token", "other"):
        options = ["-I", "test", "-n", "ci,cd", "-V", "20260601100000:20260601110000", "-z", "7"]
        run("ssh-keygen", "-q", "-s", keys.private("authority"), *options, tmp_path / f"{name}.pub", TZ="UTC0")
        key_type, text, *_comment = (tmp_path / f"{name}-cert.pub").read_text(encoding="utf-8").split()
        types.add(key_type)
        assert (
            read_public_key(key_type, text).valid_after
            == datetime.datetime(2026, 6, 1, 10, tzinfo=datetime.timezone.utc).timestamp()
        )
    assert len(types) == 5


@pytest.mark.parametrize("cut", [40, 110, 130, 140])
def test_certificate_that_is_cut_off_is_error(keys: Keys, cut: int) -> None:
    path = keys.certificate("authority", "short", "ci", "always:forever")
    key_type, text, *_comment = pathlib.Path(path).read_text(encoding="utf-8").split()
    whole = read_public_key(key_type, text)
    with pytest.raises(FormatError, match="ends too early"):
        PublicKey(key_type, whole.blob[:cut]).valid_after  # noqa: B018


def test_certificate_of_unknown_type_is_error() -> None:
    with pytest.raises(FormatError, match="unknown type"):
        PublicKey("ssh-dss-cert-v01@openssh.com", b"").valid_after  # noqa: B018


def test_fingerprint_of_key_is_that_of_ssh_keygen(keys: Keys) -> None:
    shown = run("ssh-keygen", "-l", "-f", keys.private("alice")).decode()
    assert keys.public("alice").fingerprint in shown.split()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a signature that ssh-keygen -Y sign has written"),
        (b"x" * (MAX_SIGNATURE + 1), "at most"),
        (armored(b"SSHSIG\0\0\0\2"), "of a version"),
        (armored(b"SSHSIG\0\0\0\1\0"), "ends too early"),
        (armored(b"SSHSIG\0\0\0\1\xff\xff\xff\xff"), "ends too early"),
        (armored(b"SSHSIG\0\0\0\1" + b"\0\0\0\5\0\0\0\1x\0\0\0\1n"), "no key of a known type"),
        (b"-----BEGIN SSH SIGNATURE-----\nA\n-----END SSH SIGNATURE-----\n", "not base64"),
    ],
)
def test_read_signature_of_anything_else_is_error(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read_signature(data)


@pytest.mark.fuzz
@given(st.binary(max_size=300))
def test_read_signature_of_any_bytes_is_error_or_signature(data: bytes) -> None:
    for one in (data, armored(b"SSHSIG\0\0\0\1" + data)):
        try:
            read_signature(one)
        except FormatError:
            continue


@pytest.mark.parametrize(
    ("key_type", "text", "words"),
    [
        ("password", "AAAA", "no type of a key"),
        ("ssh-ed25519", "*", "not base64"),
        ("ssh-ed25519", "AAAA", "ends too early"),
        ("ssh-ed25519", "AAAAB3NzaC1yc2E=", "not of the type ssh-ed25519"),
    ],
)
def test_read_public_key_of_anything_else_is_error(key_type: str, text: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read_public_key(key_type, text)
