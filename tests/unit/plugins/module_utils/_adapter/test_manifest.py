# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests as JSON: they survive the round trip, and tampered ones are rejected."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import json
import re
import typing as t
import zlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter import manifest as module
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import (
    MAX_TEXT,
    FileEntry,
    MadeOf,
    Manifest,
    TensorEntry,
    packed,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._forms import FORMS
from hypothesis import given
from hypothesis import strategies as st

from tests.support.releases import WEIGHTS, manifest_of

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}[A-Za-z0-9]", fullmatch=True)
HASHES = st.binary(max_size=8).map(lambda data: hashlib.sha256(data).hexdigest())
FILES = st.lists(
    st.builds(FileEntry, NAMES, st.integers(0, 1 << 50), HASHES), max_size=6, unique_by=lambda entry: entry.path
).map(lambda entries: tuple(sorted(entries)))
TENSORS = st.lists(
    st.builds(TensorEntry, st.text(max_size=8), st.sampled_from(["F32", "BF16"]), st.tuples(st.integers(1, 9)), HASHES),
    max_size=4,
).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MANIFESTS = st.builds(
    Manifest,
    name=NAMES,
    files=FILES,
    tensors=TENSORS,
    config=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3)), max_size=4),
    versions=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    made_of=st.none()
    | st.builds(
        MadeOf,
        digest=HASHES,
        form=st.sampled_from(FORMS[1:]),
        factors=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(tuple),
        rounded=st.integers(0, 1 << 40),
        difference=st.none() | st.floats(0, 1e30),
    ),
)
MADE_OF = {"digest": "1" * 64, "form": "folded", "factors": [2.0], "rounded": 0, "difference": 0.0}


@given(MANIFESTS)
def test_from_json_round_trip_keeps_manifest(manifest: Manifest) -> None:
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_to_json_has_digest_and_size() -> None:
    manifest = manifest_of(1)
    data = manifest.to_json()
    assert data["schema"] == 1
    assert data["digest"] == manifest.digest
    assert data["digest"].startswith(manifest.release)
    assert len(manifest.release) == 12
    assert data["size"] == manifest.size == sum(entry["size"] for entry in data["files"])


def test_digest_depends_on_files_only() -> None:
    manifest = manifest_of(1)
    data = {**manifest.to_json(), "name": "other", "versions": {}, "config": {}, "tensors": []}
    assert Manifest.from_json(data).digest == manifest.digest
    assert manifest_of(2).digest != manifest.digest


def test_trained_digest_of_folded_adapter_is_that_of_its_original() -> None:
    manifest = manifest_of(1)
    assert manifest.trained_digest == manifest.digest
    folded = Manifest.from_json({**manifest.to_json(), "made_of": MADE_OF})
    assert (folded.trained_digest, folded.digest) == ("1" * 64, manifest.digest)
    assert folded.made_of is not None
    assert folded.made_of.release == "1" * 12


def test_from_json_order_of_files_does_not_matter() -> None:
    data = manifest_of(1).to_json()
    data["files"].reverse()
    assert Manifest.from_json(data) == manifest_of(1)


@pytest.mark.parametrize(("path", "expected"), [(WEIGHTS, WEIGHTS), ("adapter_model.bin", "adapter_model.bin")])
def test_weights_file_of_either_format(path: str, expected: str) -> None:
    manifest = Manifest("name", (FileEntry("adapter_config.json", 1, "0" * 64), FileEntry(path, 1, "0" * 64)), (), {}, {})
    assert manifest.weights_file == expected


