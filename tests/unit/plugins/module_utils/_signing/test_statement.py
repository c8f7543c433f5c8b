# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Statements: one text for each, and nothing else is read."""

from __future__ import annotations

import dataclasses
import datetime
import json
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import (
    MAX_BYTES,
    MAX_INTEGER,
    Statement,
    manifest_sha256,
    read_statement,
    statement_of,
)
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.paths import CHECKOUT
from tests.support.releases import NAME, manifest_of
from tests.support.signing import DAY, FLEET, NOW, statement_about

STATEMENT = statement_about(manifest_of(1))
TEXT = STATEMENT.to_bytes()
VALUES: dict[str, t.Any] = json.loads(TEXT)
TIMES = st.datetimes(
    min_value=datetime.datetime(1970, 1, 1), max_value=datetime.datetime(9000, 1, 1), timezones=st.just(datetime.timezone.utc)
).map(lambda time: time.replace(microsecond=0))
NAMES = st.text("aZ09._-", min_size=0, max_size=126).map(lambda middle: f"a{middle}z")
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
COUNTS = st.integers(1, MAX_INTEGER)
STATEMENTS = st.builds(
    Statement,
    fleet=NAMES,
    adapter=NAMES,
    digest=DIGESTS,
    serial=COUNTS,
    issued=TIMES,
    expires=TIMES,
    manifest=DIGESTS,
    files=COUNTS,
    size=COUNTS,
    tensors=st.integers(0, MAX_INTEGER),
    openssf=st.none() | DIGESTS,
).filter(lambda statement: statement.issued < statement.expires)


def text_of(**changes: t.Any) -> bytes:
    return json.dumps({**VALUES, **changes}, indent=1).encode() + b"\n"


def test_statement_of_release_says_what_is_served() -> None:
    manifest = manifest_of(1)
    assert {
        "_type": "lorafleet.delivery/release/1",
        "fleet": FLEET,
        "adapter": NAME,
        "digest": manifest.digest,
        "serial": 7,
        "issued": "2026-05-31T12:00:00Z",
        "expires": "2026-08-29T12:00:00Z",
        "manifest": manifest_sha256(manifest),
        "files": 3,
        "size": manifest.size,
        "tensors": 4,
    } == VALUES
    assert STATEMENT.release == manifest.release


def test_read_statement_of_its_text_returns_it() -> None:
    assert read_statement(TEXT) == STATEMENT


@given(STATEMENTS)
def test_read_statement_of_any_statement_returns_it(statement: Statement) -> None:
    text = statement.to_bytes()
    assert len(text) <= MAX_BYTES
    assert read_statement(text) == statement


