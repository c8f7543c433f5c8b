# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures by FIDO security keys, verified by a real ssh-keygen. The key is one in software."""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing import refusal
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import NAMESPACE, read_allowed_signers
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.refusal import Refusal
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_formats import read_signature
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_signatures import SshSignatures, Verified

from tests.support.fido import ECDSA, ED25519, PRESENT, VERIFIED, SecurityKey
from tests.support.signing import NOW, signer_line

TEXT = b"statement"


@pytest.fixture(params=[ED25519, ECDSA])
def key(request: pytest.FixtureRequest) -> SecurityKey:
    return SecurityKey(request.param)


def verify(key: SecurityKey, signature: bytes, text: bytes = TEXT) -> t.Union[Verified, Refusal]:
    with SshSignatures(read_allowed_signers(signer_line("alice", key.public), "file"), b"", NOW) as ssh:
        return ssh.verify(text, signature)


def code_of(outcome: t.Union[Verified, Refusal]) -> str:
    assert isinstance(outcome, Refusal), outcome
    return outcome.code


@pytest.mark.parametrize("flags", [PRESENT, PRESENT | VERIFIED])
def test_verify_signature_by_security_key_that_was_touched_is_good(key: SecurityKey, flags: int) -> None:
    signature = key.sign(TEXT, NAMESPACE, flags)
    assert read_signature(signature).key == key.public
    assert verify(key, signature) == Verified("alice", key.public.fingerprint)
    assert code_of(verify(key, signature, TEXT + b" ")) == refusal.CHANGED


@pytest.mark.parametrize("flags", [0, VERIFIED])
def test_verify_signature_by_security_key_that_nobody_has_touched_is_refused(key: SecurityKey, flags: int) -> None:
    assert code_of(verify(key, key.sign(TEXT, NAMESPACE, flags))) == refusal.NO_TOUCH


def test_ssh_keygen_does_not_look_for_a_touch(key: SecurityKey, tmp_path: pathlib.Path) -> None:
    """So the collection has to. Its allowed_signers has no options for security keys either."""
    (tmp_path / "signature").write_bytes(key.sign(TEXT, NAMESPACE, 0))
    for option, good in (("", True), ("no-touch-required", False), ("verify-required", False)):
        line = signer_line("alice", key.public, *filter(None, [option]))
        (tmp_path / "allowed").write_text(line, encoding="utf-8")
        command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-s", "signature", "-I", "alice", "-n", NAMESPACE]
        done = subprocess.run(command, input=TEXT, capture_output=True, cwd=tmp_path, check=False)
        assert (done.returncode == 0) is good, done
        if option:
            with pytest.raises(DeliveryError, match=f"has the unknown option {option}"):
                read_allowed_signers(line, "file")
