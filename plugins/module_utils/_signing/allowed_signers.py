# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The files that name keys: allowed_signers, others of its form, and the list of revoked keys.

The formats are OpenSSH's (ALLOWED SIGNERS and KEY REVOCATION LISTS in ssh-keygen(1)). Less is
accepted than ssh-keygen accepts. It takes a line without ``namespaces=`` as good for any purpose,
and passes over lines of a list of revoked keys that it cannot read.
"""

from __future__ import annotations

import dataclasses
import datetime
import re

from .._errors import DeliveryError
from .ssh_formats import FormatError, PublicKey, read_public_key

# A signature for another purpose, such as that of a commit, has another one.
NAMESPACE = "release@lorafleet.delivery"
# For signatures of the roots over what nodes trust.
ROOT_NAMESPACE = "trust@lorafleet.delivery"
# For signatures of snapshots of the fleet.
SNAPSHOT_NAMESPACE = "snapshot@lorafleet.delivery"
MAX_LINES = 1000
KRL_MAGIC = b"SSHKRL\n\0"

_SIGNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_OPTION = re.compile(r'([a-z-]+)(?:="([^"\\]*)")?(?:,(?=.)|$)')
_TIME = re.compile(r"(\d{8})(?:(\d{4})(\d{2})?)?Z?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Signer:
    """A line of allowed_signers: a key of somebody, or of an authority that certifies their keys.

    It is in force from ``after`` to ``before``, where they are set.
    """

    name: str
    key: PublicKey
    authority: bool = False
    after: datetime.datetime | None = None
    before: datetime.datetime | None = None

    def in_force(self, at: datetime.datetime) -> bool:
        return (self.after is None or self.after <= at) and (self.before is None or at <= self.before)

    def line(self, namespace: str = NAMESPACE) -> str:
        """The line as all versions of ssh-keygen since 8.7 read it, with times in UTC.

        A ``Z`` behind a time is known from 9.1 on. Older versions take a time as local, and so do
        newer ones without it: ``ssh_signatures`` sets their time zone.
        """
        options = ["cert-authority"] if self.authority else []
        options.append(f'namespaces="{namespace}"')
        for name, time in (("valid-after", self.after), ("valid-before", self.before)):
            if time is not None:
                options.append(f'{name}="{ssh_time(time)}"')
        return f"{self.name} {','.join(options)} {self.key}"


def ssh_time(time: datetime.datetime) -> str:
    """Return a time in UTC in the form of ssh-keygen's options."""
    return time.astimezone(datetime.timezone.utc).strftime("%Y%m%d%H%M%S")


def read_allowed_signers(text: str, path: str, namespace: str = NAMESPACE) -> tuple[Signer, ...]:
    """Return the signers of a file. Raises DeliveryError for the first line that is not one."""
    signers: list[Signer] = []
    for number, line in _lines(text, path):
        try:
            signer = _signer(line, namespace)
            for other in signers:
                if other.key == signer.key and other.name != signer.name:
                    raise FormatError(f"gives {signer.name} the key of {other.name}, who could then count as two")
        except FormatError as exc:
            remedy = f'Write: NAME namespaces="{namespace}" KEYTYPE KEY, as docs/signing.md shows.'
            raise DeliveryError.of(path, f"line {number} {exc}.", remedy) from None
        signers.append(signer)
    return tuple(signers)


def check_revoked_keys(data: bytes, path: str) -> None:
    """Raise DeliveryError unless this is a key revocation list (KRL), or a list of public keys.

    Whether a KRL is complete is for ssh-keygen to say, which accepts nothing under one that is not.
    """
    if data.startswith(KRL_MAGIC):
        return
    for number, line in _lines(data.decode("utf-8", "replace"), path):
        parts = line.split(None, 2)
        try:
            read_public_key(parts[0], parts[1] if len(parts) > 1 else "")
        except FormatError as exc:
            remedy = "Write one public key on each line, or the file that ssh-keygen -k makes."
            raise DeliveryError.of(path, f"line {number} {exc}.", remedy) from None


def _lines(text: str, path: str) -> list[tuple[int, str]]:
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise DeliveryError.of(path, f"has more than {MAX_LINES} lines.", "Use certificates for so many keys.")
    stripped = ((number, line.strip()) for number, line in enumerate(lines, 1))
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]


def _signer(line: str, namespace: str) -> Signer:
    parts = line.split(None, 4)
    if len(parts) < 4:
        raise FormatError("has not the four parts name, options, type and key")
    name, options, key_type, key = parts[:4]
    if not _SIGNER.fullmatch(name):
        raise FormatError("begins with a pattern or a list; expected the name of one signer")
    found = _options(options)
    if found.pop("namespaces", None) != namespace:
        raise FormatError(f'lacks the option namespaces="{namespace}", so it is for other signatures, too')
    authority = "cert-authority" in found
    if found.pop("cert-authority", None) is not None:
        raise FormatError("has a value for cert-authority")
    after, before = (_time(found.pop(name, None)) for name in ("valid-after", "valid-before"))
    if found:
        raise FormatError(f"has the unknown option {min(found)}")
    if after is not None and before is not None and before <= after:
        raise FormatError("ends before it begins")
    public_key = read_public_key(key_type, key)
    if public_key.is_certificate:
        raise FormatError("has a certificate; expected the key of its authority, with cert-authority")
    return Signer(name, public_key, authority, after, before)


def _options(text: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    position = 0
    while position < len(text):
        option = _OPTION.match(text, position)
        if option is None:
            raise FormatError('has options of another form than NAME or NAME="VALUE", with commas between them')
        if option[1] in found:
            raise FormatError(f"has the option {option[1]} twice")
        found[option[1]] = option[2]
        position = option.end()
    return found


def _time(text: str | None) -> datetime.datetime | None:
    """Return the time of an option. Without a ``Z``, it is in UTC, too."""
    if text is None:
        return None
    digits = _TIME.fullmatch(text)
    if digits is None:
        raise FormatError("has a time of another form than YYYYMMDDZ or YYYYMMDDHHMMZ")
    day, minute, second = (digits[1], digits[2] or "0000", digits[3] or "00")
    try:
        found = datetime.datetime.strptime(day + minute + second, "%Y%m%d%H%M%S")
    except ValueError:
        raise FormatError(f"has the time {text}, which does not exist") from None
    return found.replace(tzinfo=datetime.timezone.utc)