def _set(*keys: t.Any, value: t.Any) -> t.Callable[[dict[str, t.Any]], None]:
    def change(data: t.Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


TAMPERED = {
    "digest": _set("digest", value="0" * 64),
    "digest cut short": lambda data: _set("digest", value=data["digest"][:12])(data),
    "no digest": _set("digest", value=None),
    "size": _set("files", 0, "size", value=1),
    "negative size": _set("files", 0, "size", value=-1),
    "size of text": _set("files", 0, "size", value="64"),
    "broken size": _set("files", 0, "size", value=64.0),
    "true size": _set("files", 0, "size", value=True),
    "infinite size": _set("files", 0, "size", value=float("inf")),
    "sha256": _set("files", 0, "sha256", value="0" * 64),
    "capital sha256": lambda data: _set("files", 0, "sha256", value=data["files"][0]["sha256"].upper())(data),
    "sha256 with a line end": lambda data: _set("files", 0, "sha256", value=data["files"][0]["sha256"] + "\n")(data),
    "path": _set("files", 0, "path", value="other.json"),
    "path above": _set("files", 0, "path", value="../adapter_config.json"),
    "absolute path": _set("files", 0, "path", value="/etc/passwd"),
    "path below": _set("files", 0, "path", value="checkpoint/adapter_config.json"),
    "file taken out": lambda data: data["files"].pop(),
    "file added": lambda data: data["files"].append({"path": "x.py", "size": 1, "sha256": "0" * 64}),
    "file twice": lambda data: data["files"].append(dict(data["files"][0])),
    "name above": _set("name", value="../name"),
    "empty name": _set("name", value=""),
    "sha256 of a tensor": _set("tensors", 0, "sha256", value="no hash"),
    "infinite shape": _set("tensors", 0, "shape", value=[float("inf")]),
    "negative norm": _set("tensors", 0, "norm", value=-1.0),
    "infinite norm": _set("tensors", 0, "norm", value=float("inf")),
    "norm that is no float": _set("tensors", 0, "norm", value=10**400),
    "another schema": _set("schema", value=2),
    "made of text": _set("made_of", value="folded"),
    "made of nothing": _set("made_of", value={}),
    "another key of made_of": _set("made_of", value={**MADE_OF, "host": "sbs29"}),
    "made of too many factors": _set("made_of", value={**MADE_OF, "factors": [1.0] * 2001}),
    "made of a short digest": _set("made_of", value={**MADE_OF, "digest": "1" * 12}),
    "made as trained": _set("made_of", value={**MADE_OF, "form": "as_trained"}),
    "infinite factor": _set("made_of", value={**MADE_OF, "factors": [float("inf")]}),
    "factors of text": _set("made_of", value={**MADE_OF, "factors": ["two"]}),
    "negative number of rounded values": _set("made_of", value={**MADE_OF, "rounded": -1}),
    "difference that is no number": _set("made_of", value={**MADE_OF, "difference": float("nan")}),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_from_json_tampered_manifest_is_rejected(how: str) -> None:
    data = manifest_of(1).to_json()
    TAMPERED[how](data)
    with pytest.raises(DeliveryError) as caught:
        Manifest.from_json(data)
    assert all(problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize(
    "path", ["../adapter_config.json", "/etc/passwd", "a/../b", "a/b/c", "a//b", "a/", "..", "-rf", ".hidden", ""]
)
def test_from_json_hostile_path_with_valid_digest_is_rejected(path: str) -> None:
    hostile = Manifest("name", (FileEntry(path, 1, "0" * 64),), (), {}, {}).to_json()
    with pytest.raises(DeliveryError, match="is not a valid name"):
        Manifest.from_json(hostile)


@pytest.mark.parametrize("files", [[FileEntry("file", 1, "0" * 64)] * 2, [FileEntry("file", -1, "0" * 64)]])
def test_from_json_impossible_files_with_valid_digest_are_rejected(files: list[FileEntry]) -> None:
    with pytest.raises(DeliveryError):
        Manifest.from_json(Manifest("name", tuple(files), (), {}, {}).to_json())


@pytest.mark.parametrize("schema", [0, 2])
def test_from_json_other_schema_is_rejected(schema: int) -> None:
    with pytest.raises(DeliveryError, match=f"manifest of grammar_lora: has schema {schema}; this collection reads schema 1"):
        Manifest.from_json({**manifest_of(1).to_json(), "schema": schema})


@pytest.mark.parametrize("text", ["", "{", "{'name': 'as Python would write it'}"])
def test_from_text_invalid_json_is_rejected(text: str) -> None:
    assert Manifest.from_text(manifest_of(1).to_text()) == manifest_of(1)
    with pytest.raises(DeliveryError, match=r"manifest: is not valid JSON: .* Pass it on as adapter_info returned it\."):
        Manifest.from_text(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"name": "a", "name": "b"}', 'has the key "name" twice'),
        ('{"config": {"r": NaN}}', "has the value NaN"),
        ('{"size": ' + "9" * 400 + "}", "which is too large"),
        ('{"versions": {"a": "\\ud800"}}', "is not valid JSON"),
        ("\ud800", "is not valid JSON"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "is not valid JSON"),
        ("\ufeff{}", "byte order mark"),
        ("[]", "expected an object"),
        ("<html>", "JSON"),
        ("{" + " " * MAX_TEXT + "}", f"has {MAX_TEXT + 2} characters; at most {MAX_TEXT} are accepted"),
    ],
)
def test_from_text_what_readers_understand_differently_is_rejected(text: str, problem: str) -> None:
    with pytest.raises(DeliveryError, match=re.escape(problem)):
        Manifest.from_text(text)


@given(MANIFESTS)
def test_from_argument_packed_or_not_is_the_same_manifest(manifest: Manifest) -> None:
    text = manifest.to_text()
    assert Manifest.from_argument(packed(text)) == Manifest.from_argument(text) == manifest


def test_packed_takes_less_than_half_of_a_large_manifest() -> None:
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(200)]
    tensors = tuple(TensorEntry(f"layers.{at}.lora_A.weight", "F32", (16, 3072), digest) for at, digest in enumerate(digests))
    text = dataclasses.replace(manifest_of(1), tensors=tensors).to_text()
    assert len(packed(text)) < len(text) / 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("zlib:", "is not one packed text"),
        ("zlib:e30=", "cannot be unpacked"),
        ("zlib:not base64", "cannot be unpacked"),
        ("zlib:\ud800", "cannot be unpacked"),
        (packed("{}")[:-8], "is not one packed text"),
        (f"zlib:{base64.b64encode(zlib.compress(b'{}') + b'more').decode()}", "is not one packed text"),
        (packed(" " * MAX_TEXT + "{}"), f"is not one packed text of at most {MAX_TEXT} bytes"),
        (packed("[]"), "expected an object"),
        (packed(packed("{}")), "is not valid JSON"),
        ("<html>", "JSON"),
    ],
    ids=["empty", "not deflated", "no base64", "no ASCII", "cut off", "data behind", "too long", "no object", "twice", "other"],
)
def test_from_argument_what_packed_does_not_return_is_rejected(text: str, problem: str) -> None:
    with pytest.raises(DeliveryError, match=re.escape(problem)):
        Manifest.from_argument(text)


