# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bundles for OpenSSF's model-signing, which verifies them itself if it is installed."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import read_statement
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import read_trust
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.openssf import bundle_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.signing import Proposal, propose, sign

from tests.support import releases
from tests.support.releases import NAME, TEMPLATE, WEIGHTS, manifest_of, write_version
from tests.support.signing import DAY, NOW, Keys, run, signer_line, write_trust

TOOL = shutil.which("model_signing", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))


def make_key(path: pathlib.Path, curve: str = "prime256v1") -> str:
    run("openssl", "ecparam", "-genkey", "-name", curve, "-noout", "-out", path)
    run("openssl", "ec", "-in", path, "-pubout", "-out", f"{path}.pub")
    return str(path)


@pytest.mark.slow
@pytest.mark.skipif(TOOL is None, reason="model-signing is not installed")
@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
def test_model_signing_accepts_bundle_of_these_files_only(
    tmp_path: pathlib.Path, curve: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(releases.FURTHER, TEMPLATE, b"{{ tools }}")
    key, served = make_key(tmp_path / "key", curve), tmp_path / NAME
    (tmp_path / "bundle").write_bytes(bundle_of(manifest_of(1), key))
    write_version(served, 1)

    def verifies(public_key: str = f"{key}.pub") -> bool:
        command = [str(TOOL), "verify", "key", "--public_key", public_key, "--signature", str(tmp_path / "bundle"), str(served)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode == 0

    assert verifies()
    assert not verifies(f"{make_key(tmp_path / 'other', curve)}.pub")
    (served / "more").write_text("")
    assert not verifies()
    (served / "more").unlink()
    (served / WEIGHTS).write_bytes(b"others")
    assert not verifies()


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"text", "is no private key in PEM"), ("secp256k1", "is no key of a curve")],
)
def test_bundle_with_key_of_another_form_is_error(tmp_path: pathlib.Path, content: t.Union[bytes, str, None], words: str) -> None:
    path = tmp_path / "key"
    if isinstance(content, str):
        make_key(path, content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DeliveryError, match=words):
        bundle_of(manifest_of(1), str(path))


def test_sign_with_openssf_key_writes_bundle_and_its_digest(tmp_path: pathlib.Path) -> None:
    (tmp_path / "keys").mkdir()
    keys, openssf_key = Keys(tmp_path / "keys"), make_key(tmp_path / "key")
    trust = read_trust(write_trust(tmp_path, signer_line("alice", keys.public("alice"))))
    assert trust is not None

    now = NOW

    def proposed(openssf_key: str) -> Proposal:
        return propose(manifest_of(1), str(tmp_path), trust, now, 90, 14, keys.private("alice"), openssf_key)

    def signed(openssf_key: str) -> tuple[str, str | None]:
        """Return what was done, and what the statement says about a bundle."""
        proposal = proposed(openssf_key)
        sign(proposal, keys.private("alice"), trust, now, openssf_key)
        return proposal.action, read_statement(pathlib.Path(proposal.files.text).read_bytes()).openssf

    assert signed("") == ("signed", None)
    bundle = pathlib.Path(proposed("").files.openssf)
    assert not bundle.exists()
    # The statement lacks one now.
    action, digest = signed(openssf_key)
    assert (action, digest) == ("renewed", hashlib.sha256(bundle.read_bytes()).hexdigest())
    assert proposed(openssf_key).action == proposed("").action == "unchanged"
    # The next statement has none, so the bundle of this one goes.
    now += 80 * DAY
    assert signed("") == ("renewed", None)
    assert not bundle.exists()
