# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The statement that people sign about a release. docs/statement.schema.json describes its form.

Its exact bytes are signed. So there is one text for each statement: a reader that accepted others
would let two readers see different things under one signature.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import typing as t

from .._adapter.manifest import Manifest
from .._errors import DeliveryError
from .._formats.strict_json import is_integer, parse_object
from .._hashing import SHORT, digest_of
from .._names import check_name
from .._text import shown

TYPE = "lorafleet.delivery/release/1"
# The longest has about 850 bytes.
MAX_BYTES = 4096
# All readers of JSON keep integers up to this one.
MAX_INTEGER = (1 << 53) - 1

_KEYS = ("_type", "fleet", "adapter", "digest", "serial", "issued", "expires", "manifest", "files", "size", "tensors")
# Only in statements about a release that has an OpenSSF bundle.
_OPENSSF = "openssf"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_REMEDY = "Sign the release again with playbooks/sign.yml."


@dataclasses.dataclass(frozen=True)
class Statement:
    """That a release of an adapter is meant to be served in a fleet.

    ``digest`` names the release, and ``manifest`` is the sha256 of its whole manifest, of which
    the digest covers the files only. Of two statements about an adapter, the one with the higher
    ``serial`` is the later one. After ``expires``, no node begins to serve the release. ``files``
    and ``tensors`` are numbers, ``size`` is in bytes: they are for people who read the statement.
    ``openssf`` is the sha256 of a bundle for model-signing, if there is one. No node reads it.
    """

    fleet: str
    adapter: str
    digest: str
    serial: int
    issued: datetime.datetime
    expires: datetime.datetime
    manifest: str
    files: int
    size: int
    tensors: int
    openssf: str | None = None

    @property
    def release(self) -> str:
        return self.digest[:SHORT]

    def to_bytes(self) -> bytes:
        """Return the text that is signed."""
        data = {"_type": TYPE, **dataclasses.asdict(self), "issued": time_text(self.issued), "expires": time_text(self.expires)}
        keys = _KEYS if self.openssf is None else (*_KEYS, _OPENSSF)
        return json.dumps({key: data[key] for key in keys}, indent=1).encode() + b"\n"


def statement_of(manifest: Manifest, fleet: str, serial: int, issued: datetime.datetime, expires: datetime.datetime) -> Statement:
    """Return the statement about a release. Raises DeliveryError if it could not be read."""
    statement = Statement(
        fleet=fleet,
        adapter=manifest.name,
        digest=manifest.digest,
        serial=serial,
        issued=issued.replace(microsecond=0),
        expires=expires.replace(microsecond=0),
        manifest=manifest_sha256(manifest),
        files=len(manifest.files),
        size=manifest.size,
        tensors=len(manifest.tensors),
    )
    # What cannot be read must not be signed.
    return read_statement(statement.to_bytes())


def manifest_sha256(manifest: Manifest) -> str:
    """Return the sha256 of the whole manifest, with tensors, base, golden and versions.

    It is that of its content, not of a text, because the store has another text than a delivery.
    """
    return digest_of(manifest.to_json())


def read_statement(data: bytes) -> Statement:
    """Return the statement that has exactly this text. Raises DeliveryError for anything else."""
    if len(data) > MAX_BYTES:
        raise _malformed(f"has {len(data)} bytes; at most {MAX_BYTES} are accepted")
    found = parse_object(data, "statement", _REMEDY)
    if found.get("_type") != TYPE:
        raise _malformed(f"has the type {shown(found.get('_type'))}; this collection reads {TYPE}")
    other = sorted({*found} - {_OPENSSF} ^ {*_KEYS})
    if other:
        raise _malformed(f"has not exactly the keys of its type: {', '.join(map(shown, other[:5]))}")
    statement = Statement(
        fleet=check_name(found["fleet"], "statement: fleet"),
        adapter=check_name(found["adapter"], "statement: adapter"),
        digest=_sha256(found, "digest"),
        serial=_integer(found, "serial"),
        issued=_time(found, "issued"),
        expires=_time(found, "expires"),
        manifest=_sha256(found, "manifest"),
        files=_integer(found, "files"),
        size=_integer(found, "size"),
        tensors=_integer(found, "tensors", least=0),
        openssf=_sha256(found, _OPENSSF) if _OPENSSF in found else None,
    )
    if statement.expires <= statement.issued:
        raise _malformed("expires before it was issued")
    if statement.to_bytes() != data:
        raise _malformed("is another text than the one that is signed, such as one with other spaces or another order")
    return statement


def time_text(time: datetime.datetime) -> str:
    """Return a time in UTC as statements have it."""
    return time.astimezone(datetime.timezone.utc).strftime(_TIME)


def time_of(text: t.Any) -> datetime.datetime:
    """Return the time that ``time_text`` gave as text. Raises ValueError for other values."""
    if not isinstance(text, str):
        raise ValueError(f"{shown(text)} is not a time")
    return datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.timezone.utc)


def _malformed(problem: str) -> DeliveryError:
    return DeliveryError.of("statement", f"{problem}.", _REMEDY)


def _sha256(found: dict[str, t.Any], key: str) -> str:
    value = found[key]
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise _malformed(f"has {shown(value)} as {key}; expected a sha256")
    return value


def _integer(found: dict[str, t.Any], key: str, least: int = 1) -> int:
    value = found[key]
    if not is_integer(value) or not least <= value <= MAX_INTEGER:
        raise _malformed(f"has {shown(value)} as {key}; expected a number from {least} to {MAX_INTEGER}")
    return value


def _time(found: dict[str, t.Any], key: str) -> datetime.datetime:
    try:
        return time_of(found[key])
    except ValueError:
        raise _malformed(f"has {shown(found[key])} as {key}; expected a time such as 2026-03-01T12:00:00Z") from None
