# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Goldens: their form, and where they are kept."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, MadeOf, Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import PERMITTED
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import (
    Golden,
    golden_of,
    golden_path,
    other_releases,
    read_golden,
)

ON = [[[-0.2, -2.3, -2.3], [-0.5, -1.2, -2.3]]]
GOLDEN = {"on": ON, "off": [[[-1.2, -0.9, -1.2], [-1.6, -0.7, -1.2]]]}


def manifest(content: str = "0", golden: dict[str, t.Any] | None = None) -> Manifest:
    return Manifest("a", (FileEntry("adapter_config.json", 1, content * 64),), (), {}, {}, golden=golden)


def golden(of: Manifest) -> Golden:
    return Golden(
        name=of.name,
        digest=of.digest,
        prompts="p",
        base={"tensors": 1},
        recorded={"at": "2026-01-31T12:00:00+00:00", "versions": {}},
        questions=[{"ids": [1, 2, 3], "start": 1, "tokens": [[1, 2, 3], [1, 2, 3]]}],
        answer=GOLDEN,
        noise={},
        permitted=dict(PERMITTED),
    )


def test_golden_json_round_trip() -> None:
    recorded = golden(manifest())
    assert Golden.from_json(json.loads(json.dumps(recorded.to_json())), "golden") == recorded
    assert recorded.positions == 2


@pytest.mark.parametrize(
    "data", [None, [], {}, {"schema": 2}, {"schema": 1}, {**golden(manifest()).to_json(), "permitted": {}},
             {**golden(manifest()).to_json(), "questions": []}, {**golden(manifest()).to_json(), "questions": [{}]},
             {**golden(manifest()).to_json(), "answer": {}}, {**golden(manifest()).to_json(), "answer": {"on": ON, "off": [7]}},
             {**golden(manifest()).to_json(), "answer": {"on": ON, "off": ON[:0]}},
             {**golden(manifest()).to_json(), "answer": {"on": [[[1e9]]], "off": [[[0.0]]]}}],
)  # fmt: skip
def test_golden_malformed_is_an_error_with_remedy(tmp_path: pathlib.Path, data: t.Any) -> None:
    malformed = (
        r": (does not have the form of schema 1|has an answer whose form does not match).*Record it again on the training server"
    )
    if data is not None:
        with pytest.raises(DeliveryError, match=f"golden of adapter a{malformed}"):
            golden_of(dataclasses.replace(manifest(), golden=data))
    path = pathlib.Path(golden_path(str(tmp_path), "a", manifest().release))
    path.parent.mkdir()
    path.write_text(json.dumps(data) if data is not None else "[]", encoding="utf-8")
    with pytest.raises(DeliveryError, match=f"{path}{malformed}"):
        read_golden(str(tmp_path), manifest())


def test_read_golden_unreadable_is_an_error_with_remedy(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(golden_path(str(tmp_path), "a", manifest().release))
    path.parent.mkdir()
    path.write_text("{broken", encoding="utf-8")
    with pytest.raises(DeliveryError, match=r"cannot be read: .*Record it again on the training server with adapter_golden"):
        read_golden(str(tmp_path), manifest())


def test_golden_of_manifest_without_golden_is_an_error() -> None:
    with pytest.raises(
        DeliveryError, match=r"cannot reach level golden.*has no golden\. Record one .*with adapter_golden.*level to model"
    ):
        golden_of(manifest())


def test_golden_of_other_release_is_stale() -> None:
    old, new = manifest("0"), manifest("1")
    assert golden_of(dataclasses.replace(old, golden=golden(old).to_json())) == golden(old)
    with pytest.raises(DeliveryError, match=f"stale golden: it belongs to release {old.release}, not to {new.release}"):
        golden_of(dataclasses.replace(new, golden=golden(old).to_json()))


def test_golden_of_folded_adapter_is_that_of_its_original() -> None:
    original, folded = manifest("0"), manifest("1")
    made_of = MadeOf(original.digest, "folded", (2.0,), 0)
    folded = dataclasses.replace(folded, golden=golden(original).to_json(), made_of=made_of)
    assert golden_of(folded) == golden(original)
    with pytest.raises(DeliveryError, match=f"it belongs to release {folded.release}, not to {original.release}"):
        golden_of(dataclasses.replace(folded, golden=golden(folded).to_json()))


def test_manifest_digest_does_not_cover_golden() -> None:
    without = manifest()
    with_one = dataclasses.replace(without, golden=golden(without).to_json(), base={"tensors": 1})
    assert with_one.digest == without.digest
    assert Manifest.from_json(json.loads(json.dumps(with_one.to_json()))) == with_one
    # As an older version of the collection wrote it.
    older = {key: value for key, value in without.to_json().items() if key not in ("golden", "base", "made_of")}
    assert Manifest.from_json(older) == without


def test_read_golden_finds_goldens_by_release(tmp_path: pathlib.Path) -> None:
    old, new = manifest("0"), manifest("1")
    assert read_golden(str(tmp_path), old) is None
    assert other_releases(str(tmp_path), new) == []
    path = pathlib.Path(golden_path(str(tmp_path), "a", old.release))
    path.parent.mkdir()
    path.write_text(json.dumps(golden(old).to_json()), encoding="utf-8")
    (path.parent / "notes.json").write_text("{}", encoding="utf-8")
    assert read_golden(str(tmp_path), old) == golden(old)
    assert read_golden(str(tmp_path), new) is None
    assert other_releases(str(tmp_path), new) == [old.release]
    assert other_releases(str(tmp_path), old) == []
    # A copy under another release's name is not its golden.
    pathlib.Path(golden_path(str(tmp_path), "a", new.release)).write_bytes(path.read_bytes())
    with pytest.raises(DeliveryError, match=f"is the golden of release {old.release}"):
        read_golden(str(tmp_path), new)
