# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The manifest of an adapter and its form as JSON. ``describe.py`` creates it from a directory."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import re
import typing as t
import zlib

from .._errors import DeliveryError
from .._formats.strict_json import is_integer, parse_object
from .._formats.tensor_limits import LONGEST, MAX_TENSORS, is_long
from .._forms import FORMS
from .._hashing import SHORT, release_digest
from .._names import check_name, check_path
from .._text import first
from .files import PICKLE_FILE, SAFETENSORS_FILE

SCHEMA = 1
# A manifest of 100 000 tensors has about 25 MB.
MAX_TEXT = 1 << 25
# What precedes a packed manifest. No JSON begins with it.
_PACKED = "zlib:"
_REMEDY = "Pass it on as adapter_info returned it."
# An adapter can have as many as patterns, and one more.
_MOST_FACTORS = 2000

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, order=True)
class FileEntry:
    """One file of an adapter.

    ``path`` is its name, or that of a subdirectory and its name in it.
    """

    path: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """One tensor of the weights file.

    ``dtype`` is the name that safetensors uses (F32, BF16, ...). ``sha256`` is the hash of its
    bytes in the file. ``norm`` is an estimate for reports (see ``tensor_scan.TensorScan``), or
    None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    norm: float | None = None


@dataclasses.dataclass(frozen=True)
class MadeOf:
    """What a folded adapter was made of: ``digest`` is that of the adapter as trained.

    ``form`` is its form (see ``_forms.py``), ``factors`` are the different factors that its lora_B
    were multiplied by, and ``rounded`` is the number of values that the products were rounded for.
    ``difference`` is the largest difference of its logits from those of the original, in PEFT on
    the base in float32, or None if they were not compared.
    """

    digest: str
    form: str
    factors: tuple[float, ...]
    rounded: int
    difference: float | None = None

    @property
    def release(self) -> str:
        """The directory name of the original's release."""
        return self.digest[:SHORT]

    def to_json(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "factors": list(self.factors)}

    @classmethod
    def from_json(cls, data: t.Any) -> MadeOf:
        """Read it back. Raises TypeError, KeyError or ValueError for another form."""
        if set(data) != {field.name for field in dataclasses.fields(cls)}:
            raise ValueError(f"made_of has the keys {', '.join(map(str, data))}")
        if data["form"] not in FORMS[1:]:
            raise ValueError(f"{data['form']!r} is not a folded form")
        factors = tuple(float(factor) for factor in data["factors"])
        if len(factors) > _MOST_FACTORS:
            raise ValueError(f"made_of has {len(factors)} factors, more than {_MOST_FACTORS}")
        if not all(map(math.isfinite, factors)):
            raise ValueError("a factor is not finite")
        return cls(_sha256(data["digest"]), data["form"], factors, _natural(data["rounded"]), _magnitude(data["difference"]))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """One adapter: its files, tensors and parsed adapter_config.json.

    Where they are known, it also has the library ``versions`` of the training environment, the
    identity of the ``base`` that it was trained on (see ``_base/identity.py``), and the ``golden``
    that was recorded for it (see ``_golden/golden.py``). ``made_of`` says what a folded adapter was
    made of; None means as trained. These four are not part of the digest: the files alone determine
    the release.
    """

    name: str
    files: tuple[FileEntry, ...]
    tensors: tuple[TensorEntry, ...]
    config: dict[str, t.Any]
    versions: dict[str, str]
    base: dict[str, t.Any] | None = None
    golden: dict[str, t.Any] | None = None
    made_of: MadeOf | None = None

    @property
    def trained_digest(self) -> str:
        """The digest of the adapter as trained, which goldens are recorded for."""
        return self.made_of.digest if self.made_of else self.digest

    @property
    def digest(self) -> str:
        """64 hexadecimal digits computed from the files alone; see ``release_digest``."""
        return release_digest((entry.path, entry.size, entry.sha256) for entry in self.files)

    @property
    def release(self) -> str:
        """The directory name of this release."""
        return self.digest[:SHORT]

    @property
    def size(self) -> int:
        """The total size of all files in bytes."""
        return sum(entry.size for entry in self.files)

    @property
    def weights_file(self) -> str:
        """The name of the weights file."""
        paths = {entry.path for entry in self.files}
        return SAFETENSORS_FILE if SAFETENSORS_FILE in paths else PICKLE_FILE

    @property
    def directories(self) -> list[str]:
        """The names of the subdirectories that its files are in, sorted."""
        return sorted({os.path.dirname(entry.path) for entry in self.files} - {""})

    def content(self) -> dict[str, t.Any]:
        """The digest, the files and their origin, in the form that results and reports have."""
        return {
            "digest": self.digest,
            "size": self.size,
            "files": [dataclasses.asdict(entry) for entry in self.files],
            "made_of": self.made_of and self.made_of.to_json(),
        }

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
        """The manifest as modules pass it to each other.

        It is one string, because Ansible would traverse all tensors of an object in every task.
        """
        return json.dumps(self.to_json(), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Manifest:
        """Parse the output of ``to_text``. Raises DeliveryError for anything else."""
        if len(text) > MAX_TEXT:
            raise DeliveryError.of("manifest", f"has {len(text)} characters; at most {MAX_TEXT} are accepted.", _REMEDY)
        return cls.from_json(parse_object(_encoded(text), "manifest", _REMEDY))

    @classmethod
    def from_argument(cls, text: str) -> Manifest:
        """Parse what a module gets: the output of ``packed`` or ``to_text``.

        Raises DeliveryError for anything else.
        """
        if not text.startswith(_PACKED):
            return cls.from_text(text)
        return cls.from_json(parse_object(_unpacked(text), "manifest", _REMEDY))

    @classmethod
    def from_json(cls, data: t.Any) -> Manifest:
        """Build a manifest from parsed JSON.

        Raises DeliveryError for another schema, an invalid name or path, or a digest that does not
        match the files.
        """
        try:
            if not is_integer(data["schema"]) or data["schema"] != SCHEMA:
                raise DeliveryError.of(
                    f"manifest of {data['name']}",
                    f"has schema {data['schema']}; this collection reads schema {SCHEMA}.",
                    "Use the same version of lorafleet.delivery on both sides.",
                )
            if len(data["tensors"]) > MAX_TENSORS:
                problem = f"has {len(data['tensors'])} tensors; at most {MAX_TENSORS} are accepted."
                raise DeliveryError.of(f"manifest of {data['name']}", problem, "Deliver a smaller adapter.")
            manifest = cls(
                name=check_name(data["name"]),
                files=tuple(
                    sorted(
                        FileEntry(check_path(entry["path"]), _natural(entry["size"]), _sha256(entry["sha256"]))
                        for entry in data["files"]
                    )
                ),
                tensors=tuple(
                    TensorEntry(
                        name=_tensor_name(entry["name"]),
                        dtype=str(entry["dtype"]),
                        shape=tuple(map(_natural, entry["shape"])),
                        sha256=_sha256(entry["sha256"]),
                        norm=_magnitude(entry.get("norm")),
                    )
                    for entry in data["tensors"]
                ),
                config=_object(data["config"]),
                versions={str(key): str(value) for key, value in data["versions"].items()},
                base=None if data.get("base") is None else _object(data["base"]),
                golden=None if data.get("golden") is None else _object(data["golden"]),
                made_of=None if data.get("made_of") is None else MadeOf.from_json(data["made_of"]),
            )
            digest = data["digest"]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise DeliveryError.of(
                "manifest", f"does not match schema {SCHEMA}: {type(exc).__name__} {exc}.", "Run adapter_info again."
            ) from exc
        paths = {entry.path for entry in manifest.files}
        if not paths.isdisjoint(manifest.directories):
            raise DeliveryError.of(
                f"manifest of {manifest.name}",
                f"has {first(paths & {*manifest.directories})} as a file and as a directory.",
                "Run adapter_info again.",
            )
        if len(paths) != len(manifest.files) or manifest.digest != digest:
            raise DeliveryError.of(
                f"manifest of {manifest.name}",
                f"has digest {str(digest)[:SHORT]}, but its files give {manifest.release}.",
                "It was changed after it was made. Run adapter_info again.",
            )
        return manifest


def packed(text: str) -> str:
    """Return a text of a third of the length, which ``from_argument`` reads.

    A node gets the manifests with each module, and Python reads a module slowly.
    """
    # Higher levels take longer and save little more, because half of a manifest is hashes.
    return _PACKED + base64.b64encode(zlib.compress(_encoded(text), 1)).decode("ascii")


def _unpacked(text: str) -> bytes:
    """Raises DeliveryError for what ``packed`` does not return."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(base64.b64decode(text[len(_PACKED) :], validate=True), MAX_TEXT + 1)
    except (ValueError, zlib.error) as exc:
        raise DeliveryError.of("manifest", f"cannot be unpacked: {exc}.", _REMEDY) from exc
    if len(data) > MAX_TEXT or not stream.eof or stream.unused_data:
        raise DeliveryError.of("manifest", f"is not one packed text of at most {MAX_TEXT} bytes.", _REMEDY)
    return data


def _encoded(text: str) -> bytes:
    """Text with half of a surrogate pair is no JSON, as the reader will say."""
    return text.encode("utf-8", "surrogatepass")


def _tensor_name(value: t.Any) -> str:
    if not isinstance(value, str) or is_long(value):
        raise ValueError(f"a tensor has no name of at most {LONGEST}")
    return value


def _natural(value: t.Any) -> int:
    if not is_integer(value) or value < 0:
        raise ValueError(f"{value!r} is not a size")
    return value


def _magnitude(value: t.Any) -> float | None:
    if value is None:
        return None
    magnitude = float(value)
    if not 0 <= magnitude < math.inf:
        raise ValueError(f"{value!r} is not a norm or distance")
    return magnitude


def _object(value: t.Any) -> dict[str, t.Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def _sha256(value: t.Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{value!r} is not a sha256")
    return value
