# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A FIDO security key in software: what ssh-keygen -Y sign gets from one.

PROTOCOL.u2f and PROTOCOL.sshsig of OpenSSH describe the formats. A real key asks for a touch before
it sets PRESENT, and for a PIN before it sets VERIFIED.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap

from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_formats import PublicKey
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

PRESENT, VERIFIED = 1, 4
ED25519, ECDSA = "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"
_APPLICATION = b"ssh:"


class SecurityKey:
    """A new key of a type."""

    def __init__(self, key_type: str = ED25519) -> None:
        self._type = key_type
        self._ed25519 = ed25519.Ed25519PrivateKey.generate()
        self._ecdsa = ec.generate_private_key(ec.SECP256R1())
        self._counter = 0

    @property
    def public(self) -> PublicKey:
        if self._type == ED25519:
            parts = [self._ed25519.public_key().public_bytes_raw()]
        else:
            form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            parts = [b"nistp256", self._ecdsa.public_key().public_bytes(*form)]
        return PublicKey(self._type, b"".join(map(_string, (self._type.encode(), *parts, _APPLICATION))))

    def sign(self, text: bytes, namespace: str, flags: int) -> bytes:
        """Return an armored signature with these flags."""
        self._counter += 1
        signed = b"".join(map(_string, (namespace.encode(), b"", b"sha512", hashlib.sha512(text).digest())))
        said = bytes([flags]) + self._counter.to_bytes(4, "big")
        challenge = hashlib.sha256(_APPLICATION).digest() + said + hashlib.sha256(b"SSHSIG" + signed).digest()
        signature = _string(self._type.encode()) + _string(self._signature(challenge)) + said
        parts = (self.public.blob, namespace.encode(), b"", b"sha512", signature)
        text = base64.b64encode(b"SSHSIG\0\0\0\1" + b"".join(map(_string, parts)))
        lines = "\n".join(textwrap.wrap(text.decode(), 70))
        return f"-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----\n".encode()

    def _signature(self, challenge: bytes) -> bytes:
        if self._type == ED25519:
            return self._ed25519.sign(challenge)
        found = utils.decode_dss_signature(self._ecdsa.sign(challenge, ec.ECDSA(hashes.SHA256())))
        return b"".join(_string(number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in found)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
