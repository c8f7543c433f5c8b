# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The directory with signed statements, made for git.

SIGNATURES/NAME/DIGEST12.json           the statement
SIGNATURES/NAME/DIGEST12.*.sig          its signatures, one file for each key
SIGNATURES/NAME/DIGEST12.manifest       the manifest whose sha256 the statement has
SIGNATURES/NAME/DIGEST12.openssf        a bundle for model-signing, if there is one
SIGNATURES/fleet.json, fleet.*.sig      the snapshot of the fleet, and its signatures

Nothing is verified here.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import glob
import os
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.snapshot import MAX_BYTES as MAX_SNAPSHOT
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_formats import MAX_SIGNATURE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import (
    MAX_BYTES,
    Statement,
    manifest_sha256,
    read_statement,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import MOST_SIGNATURES

from .._once import once_a_run


class SignedFile:
    """A text, and its signatures in files beside it."""

    def __init__(self, base: str, limit: int) -> None:
        self.text = f"{base}.json"
        self._base = base
        self._limit = limit

    def signature(self, signer: str) -> str:
        """Return the path of a signature. ``signer`` tells it from those of others."""
        return f"{self._base}.{signer}.sig"

    def signatures(self) -> list[str]:
        return sorted(glob.glob(f"{glob.escape(self._base)}.*.sig"))

    def read(self) -> dict[str, t.Any] | None:
        """Return the text and its signatures, or None if there is no text.

        Raises DeliveryError for a file that cannot be one.
        """
        if not os.path.lexists(self.text):
            return None
        paths = self.signatures()
        if len(paths) > MOST_SIGNATURES:
            problem = f"has {len(paths)} signatures; at most {MOST_SIGNATURES} are read."
            raise DeliveryError.of(self.text, problem, "Delete those that are no longer needed.")
        return {"statement": _read(self.text, self._limit), "signatures": [_read(path, MAX_SIGNATURE) for path in paths]}


class SignatureFiles(SignedFile):
    """The files about one release."""

    def __init__(self, directory: str, name: str, release: str) -> None:
        self.directory = os.path.join(directory, name)
        super().__init__(os.path.join(self.directory, release), MAX_BYTES)
        self.manifest = _manifest_path(self.directory, release)
        self.openssf = os.path.join(self.directory, f"{release}.openssf")

    def manifest_of(self, statement: Statement) -> Manifest | None:
        """Return the manifest of another release of the adapter, None without the signed one."""
        with contextlib.suppress(OSError, DeliveryError), open(
            _manifest_path(self.directory, statement.release), encoding="utf-8"
        ) as stream:
            manifest = Manifest.from_text(stream.read())
            return manifest if manifest_sha256(manifest) == statement.manifest else None
        return None


def snapshot_files(directory: str) -> SignedFile:
    """Return the files of the snapshot of the fleet."""
    return SignedFile(os.path.join(directory, "fleet"), MAX_SNAPSHOT)


def statements_in(directory: str) -> list[Statement]:
    """Return all statements about an adapter. Raises DeliveryError for a file that is not one."""
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(directory), "*.json"))):
        with _about_file(path):
            found.append(read_statement(_read(path, MAX_BYTES).encode("utf-8", "replace")))
    return found


@contextlib.contextmanager
def _about_file(path: str) -> c.Iterator[None]:
    """Name the file in every DeliveryError that passes through."""
    try:
        yield
    except DeliveryError as exc:
        named = (dataclasses.replace(problem, subject=f"{path}: {problem.subject}") for problem in exc.problems)
        raise DeliveryError(*named) from exc


def with_signed(arguments: c.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the arguments of a module with the statements about its manifests.

    The manifests are given as texts. Raises DeliveryError.
    """
    directory = os.path.expanduser(str(arguments.get("signatures") or ""))
    if not directory:
        return dict(arguments)
    if not os.path.isdir(directory):
        remedy = "Sign releases with playbooks/sign.yml, or leave the option empty."
        raise DeliveryError.of("signatures", f"is {directory}, which is no directory on the controller.", remedy)
    found = []
    for text in arguments.get("manifests") or []:
        name, release = _name_and_release(str(text))
        signed = SignatureFiles(directory, name, release).read()
        if signed is not None:
            found.append({"adapter": name, **signed})
    return {**arguments, "signed": found, "snapshot": snapshot_files(directory).read()}


def _name_and_release(text: str) -> tuple[str, str]:
    """Return the name and the release of a manifest. Raises DeliveryError if it is none.

    It is read once a run, whatever the number of tasks and nodes that get it.
    """
    found = once_a_run("manifest_name", text, lambda: _read_name_and_release(text))
    # Of a manifest that cannot be read, each task says why.
    return (found[0], found[1]) if found else _read_name_and_release(text)


def _read_name_and_release(text: str) -> tuple[str, str]:
    manifest = Manifest.from_text(text)
    return manifest.name, manifest.release


def _manifest_path(directory: str, release: str) -> str:
    return os.path.join(directory, f"{release}.manifest")


def _read(path: str, limit: int) -> str:
    try:
        with open(path, "rb") as stream:
            # Too long for the node, too, which says so.
            return stream.read(limit + 1).decode("utf-8", "replace")
    except OSError as exc:
        raise DeliveryError.of(path, f"cannot be read: {exc.strerror}.", "Restore it from git.") from exc
