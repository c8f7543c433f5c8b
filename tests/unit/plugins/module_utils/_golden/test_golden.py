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
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden import golden as module
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import PERMITTED, Distances, permitted
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import (
    Golden,
    golden_of,
    golden_path,
    other_releases,
    read_golden,
)

NOISE = {"on": 0.0, "off": 0.0, "direction": 1.0, "strength": 1.0, "top1": 1.0}
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


@pytest.mark.parametrize(
    ("key", "value"),
    [("on", 1e9), ("on", 0.122), ("off", float("nan")), ("off", float("inf")), ("direction", -1e9), ("direction", 0.978),
     ("direction", float("nan")), ("strength", 1e9), ("strength", True)],
)  # fmt: skip
def test_golden_that_permits_more_than_its_noise_explains_is_rejected(key: str, value: float) -> None:
    wide = {**golden(manifest()).to_json(), "permitted": {**PERMITTED, key: value}}
    with pytest.raises(DeliveryError, match=rf"permits more than the noise of the training server explains: {key} "):
        Golden.from_json(wide, "golden")


def test_golden_with_noise_permits_a_multiple_of_it() -> None:
    noise = Distances(on=0.04, off=0.03, direction=0.99, strength=1.03, top1=0.9)
    noisy = {**golden(manifest()).to_json(), "noise": {"eager": noise.to_json()}, "permitted": permitted([noise])}
    assert Golden.from_json(noisy, "golden").permitted["on"] == 0.16
    with pytest.raises(DeliveryError, match="permits more than"):
        Golden.from_json({**noisy, "noise": {}}, "golden")


@pytest.mark.parametrize(
    ("noise", "problem"),
    [
        ({"eager": {**NOISE, "on": 0.06}}, "is unusable: two attention kernels"),
        ({"eager": {**NOISE, "direction": 0.5}}, "is unusable: along these prompts"),
        ({"eager": {**NOISE, "off": float("nan")}}, "a distance is not finite"),
        ({"eager": {**NOISE, "off": "x"}}, "does not have the form"),
        ({"eager": {}}, "does not have the form"),
        ({"eager": 5}, "does not have the form"),
        (5, "does not have the form"),
    ],
)
def test_golden_with_noise_that_hides_everything_is_rejected(noise: t.Any, problem: str) -> None:
    with pytest.raises(DeliveryError, match=problem):
        Golden.from_json({**golden(manifest()).to_json(), "noise": noise}, "golden")


def test_golden_beyond_bounds_is_rejected_before_it_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_POSITIONS", 2)
    monkeypatch.setattr(module, "MAX_CANDIDATES", 3)
    monkeypatch.setattr(module, "distances", lambda one, other: None)
    data = golden(manifest()).to_json()
    assert Golden.from_json(data, "golden").positions == 2
    long = {"on": [ON[0] * 2], "off": [ON[0] * 2]}
    for more in ({"answer": long}, {"questions": data["questions"] * 2}):
        with pytest.raises(DeliveryError, match="has 4 positions; at most 2 are accepted"):
            Golden.from_json({**data, **more}, "golden")
    wide = [[[0.0] * 4] * 2]
    with pytest.raises(DeliveryError, match="has 4 tokens at one position; at most 3 are accepted"):
        Golden.from_json({**data, "answer": {"on": wide, "off": wide}}, "golden")


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