def test_statement_has_the_form_of_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((CHECKOUT / "docs" / "statement.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(VALUES)
    assert {*schema["required"]} == {*schema["properties"]} - {"openssf"} == {*VALUES}
    with_bundle = dataclasses.replace(STATEMENT, openssf="0" * 64)
    jsonschema.Draft202012Validator(schema).validate(json.loads(with_bundle.to_bytes()))
    assert read_statement(with_bundle.to_bytes()) == with_bundle
    assert not schema["additionalProperties"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not valid JSON"),
        (b"[]", "expected an object"),
        (TEXT + b" " * MAX_BYTES, f"at most {MAX_BYTES} are accepted"),
        (TEXT.replace(b'"serial": 7', b'"serial": 7,\n "serial": 8'), 'the key "serial" twice'),
        (TEXT.replace(b'"serial": 7', b'"serial": NaN'), "NaN"),
        (TEXT[:-1], "another text"),
        (TEXT + b"\n", "another text"),
        (TEXT.replace(b"\n", b"\r\n"), "another text"),
        (json.dumps(VALUES).encode(), "another text"),
        (json.dumps(dict(sorted(VALUES.items())), indent=1).encode() + b"\n", "another text"),
        (TEXT.replace(b'"lab"', b'"l\\u0061b"'), "another text"),
        (text_of(_type="lorafleet.delivery/release/2"), "reads lorafleet.delivery/release/1"),
        (text_of(more=1), 'not exactly the keys of its type: "more"'),
        (json.dumps({key: VALUES[key] for key in VALUES if key != "expires"}, indent=1).encode(), '"expires"'),
        (text_of(fleet="../x"), "not a valid name"),
        (text_of(fleet=None), "not a valid name"),
        (text_of(adapter=""), "not a valid name"),
        (text_of(digest=VALUES["digest"][:12]), "expected a sha256"),
        (text_of(digest=VALUES["digest"].upper()), "expected a sha256"),
        (text_of(manifest=None), "expected a sha256"),
        (text_of(serial=0), "as serial; expected a number from 1"),
        (text_of(serial=-1), "expected a number"),
        (text_of(serial=True), "expected a number"),
        (text_of(serial=7.0), "expected a number"),
        (text_of(serial="7"), "expected a number"),
        (text_of(serial=MAX_INTEGER + 1), "expected a number"),
        (text_of(size=[]), "expected a number"),
        (text_of(tensors=-1), "expected a number from 0"),
        (text_of(issued="2026-05-31T12:00:00+00:00"), "expected a time"),
        (text_of(issued=1780228800), "expected a time"),
        (text_of(issued="2026-5-31T12:00:00Z"), "another text"),
        (text_of(expires="2026-02-30T12:00:00Z"), "expected a time"),
        (text_of(expires=VALUES["issued"]), "expires before it was issued"),
    ],
    # Not the texts themselves.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_read_statement_of_another_text_is_error(text: bytes, words: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        read_statement(text)
    assert words in str(caught.value)


@pytest.mark.fuzz
@given(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, len(TEXT)), st.binary(max_size=3), st.integers(0, 3))))
@example((0, b"", 0))
def test_read_statement_of_changed_bytes_is_error_or_another_statement(change: t.Union[bytes, tuple[int, bytes, int]]) -> None:
    """What is read has the text that was read, so no two texts mean the same."""
    text = change if isinstance(change, bytes) else TEXT[: change[0]] + change[1] + TEXT[change[0] + change[2] :]
    try:
        statement = read_statement(text)
    except DeliveryError:
        return
    assert statement.to_bytes() == text
    assert (statement == STATEMENT) is (text == TEXT)


@pytest.mark.parametrize("changes", [{"serial": 0}, {"expires": NOW - 2 * DAY}, {"fleet": "a b"}])
def test_statement_of_what_could_not_be_read_is_error(changes: dict[str, t.Any]) -> None:
    with pytest.raises(DeliveryError):
        statement_about(manifest_of(1), **changes)


def test_statement_of_times_with_fractions_has_whole_seconds() -> None:
    later = datetime.timedelta(microseconds=1)
    made = statement_of(manifest_of(1), FLEET, 7, NOW - DAY + later, NOW + 89 * DAY + later)
    assert made == STATEMENT


@pytest.mark.parametrize(
    "change",
    [
        {"golden": {"positions": []}},
        {"base": {"digest": "0" * 64}},
        {"versions": {"peft": "0.19.0"}},
        {"config": {"r": 16, "lora_alpha": 33}},
        {"tensors": ()},
    ],
)
def test_manifest_sha256_covers_what_the_digest_does_not(change: dict[str, t.Any]) -> None:
    manifest = manifest_of(1)
    changed = dataclasses.replace(manifest, **change)
    assert changed.digest == manifest.digest
    assert manifest_sha256(changed) != manifest_sha256(manifest)


def test_manifest_sha256_does_not_depend_on_the_text() -> None:
    manifest = manifest_of(1)
    stored = json.loads(json.dumps(manifest.to_json(), indent=1, sort_keys=True))
    assert manifest_sha256(Manifest.from_json(stored)) == manifest_sha256(manifest)
