# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys, certificates and signatures that a real ssh-keygen makes, and the trust of a node."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import subprocess
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import NAMESPACE, ROOT_NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_formats import PublicKey, read_public_key
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import Statement, statement_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import Place

FLEET = "lab"
NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


def statement_about(manifest: Manifest, serial: int = 7, **changes: t.Any) -> Statement:
    """Return a statement that was made a day before ``NOW`` and expires 90 days later."""
    times = {"issued": NOW - DAY, "expires": NOW + 89 * DAY}
    return statement_of(manifest, **{"fleet": FLEET, "serial": serial, **times, **changes})


class Keys:
    """Private keys by name, made where they are needed first."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self._signatures: dict[tuple[bytes, str, str], bytes] = {}

    def private(self, name: str) -> str:
        path = self.directory / name
        if not path.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path)
        return str(path)

    def public(self, name: str) -> PublicKey:
        self.private(name)
        key_type, text, *_comment = (self.directory / f"{name}.pub").read_text(encoding="utf-8").split()
        return read_public_key(key_type, text)

    def certificate(self, authority: str, name: str, principal: str, validity: str, serial: int = 1) -> str:
        """Return the path of a certificate that ``ssh-keygen -Y sign`` takes for a key."""
        options = ["-I", "test", "-n", principal, "-V", validity, "-z", str(serial)]
        self.private(name)
        run("ssh-keygen", "-q", "-s", self.private(authority), *options, self.directory / f"{name}.pub", TZ="UTC0")
        return str(self.directory / f"{name}-cert.pub")

    def sign(self, text: bytes, key: str, namespace: str = NAMESPACE) -> bytes:
        """Return a signature by a key, or by the certificate at a path."""
        if os.path.isabs(key):
            return self._sign(text, key, namespace)
        known = (text, key, namespace)
        if known not in self._signatures:
            self._signatures[known] = self._sign(text, self.private(key), namespace)
        return self._signatures[known]

    def _sign(self, text: bytes, path: str, namespace: str) -> bytes:
        return run("ssh-keygen", "-q", "-Y", "sign", "-f", path, "-n", namespace, data=text)

    def krl(self, *options: t.Union[str, pathlib.Path], data: bytes = b"") -> bytes:
        """Return a key revocation list."""
        path = self.directory / "krl"
        run("ssh-keygen", "-q", "-k", "-f", path, *options, data=data)
        return path.read_bytes()


def offered(keys: Keys, manifest: Manifest, serial: int, signer: str = "alice") -> dict[str, t.Any]:
    """Return an entry of the option ``signed`` of modules, about a release that is signed today."""
    today = datetime.datetime.now(tz=datetime.timezone.utc)
    text = statement_about(manifest, serial, issued=today, expires=today + DAY).to_bytes()
    return {"adapter": manifest.name, "statement": text.decode(), "signatures": [keys.sign(text, signer).decode()]}


def signer_line(name: str, key: PublicKey, *options: str, namespace: str = NAMESPACE) -> str:
    return f"{name} {','.join([*options, f'namespaces={json.dumps(namespace)}'])} {key}\n"


def root_lines(keys: Keys, *people: str) -> str:
    return "".join(signer_line(name, keys.public(name), namespace=ROOT_NAMESPACE) for name in people)


def write_trust(
    base: pathlib.Path,
    allowed_signers: str,
    revoked: t.Optional[bytes] = None,
    roots: t.Optional[str] = None,
    snapshot_signers: t.Optional[str] = None,
    **policy: t.Any,
) -> Place:
    """Write what a node trusts, as ``trust.yml`` does. It belongs to the user of the tests."""
    directory = base / "lorafleet" / "trust"
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    content = {"fleet": FLEET, "required": True, "threshold": 1, "version": 1, **policy}
    (directory / "policy.json").write_text(json.dumps(content), encoding="utf-8")
    (directory / "allowed_signers").write_text(allowed_signers, encoding="utf-8")
    if revoked is not None:
        (directory / "revoked_keys").write_bytes(revoked)
    for name, text in (("roots", roots), ("snapshot_signers", snapshot_signers)):
        if text is not None:
            (directory / name).write_text(text, encoding="utf-8")
    for path in (directory.parent, directory):
        path.chmod(0o755)
    for path in directory.iterdir():
        path.chmod(0o644)
    return Place(str(directory), os.geteuid())


def run(*command: t.Union[str, pathlib.Path], data: bytes = b"", **environment: str) -> bytes:
    """Return the output of a command, which must succeed."""
    done = subprocess.run(
        list(map(str, command)), input=data, capture_output=True, check=False, timeout=60, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
