# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Verifies signatures with ``ssh-keygen -Y``: no other cryptography, and no package on the node.

OpenSSH 8.7 or newer is needed. 8.1 brought ``-Y verify``, 8.2 ``-Y find-principals``, and 8.7 the
validity of keys in allowed_signers and ``-Overify-time``. EL 8 has 8.0, EL 9 has 8.7.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import re
import shutil
import subprocess
import tempfile
import typing as t

from .._errors import DeliveryError
from .allowed_signers import NAMESPACE, Signer, ssh_time
from .refusal import CERTIFICATE, CHANGED, DAMAGED, KEY_NOT_IN_FORCE, NO_TOUCH, OTHER_KEY, REVOKED, Refusal
from .refusal import NAMESPACE as OTHER_NAMESPACE
from .ssh_formats import FormatError, PublicKey, read_signature

OLDEST = (8, 7)
# A verification takes about ten milliseconds.
_SECONDS = 20
# Not the PATH of the user that modules run as.
_DIRECTORIES = "/usr/bin:/usr/local/bin:/bin"
# Times without a time zone are in UTC then.
_ENVIRONMENT = {"PATH": _DIRECTORIES, "TZ": "UTC0", "LC_ALL": "C"}
_VERSION = re.compile(r"OpenSSH_(\d+)\.(\d+)")
_NOT_AUTHORIZED = re.compile(r"certificate not authorized: ([^\n]{1,200})")
_SIGN_AGAIN = "Sign the release again with playbooks/sign.yml."
_ANYBODY = "signer"


@dataclasses.dataclass(frozen=True)
class Verified:
    """A good signature by a signer whom the node trusts."""

    signer: str
    fingerprint: str


