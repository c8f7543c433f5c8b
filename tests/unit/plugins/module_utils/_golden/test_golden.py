# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Distances from a golden and what they mean, on figures made by hand; tests/integration/test_golden_table.py really computes."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import (
    PERMITTED,
    Distances,
    Golden,
    distances,
    golden_of,
    golden_path,
    other_releases,
    permitted,
    problems,
    read_golden,
    unusual,
)
from hypothesis import given
from hypothesis import strategies as st

SAME = Distances(on=0.0, off=0.0, direction=1.0, strength=1.0, top1=1.0)


def log(*shares: float) -> list[float]:
    return [math.log(share) for share in shares]


# Two tokens of one answer. The adapter makes the first id likelier.
ON = [[log(0.8, 0.1, 0.1), log(0.6, 0.3, 0.1)]]
OFF = [[log(0.3, 0.4, 0.3), log(0.2, 0.5, 0.3)]]
GOLDEN = {"on": ON, "off": OFF}


def test_nothing_is_nearer_than_itself() -> None:
    assert distances(GOLDEN, copy.deepcopy(GOLDEN)) == SAME


def test_a_base_without_the_adapter_has_no_effect() -> None:
    found = distances(GOLDEN, {"on": OFF, "off": OFF})
    assert (found.off, found.strength, found.direction) == (0, 0, 0)
    assert found.on > 0.5
    assert found.top1 == 0


def test_half_the_effect_is_half_the_strength() -> None:
    half = [[[(a + b) / 2 for a, b in zip(on, off)] for on, off in zip(ON[0], OFF[0])]]
    found = distances(GOLDEN, {"on": half, "off": OFF})
    assert found.strength == pytest.approx(0.5)
    assert found.direction == pytest.approx(1)


def test_what_is_unlikely_weighs_little() -> None:
    golden = {"on": [[log(0.99, 0.01)]], "off": [[log(0.5, 0.5)]]}
    likely, unlikely = copy.deepcopy(golden), copy.deepcopy(golden)
    likely["on"][0][0][0] -= 1
    unlikely["on"][0][0][1] -= 1
    assert distances(golden, likely).on == pytest.approx(0.99)
    assert distances(golden, unlikely).on == pytest.approx(0.01)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", ["on", "off"])
def test_what_is_no_number_is_refused(key: str, broken: float) -> None:
    found = copy.deepcopy(GOLDEN)
    found[key][0][1][2] = broken
    with pytest.raises(DeliveryError, match="NaN or infinity"):
        distances(GOLDEN, found)


@pytest.mark.parametrize("found", [{"on": [], "off": []}, {"on": ON, "off": [OFF[0][:1]]}, {"on": [[[0.0]]], "off": [[[0.0]]]}])
def test_an_answer_to_something_else_is_refused(found: dict[str, t.Any]) -> None:
    with pytest.raises(DeliveryError, match="another form"):
        distances(GOLDEN, found)


@given(st.lists(st.lists(st.floats(-30, 0), min_size=3, max_size=3), min_size=2, max_size=2))
def test_distances_are_numbers_whatever_was_answered(rows: list[list[float]]) -> None:
    found = distances(GOLDEN, {"on": [rows], "off": OFF})
    assert all(math.isfinite(value) for value in found.to_json().values())
    assert -1.0001 <= found.direction <= 1.0001
    assert 0 <= found.top1 <= 1


@pytest.mark.parametrize(
    ("found", "says", "remedy"),
    [
        (SAME, None, ""),
        # Measured with another half-precision kernel on SmolLM2.
        (Distances(0.0081, 0.0362, 0.9999, 1.0012, 1.0), None, ""),
        # Of docs/golden.md: the figures of each wrong case there.
        (Distances(0.0323, 0.0986, 0.9993, 1.0061, 0.98), "another base, or is read in another way", "version of transformers"),
        (Distances(1.2087, 0.0319, 0.8996, 1.1970, 0.76), "works in the recorded direction with another strength", "lora_alpha"),
        (Distances(7.3194, 0.0319, 0.5210, 1.6702, 0.27), "works in the recorded direction with another strength", "use_rslora"),
        # use_rslora with other prompts, and the highest of another adapter.
        (Distances(6.3537, 0.0339, 0.6034, 1.4505, 0.31), "works in the recorded direction with another strength", "use_rslora"),
        (Distances(1.0440, 0.0240, 0.4630, 0.7910, 0.56), "answers like another adapter", "Deliver the adapter that was meant"),
        (Distances(0.0860, 0.0319, 0.9898, 0.8463, 0.96), "or a part of it is missing", "the weights"),
        (Distances(2.4913, 0.0319, 0.4299, 0.3185, 0.42), "answers like another adapter", "Deliver the adapter that was meant"),
        (Distances(0.9990, 0.0240, 0.0000, 0.0000, 0.58), "as if the adapter were not there", "target_modules"),
        (Distances(0.2000, 0.0240, 0.9900, 1.0100, 0.90), "by more than another device explains", "PEFT and transformers"),
        (Distances(0.0500, 0.0240, 0.9700, 1.0100, 0.90), "by more than another device explains", "PEFT and transformers"),
    ],
)
def test_the_words_follow_from_the_figures(found: Distances, says: t.Optional[str], remedy: str) -> None:
    said = problems("adapter a", found, PERMITTED)
    if says is None:
        assert said == []
        return
    assert len(said) == 1
    assert says in said[0].problem
    assert remedy in said[0].remedy
    # With the figure, and what would have been permitted.
    assert f"{found.off:.3f}" in said[0].problem
    assert "permitted" in said[0].problem


