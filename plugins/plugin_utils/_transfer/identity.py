# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""Keys and certificates for the ends of transfers. None of them outlives the run."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer.tls import NAME

# The other end knows this certificate, so the clocks of the hosts need not be right.
_VALID = datetime.timedelta(days=3650)


@dataclasses.dataclass(frozen=True)
class Identity:
    """A key and a certificate as PEM texts, for one end of one transfer. In memory only."""

    certificate: str
    key: str = dataclasses.field(repr=False)

    @classmethod
    def new(cls) -> Identity:
        key = _new_key()
        return cls(_certificate(key, NAME), _private(key))


@dataclasses.dataclass(frozen=True)
class Authority:
    """What signs the certificates of one swarm, as PEM texts."""

    certificate: str
    key: str = dataclasses.field(repr=False)

    @classmethod
    def new(cls) -> Authority:
        key = _new_key()
        return cls(_certificate(key, "authority"), _private(key))

    def issue(self, name: str) -> Identity:
        """An identity that is made out to a name."""
        from cryptography.hazmat.primitives import serialization

        key = _new_key()
        signing = serialization.load_pem_private_key(self.key.encode(), None)
        return Identity(_certificate(key, name, "authority", signing), _private(key))


def _new_key() -> t.Any:
    # A dependency of ansible-core, which takes a while to be imported.
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _certificate(key: t.Any, name: str, issuer: str = "", signing: t.Any = None) -> str:
    """A certificate for a key. It is signed with the key itself unless there is an issuer."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    def named(common: str) -> t.Any:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer or name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=not issuer, path_length=None if issuer else 0), critical=True)
        .sign(signing or key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private(key: t.Any) -> str:
    from cryptography.hazmat.primitives import serialization

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return str(key.private_bytes(*form).decode())


def login_key() -> tuple[str, str]:
    """A new key for an ssh login: the private one, and the public one as a line has it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), public.decode()
