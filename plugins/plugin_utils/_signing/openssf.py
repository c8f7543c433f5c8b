# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Bundles that OpenSSF's model-signing verifies: the files of a release, signed with an EC key.

A bundle is a DSSE envelope with an in-toto statement, in the form of model-signing 1.0. Its hashes
are those of the manifest, so no file is read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_REMEDY = "Make one with: openssl ecparam -genkey -name prime256v1 -noout -out KEY."


def bundle_of(manifest: Manifest, key: str) -> bytes:
    """Return the bundle of a release, signed with the key in a PEM file. Raises DeliveryError."""
    # A dependency of ansible-core, which takes a while to be imported.
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = _private_key(key)
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    hint = hashlib.sha256(private.public_key().public_bytes(*form)).hexdigest()
    payload = json.dumps(_statement(manifest)).encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)
    algorithm = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[private.curve.key_size]
    signature = private.sign(signed, ec.ECDSA(algorithm))
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode() + b"\n"


def _statement(manifest: Manifest) -> dict[str, t.Any]:
    """Return the in-toto statement about the files of a release."""
    files = sorted(manifest.files, key=lambda entry: entry.path)
    root = hashlib.sha256(b"".join(bytes.fromhex(entry.sha256) for entry in files)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": manifest.name, "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": entry.path, "algorithm": "sha256", "digest": entry.sha256} for entry in files],
        },
    }


def _private_key(path: str) -> t.Any:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        with open(os.path.expanduser(path), "rb") as stream:
            key = serialization.load_pem_private_key(stream.read(), None)
    except OSError as exc:
        raise DeliveryError.of(path, f"cannot be read: {exc.strerror}.", _REMEDY) from exc
    except (ValueError, TypeError) as exc:
        raise DeliveryError.of(path, "is no private key in PEM without a passphrase.", _REMEDY) from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise DeliveryError.of(path, "is no key of a curve that model-signing accepts: P-256, P-384 or P-521.", _REMEDY)
    return key