def test_on_another_base_nothing_is_said_of_the_adapter() -> None:
    said = problems("adapter a", Distances(1.0, 0.5, 0.1, 2.0, 0.1), PERMITTED)
    assert ["another base" in one.problem for one in said] == [True]


def test_what_is_permitted_may_be_unusual() -> None:
    assert unusual(SAME) == unusual(Distances(0.0323, 0.0786, 0.9993, 1.0061, 0.98)) == []
    far = Distances(0.1, 0.0319, 0.99, 1.05, 0.96)
    assert problems("adapter a", far, PERMITTED) == []
    (note,) = unusual(far)
    assert note.startswith("With the adapter the distance from its golden is 0.100, ")


def test_permitted_is_four_times_the_noise_at_least() -> None:
    assert permitted([]) == permitted([SAME]) == PERMITTED
    noisy = permitted([SAME, Distances(on=0.04, off=0.03, direction=0.99, strength=1.03, top1=0.9)])
    assert noisy == {"on": 0.16, "off": 0.12, "direction": 0.96, "strength": 0.12}
    with pytest.raises(DeliveryError, match=r"differs from itself by 0\.060"):
        permitted([dataclasses.replace(SAME, off=0.06)])
    # An adapter whose effect is no more than noise: with such limits one that is not there would pass.
    for unclear in ({"direction": 0.7}, {"strength": 1.4}, {"direction": 0.0, "strength": 0.0}):
        with pytest.raises(DeliveryError, match=r"hardly above the noise.*Record more or longer prompts"):
            permitted([dataclasses.replace(SAME, **unclear)])


def manifest(content: str = "0", golden: t.Optional[dict[str, t.Any]] = None) -> Manifest:
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


def test_a_golden_comes_back_as_it_went() -> None:
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
def test_what_is_no_golden_says_what_to_do(tmp_path: pathlib.Path, data: t.Any) -> None:
    malformed = r": (is not in the form of schema 1|was answered in another form).*Record it again on the training server"
    if data is not None:
        with pytest.raises(DeliveryError, match=f"golden of adapter a{malformed}"):
            golden_of(dataclasses.replace(manifest(), golden=data))
    path = pathlib.Path(golden_path(str(tmp_path), "a", manifest().release))
    path.parent.mkdir()
    path.write_text(json.dumps(data) if data is not None else "[]", encoding="utf-8")
    with pytest.raises(DeliveryError, match=f"{path}{malformed}"):
        read_golden(str(tmp_path), manifest())


def test_a_golden_that_cannot_be_read_is_recorded_again(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(golden_path(str(tmp_path), "a", manifest().release))
    path.parent.mkdir()
    path.write_text("{broken", encoding="utf-8")
    with pytest.raises(DeliveryError, match=r"cannot be read: .*Record it again on the training server \(playbook golden\.yml\)"):
        read_golden(str(tmp_path), manifest())


def test_a_manifest_without_a_golden_says_what_to_do() -> None:
    with pytest.raises(DeliveryError, match=r"cannot reach level golden.*has no golden\. Record one .*golden\.yml.*level model"):
        golden_of(manifest())


def test_a_golden_belongs_to_one_release() -> None:
    old, new = manifest("0"), manifest("1")
    assert golden_of(dataclasses.replace(old, golden=golden(old).to_json())) == golden(old)
    with pytest.raises(DeliveryError, match=f"stale golden: it was recorded of release {old.release}, this is {new.release}"):
        golden_of(dataclasses.replace(new, golden=golden(old).to_json()))


def test_a_golden_is_no_part_of_the_digest() -> None:
    without = manifest()
    with_one = dataclasses.replace(without, golden=golden(without).to_json(), base={"tensors": 1})
    assert with_one.digest == without.digest
    assert Manifest.from_json(json.loads(json.dumps(with_one.to_json()))) == with_one
    # As an older version of the collection recorded it.
    older = {key: value for key, value in without.to_json().items() if key not in ("golden", "base")}
    assert Manifest.from_json(older) == without


def test_goldens_are_found_by_release(tmp_path: pathlib.Path) -> None:
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
    # A copy under another release's name is no golden of that.
    pathlib.Path(golden_path(str(tmp_path), "a", new.release)).write_bytes(path.read_bytes())
    with pytest.raises(DeliveryError, match=f"is the golden of release {old.release}"):
        read_golden(str(tmp_path), new)