def test_from_text_of_a_host_is_not_unpacked() -> None:
    with pytest.raises(DeliveryError, match="is not valid JSON"):
        Manifest.from_text(packed(manifest_of(1).to_text()))


def test_from_json_too_many_tensors_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = manifest_of(1)
    assert Manifest.from_json(manifest.to_json()) == manifest
    monkeypatch.setattr(module, "MAX_TENSORS", 3)
    with pytest.raises(DeliveryError, match="has 4 tensors; at most 3 are accepted"):
        Manifest.from_json(manifest.to_json())


@pytest.mark.parametrize("name", ["a" * 513, "a." * 41, 5, None])
def test_from_json_tensor_with_another_name_is_rejected(name: t.Any) -> None:
    data = manifest_of(1).to_json()
    data["tensors"][0]["name"] = name
    with pytest.raises(DeliveryError, match="a tensor has no name of at most 512 characters and 40 dots"):
        Manifest.from_json(data)


@pytest.mark.parametrize("schema", [True, 1.0, "1"])
def test_from_json_schema_that_only_equals_is_rejected(schema: t.Any) -> None:
    with pytest.raises(DeliveryError, match="has schema"):
        Manifest.from_json({**manifest_of(1).to_json(), "schema": schema})


@pytest.mark.parametrize("key", ["config", "base", "golden"])
@pytest.mark.parametrize("value", [[["a", 1]], "ab", 5])
def test_from_json_other_value_instead_of_object_is_rejected(key: str, value: t.Any) -> None:
    with pytest.raises(DeliveryError, match="is not an object"):
        Manifest.from_json({**manifest_of(1).to_json(), key: value})


def test_from_json_wrong_digest_names_both() -> None:
    with pytest.raises(DeliveryError, match=f"has digest {'0' * 12}, but its files give {manifest_of(1).release}"):
        Manifest.from_json({**manifest_of(1).to_json(), "digest": "0" * 64})


@pytest.mark.parametrize("data", [None, [], {}, "text", 7, [{}], {"schema": 1}])
def test_from_json_other_data_is_rejected(data: t.Any) -> None:
    with pytest.raises(DeliveryError):
        Manifest.from_json(data)


@pytest.mark.parametrize("key", ["schema", "name", "digest", "files", "tensors", "config", "versions"])
@given(value=JSON, missing=st.booleans())
def test_from_json_arbitrary_value_raises_delivery_error(key: str, value: t.Any, missing: bool) -> None:
    data = copy.deepcopy(manifest_of(1).to_json())
    if missing:
        del data[key]
    else:
        data[key] = value
    try:
        manifest = Manifest.from_json(data)
    except DeliveryError:
        return
    assert manifest.digest == data["digest"]


@pytest.mark.parametrize(
    ("where", "key"),
    [("files", "path"), ("files", "size"), ("tensors", "shape"), ("tensors", "sha256"), ("tensors", "norm")],
)
@given(value=JSON)
def test_from_json_arbitrary_entry_value_raises_delivery_error(where: str, key: str, value: t.Any) -> None:
    data = copy.deepcopy(manifest_of(1).to_json())
    data[where][0][key] = value
    try:
        manifest = Manifest.from_json(data)
    except DeliveryError:
        return
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
