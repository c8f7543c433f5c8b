# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The formats of OpenSSH, on what ssh-keygen writes and on anything else."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_formats import (
    MAX_SIGNATURE,
    FormatError,
    read_public_key,
    read_signature,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.signing import Keys, run


def armored(blob: bytes) -> bytes:
    return b"-----BEGIN SSH SIGNATURE-----\n" + base64.b64encode(blob) + b"\n-----END SSH SIGNATURE-----\n"


def test_read_signature_returns_key_and_namespace(keys: Keys) -> None:
    found = read_signature(keys.sign(b"text", "alice", "git"))
    assert (found.key, found.namespace) == (keys.public("alice"), "git")
    assert not found.key.is_certificate


def test_read_signature_by_certificate_returns_the_certificate(keys: Keys) -> None:
    found = read_signature(keys.sign(b"text", keys.certificate("authority", "short", "ci", "always:forever")))
    assert found.key.is_certificate
    assert found.namespace == NAMESPACE


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