class SshSignatures:
    """Verifies signatures for one namespace against the signers and the revoked keys of a node.

    ``at`` is the time at which keys have to be in force. A certificate counts if it was in force at
    any time from ``certified_since`` to ``at``. To be used in a ``with`` statement: ssh-keygen
    reads these files from a private directory, so that it reads what was checked. Raises
    DeliveryError where there is no ssh-keygen that can verify signatures.
    """

    def __init__(
        self,
        signers: t.Sequence[Signer],
        revoked: bytes,
        at: datetime.datetime,
        namespace: str = NAMESPACE,
        certified_since: datetime.datetime | None = None,
    ) -> None:
        self._signers = signers
        self._namespace = namespace
        self._revoked = revoked
        self._at = self._verify_time = at
        self._certified_since = certified_since or at
        self._directory = ""
        self._program = ssh_keygen()
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> SshSignatures:
        self._directory = self._closing.enter_context(tempfile.TemporaryDirectory(prefix="lorafleet-"))
        # Authorities have to be in force now, whenever they have certified.
        lines = [one.line(self._namespace) for one in self._signers if not one.authority or one.in_force(self._at)]
        self._write("allowed", "".join(f"{line}\n" for line in lines).encode())
        self._write("revoked", self._revoked)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._closing.close()

    def verify(self, statement: bytes, signature: bytes) -> Verified | Refusal:
        """Return who has signed a statement, or why the signature does not count."""
        try:
            found = read_signature(signature)
            self._verify_time = self._time_for(found.key)
        except FormatError as exc:
            return _refusal(DAMAGED, f"{exc}.", _SIGN_AGAIN)
        if found.namespace != self._namespace:
            problem = f"was made for the namespace {found.namespace!r}; expected {self._namespace!r}."
            return _refusal(OTHER_NAMESPACE, problem, _SIGN_AGAIN)
        if not found.touched:
            # ssh-keygen does not look at that, unlike sshd. Without a touch, any program on the
            # signer's machine could sign while the key is plugged in.
            problem = f"is by the security key {found.key.fingerprint}, which nobody has touched."
            return _refusal(NO_TOUCH, problem, "Sign the release again, with a key that was made without no-touch-required.")
        self._write("signature", signature)
        # A name of the certificate that no line has counts for nothing.
        for name in sorted({signer.name for signer in self._signers} & self._principals()):
            if self._is_good(statement, name, "allowed", revoked=True):
                return Verified(name, found.key.fingerprint)
        return self._why_not(statement, found.key)

    def is_revoked(self, statement: bytes, signature: bytes) -> bool:
        """Return whether the key of a signature that was accepted before is revoked now.

        It is not asked whether its signer is still trusted, or the key still in force.
        """
        try:
            key = read_signature(signature).key
        except FormatError:
            return True
        self._write("signature", signature)
        self._write("key", self._line_of(key))
        return not self._is_good(statement, _ANYBODY, "key", revoked=True)

    def _time_for(self, key: PublicKey) -> datetime.datetime:
        """Return the time at which a key or certificate has to be in force. Raises FormatError."""
        if not key.is_certificate:
            return self._at
        # If that is in force at any time since then, it is so then or at its own beginning.
        begins = min(key.valid_after, int(self._at.timestamp()))
        begin = datetime.datetime.fromtimestamp(begins, tz=datetime.timezone.utc)
        return min(self._at, max(self._certified_since, begin))

    def _why_not(self, statement: bytes, key: PublicKey) -> Refusal:
        """Return why a signature does not count. Only now, because most are good."""
        check_version()
        self._write("key", self._line_of(key))
        if not self._is_good(statement, _ANYBODY, "key", revoked=False):
            problem = "is not a signature of this statement: one of them was changed after it was made."
            return _refusal(CHANGED, problem, f"Restore both from git. {_SIGN_AGAIN}")
        if not self._is_good(statement, _ANYBODY, "key", revoked=True):
            problem = f"is by the key {key.fingerprint}, which is revoked on this node."
            return _refusal(REVOKED, problem, "Find out who has signed with it. Sign the release again with another key.")
        if key.is_certificate:
            problem = f"is by a certificate that this node does not accept: {self._why_no_certificate(statement)}."
            return _refusal(CERTIFICATE, problem, "Sign the release again with a certificate of one of its authorities.")
        lines = [signer for signer in self._signers if signer.key == key and not signer.authority]
        if lines:
            problem = f"is by a key of {lines[0].name} that is not in force on {self._at:%Y-%m-%d}."
            return _refusal(KEY_NOT_IN_FORCE, problem, "Sign the release again with a key that is in force.")
        problem = f"is by the key {key.fingerprint}, which this node does not know."
        remedy = "If it is a signer's key, bring it to the nodes with playbooks/trust.yml. Otherwise find out who has signed."
        return _refusal(OTHER_KEY, problem, remedy)

    def _principals(self) -> set[str]:
        """Return the names under which ssh-keygen finds the key of the signature in force."""
        done = self._run("find-principals", "-s", self._path("signature"), "-f", self._path("allowed"))
        return {*done.stdout.split("\n")} if done.returncode == 0 else set()

    def _why_no_certificate(self, statement: bytes) -> str:
        for name in sorted({signer.name for signer in self._signers if signer.authority}):
            reason = _NOT_AUTHORIZED.search(self._verify(statement, name, "allowed").stderr)
            if reason is not None:
                return reason[1]
        return "none of its authorities has certified it"

    def _is_good(self, statement: bytes, name: str, allowed: str, revoked: bool) -> bool:
        options = ("-r", self._path("revoked")) if revoked else ()
        return self._verify(statement, name, allowed, *options).returncode == 0

    def _verify(self, statement: bytes, name: str, allowed: str, *options: str) -> subprocess.CompletedProcess[str]:
        files = ("-f", self._path(allowed), "-s", self._path("signature"))
        return self._run("verify", *files, "-I", name, "-n", self._namespace, *options, statement=statement)

    def _run(self, operation: str, *options: str, statement: bytes = b"") -> subprocess.CompletedProcess[str]:
        command = [self._program, "-Y", operation, *options, f"-Overify-time={ssh_time(self._verify_time)}"]
        return _run(command, statement)

    def _line_of(self, key: PublicKey) -> bytes:
        """Return a file of signers with this key alone. A certificate is good as it is there."""
        return f'{_ANYBODY} namespaces="{self._namespace}" {key}\n'.encode()

    def _write(self, name: str, data: bytes) -> None:
        with open(self._path(name), "wb") as stream:
            stream.write(data)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def ssh_keygen() -> str:
    """Return the path of ssh-keygen. Raises DeliveryError if there is none."""
    program = shutil.which("ssh-keygen", path=_DIRECTORIES)
    if program is None:
        raise DeliveryError.of("ssh-keygen", "is not installed on this host.", "Install OpenSSH's client on it.")
    return program


def check_version() -> None:
    """Raise DeliveryError if this host's OpenSSH is too old.

    ssh-keygen does not tell its version, but ssh does.
    """
    program = shutil.which("ssh", path=_DIRECTORIES)
    version = _VERSION.search(_run([program, "-V"], b"").stderr) if program else None
    if version is not None and (int(version[1]), int(version[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise DeliveryError.of(
            "ssh-keygen",
            f"is of OpenSSH {version[1]}.{version[2]} on this host; signatures need {oldest} or newer.",
            "Install a newer one, or deliver to this node without signatures.",
        )


def _run(command: t.Sequence[str], data: bytes) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            command,
            input=data,
            capture_output=True,
            env=_ENVIRONMENT,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeliveryError.of(command[0], f"did not end within {_SECONDS} seconds.", "Check the load of this host.") from None
    except OSError as exc:
        raise DeliveryError.of(command[0], f"cannot be run: {exc.strerror}.", "Install OpenSSH's client again.") from exc
    texts = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, *texts)


def _refusal(code: str, problem: str, remedy: str) -> Refusal:
    return Refusal("signature", problem, remedy, None, code)
