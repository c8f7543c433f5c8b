# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The manifest: JSON that describes one adapter exactly. This file knows its form; C(_describe) makes one from a directory."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing as t

from .._errors import DeliveryError
from .._formats.strict_json import is_integer
from .._hashing import SHORT, release_digest
from .._names import check_name
from .files import PICKLE_FILE, SAFETENSORS_FILE

SCHEMA = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, order=True)
class FileEntry:
    """One file of an adapter. C(path) is a plain file name: adapters have no subdirectories."""

    path: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """One tensor of the weights file; C(dtype) as safetensors spells it (F32, BF16, ...), C(sha256) of its bytes in the file.

    C(norm) is what C(_safetensors) has of it, for reports; None where it was not taken.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    norm: t.Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What one adapter is: its files, tensors, parsed adapter_config.json and the trainer's library versions.

    Where they are known also C(base), the identity of the base it was trained on (see C(_base_identity)), and C(golden), what
    it answered there (see C(_golden)). None of these three goes into the digest: the content alone names a release.
    """

    name: str
    files: tuple[FileEntry, ...]
    tensors: tuple[TensorEntry, ...]
    config: dict[str, t.Any]
    versions: dict[str, str]
    base: t.Optional[dict[str, t.Any]] = None
    golden: t.Optional[dict[str, t.Any]] = None

    @property
    def digest(self) -> str:
        """64 hexadecimal digits over the content alone; see C(release_digest)."""
        return release_digest((entry.path, entry.size, entry.sha256) for entry in self.files)

    @property
    def release(self) -> str:
        """The directory name of this release."""
        return self.digest[:SHORT]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    @property
    def weights_file(self) -> str:
        """The name of the one weights file."""
        paths = {entry.path for entry in self.files}
        return SAFETENSORS_FILE if SAFETENSORS_FILE in paths else PICKLE_FILE

    def content(self) -> dict[str, t.Any]:
        """What a report says of the files."""
        return {"digest": self.digest, "size": self.size, "files": [dataclasses.asdict(entry) for entry in self.files]}

    def to_json(self) -> dict[str, t.Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            **self.content(),
            "tensors": [{**dataclasses.asdict(entry), "shape": list(entry.shape)} for entry in self.tensors],
            "config": self.config,
            "versions": self.versions,
            "base": self.base,
            "golden": self.golden,
        }

    def to_text(self) -> str:
        """As modules hand it on: to Ansible one string, where it would look into every tensor of an object at every task."""
        return json.dumps(self.to_json(), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Manifest:
        """Read what C(to_text) wrote. Raises DeliveryError for anything else."""
        try:
            data = json.loads(text)
        except ValueError as exc:
            raise DeliveryError.of("manifest", f"is not JSON: {exc}.", "Hand it on as adapter_info returned it.") from exc
        return cls.from_json(data)

    @classmethod
    def from_json(cls, data: t.Any) -> Manifest:
        """Read a manifest back. Raises DeliveryError for another schema, a bad name or path, or a digest that does not fit."""
        try:
            if data["schema"] != SCHEMA:
                raise DeliveryError.of(
                    f"manifest of {data['name']}",
                    f"has schema {data['schema']}, this collection reads schema {SCHEMA}.",
                    "Use the same version of lorafleet.delivery on both sides.",
                )
            manifest = cls(
                name=check_name(data["name"]),
                files=tuple(
                    sorted(
                        FileEntry(check_name(entry["path"], "file"), _natural(entry["size"]), _sha256(entry["sha256"]))
                        for entry in data["files"]
                    )
                ),
                tensors=tuple(
                    TensorEntry(
                        name=str(entry["name"]),
                        dtype=str(entry["dtype"]),
                        shape=tuple(map(_natural, entry["shape"])),
                        sha256=_sha256(entry["sha256"]),
                        norm=_norm(entry.get("norm")),
                    )
                    for entry in data["tensors"]
                ),
                config=dict(data["config"]),
                versions={str(key): str(value) for key, value in data["versions"].items()},
                base=_object(data.get("base")),
                golden=_object(data.get("golden")),
            )
            digest = data["digest"]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise DeliveryError.of(
                "manifest", f"is not in the form of schema {SCHEMA}: {type(exc).__name__} {exc}.", "Freeze it again."
            ) from exc
        if len({entry.path for entry in manifest.files}) != len(manifest.files) or manifest.digest != digest:
            raise DeliveryError.of(
                f"manifest of {manifest.name}",
                f"states digest {str(digest)[:SHORT]}, its files give {manifest.release}.",
                "It was changed on the way: freeze it again.",
            )
        return manifest


def _natural(value: t.Any) -> int:
    if not is_integer(value) or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value


def _norm(value: t.Any) -> t.Optional[float]:
    if value is None:
        return None
    norm = float(value)
    if not 0 <= norm < math.inf:
        raise ValueError(f"{value!r} is no norm")
    return norm


def _object(value: t.Any) -> t.Optional[dict[str, t.Any]]:
    return None if value is None else dict(value)


def _sha256(value: t.Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{value!r} is no sha256")
    return value
