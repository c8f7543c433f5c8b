# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The formats of OpenSSH that are read here: public keys and armored signatures (SSHSIG).

OpenSSH's PROTOCOL.sshsig describes the second, and PROTOCOL.u2f the signatures of security keys.
Nothing is verified here; ``ssh_signatures`` lets ``ssh-keygen`` do that. Both need to know which
key and which namespace a signature has, to say why it is refused.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import re

from .._hashing import SHORT

# A signature by a certificate of an RSA key with many principals has a few kB.
MAX_SIGNATURE = 1 << 14
_ARMOR = re.compile(rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n-----END SSH SIGNATURE-----\n")
_MAGIC = b"SSHSIG\0\0\0\1"
_KEY_TYPE = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]{1,60}")
_CERTIFICATE = "-cert-v01@openssh.com"
# The flag of a signature by a security key that somebody has touched.
_PRESENT = 1
# The strings of a public key in a certificate (PROTOCOL.certkeys), by the beginning of its type.
_KEY_STRINGS = {"ssh-ed25519": 1, "ssh-rsa": 2, "ecdsa-": 2, "sk-ssh-": 2, "sk-ecdsa-": 3}


class FormatError(ValueError):
    """Why a text is refused. It begins with a verb."""


@dataclasses.dataclass(frozen=True)
class PublicKey:
    """A public key or certificate: its type and its bytes in OpenSSH's form."""

    type: str
    blob: bytes

    @property
    def is_certificate(self) -> bool:
        return self.type.endswith(_CERTIFICATE)

    @property
    def fingerprint(self) -> str:
        """The form in which ``ssh-keygen -l`` shows a key. It shows the key of a certificate."""
        return f"SHA256:{base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip('=')}"

    @property
    def short(self) -> str:
        """The beginning of its hash, as part of the name of a file."""
        return hashlib.sha256(self.blob).hexdigest()[:SHORT]

    @property
    def valid_after(self) -> int:
        """When a certificate begins, in seconds since 1970. Raises FormatError."""
        strings = next((n for start, n in _KEY_STRINGS.items() if self.type.startswith(start)), None)
        if strings is None:
            raise FormatError("is by a certificate of an unknown type")
        # Its type, a nonce and the key; a serial and a number for users; its name and principals.
        rest = self.blob
        for _string_before in range(2 + strings):
            rest = _string(rest)[1]
        rest = rest[12:]
        for _string_before in range(2):
            rest = _string(rest)[1]
        if len(rest) < 8:
            raise FormatError("is by a certificate that ends too early")
        return int.from_bytes(rest[:8], "big")

    def __str__(self) -> str:
        """The key as authorized_keys and similar files have it."""
        return f"{self.type} {base64.b64encode(self.blob).decode()}"


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a signature says of itself.

    ``touched`` is False if it is by a FIDO security key that nobody has touched.
    """

    key: PublicKey
    namespace: str
    touched: bool


def read_public_key(key_type: str, text: str) -> PublicKey:
    """Return the key of a type and its base64 text. Raises FormatError."""
    if not _KEY_TYPE.fullmatch(key_type):
        raise FormatError("has no type of a key where one is expected")
    blob = _decoded(text)
    if _string(blob)[0] != key_type.encode():
        raise FormatError(f"has a key that is not of the type {key_type}")
    return PublicKey(key_type, blob)


def read_signature(data: bytes) -> Signature:
    """Return what is in the file that ``ssh-keygen -Y sign`` writes. Raises FormatError."""
    if len(data) > MAX_SIGNATURE:
        raise FormatError(f"has {len(data)} bytes; at most {MAX_SIGNATURE} are accepted")
    armor = _ARMOR.fullmatch(data)
    if armor is None:
        raise FormatError("is not a signature that ssh-keygen -Y sign has written")
    blob = _decoded(armor[1].replace(b"\n", b"").decode())
    if not blob.startswith(_MAGIC):
        raise FormatError("is not a signature of a version that OpenSSH has defined")
    key, rest = _string(blob[len(_MAGIC) :])
    namespace, rest = _string(rest)
    key_type = _string(key)[0].decode("ascii", "replace")
    if not _KEY_TYPE.fullmatch(key_type):
        raise FormatError("has no key of a known type")
    _reserved, rest = _string(rest)
    _algorithm, rest = _string(rest)
    return Signature(PublicKey(key_type, key), namespace.decode("ascii", "replace"), _is_touched(_string(rest)[0]))


def _is_touched(signature: bytes) -> bool:
    """Return whether a signature is by a security key with a touch, or by another key.

    In a type ``sk-`` or ``webauthn-sk-``, a byte with flags follows what the key has signed. The
    signature covers it.
    """
    signature_type, rest = _string(signature)
    if not signature_type.startswith((b"sk-", b"webauthn-sk-")):
        return True
    _signed, rest = _string(rest)
    return bool(rest) and bool(rest[0] & _PRESENT)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("has text that is not base64") from None


def _string(data: bytes) -> tuple[bytes, bytes]:
    """Return the first string of OpenSSH's wire format, and what follows it."""
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 + length or len(data) < 4:
        raise FormatError("ends too early")
    return data[4 : 4 + length], data[4 + length :]
