# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The identity of a base: equal for copies, different for other bases."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import numpy
import pytest
import safetensors.numpy
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.identity import Identities, differences, identify
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def base(tiny: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the tiny base, for tests to change."""
    shutil.copytree(tiny / "base", tmp_path / "base")
    return tmp_path / "base"


def changes(tiny: pathlib.Path, base: pathlib.Path) -> tuple[list[str], list[str]]:
    return differences(identify(str(tiny / "base")), identify(str(base)))


def reshape(base: pathlib.Path, name: str, **values: t.Any) -> None:
    path = base / name
    data = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}), encoding="utf-8")


def test_identity_copy_is_the_same_base(tiny: pathlib.Path, base: pathlib.Path) -> None:
    assert changes(tiny, base) == ([], [])
    found = identify(str(base))
    assert found["tensors"] == 20
    assert found["config"]["hidden_size"] == 64
    assert json.loads(json.dumps(found)) == found


def test_identity_other_shards_are_the_same_base(tiny: pathlib.Path, base: pathlib.Path) -> None:
    tensors = safetensors.numpy.load_file(base / WEIGHTS)
    (base / WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[:7], "model-2.safetensors": names[7:]}
    for shard, part in shards.items():
        safetensors.numpy.save_file({name: tensors[name] for name in part}, base / shard, {"format": "pt"})
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (base / INDEX).write_text(json.dumps(index), encoding="utf-8")
    assert changes(tiny, base) == ([], [])
    # A snapshot in the Hub's cache looks like this.
    linked = base.with_name("linked")
    linked.mkdir()
    for path in base.iterdir():
        (linked / path.name).symlink_to(path)
    assert changes(tiny, linked) == ([], [])


@pytest.mark.parametrize("place", [0, "middle", -1])
def test_identity_other_weights_are_another_base(tiny: pathlib.Path, base: pathlib.Path, place: int | str) -> None:
    tensors = safetensors.numpy.load_file(base / WEIGHTS)
    values = max(tensors.values(), key=lambda tensor: tensor.size)
    values.flat[values.size // 2 if place == "middle" else int(place)] += 1
    safetensors.numpy.save_file(tensors, base / WEIGHTS, {"format": "pt"})
    wrong, notes = changes(tiny, base)
    assert len(wrong) == 1
    assert wrong[0].startswith("its weights differ (sample ")
    assert notes == []


def test_identity_change_outside_the_sample_is_not_detected(tiny: pathlib.Path, base: pathlib.Path) -> None:
    # As documented: it is quick, and does not check integrity.
    tensors = safetensors.numpy.load_file(base / WEIGHTS)
    values = max(tensors.values(), key=lambda tensor: tensor.size)
    assert values.nbytes > 16 * 4096
    values.flat[values.size // 4] += 1
    safetensors.numpy.save_file(tensors, base / WEIGHTS, {"format": "pt"})
    assert changes(tiny, base) == ([], [])


def test_identity_other_dtype_or_tensor_count_is_another_base(tiny: pathlib.Path, base: pathlib.Path) -> None:
    tensors = safetensors.numpy.load_file(base / WEIGHTS)
    half = {name: values.astype(numpy.float16) for name, values in tensors.items()}
    safetensors.numpy.save_file(half, base / WEIGHTS, {"format": "pt"})
    assert "its weights differ" in changes(tiny, base)[0][0]
    del tensors["model.norm.weight"]
    safetensors.numpy.save_file(tensors, base / WEIGHTS, {"format": "pt"})
    assert changes(tiny, base)[0] == ["it has 19 tensors; in training it had 20"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden_size": 128}, "hidden_size in its config.json is 128; in training it was 64"),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "rope_theta in its config.json is 500000.0"),
        (
            {"rope_parameters": ..., "rope_theta": 500000.0},
            "rope_theta in its config.json is 500000.0; in training it was 10",
        ),
        ({"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2.0}}, 'rope in its config.json is {"type":'),
        # The same, as transformers 4 saves it.
        ({"rope_parameters": ..., "rope_theta": 10000.0, "rope_scaling": None}, None),
        ({"rope_parameters": ..., "rope_theta": 10000.0}, None),
        ({"rope_parameters": ...}, None),
        # Keys that differ between copies of a base.
        ({"transformers_version": "4.57.6", "torch_dtype": "bfloat16", "dtype": ..., "_name_or_path": "/x"}, None),
        ({"pad_token_id": 7}, None),
        ({"use_cache": False, "new_key_of_another_version": 1}, None),
    ],
)
def test_identity_config_is_compared_by_meaning(
    tiny: pathlib.Path, base: pathlib.Path, values: dict[str, t.Any], words: str | None
) -> None:
    assert identify(str(tiny / "base"))["config"]["rope_parameters"]["rope_theta"] == 10000.0
    reshape(base, "config.json", **values)
    wrong = changes(tiny, base)[0]
    if words is None:
        assert wrong == []
    else:
        assert len(wrong) == 1
        assert words in wrong[0]


def test_identity_other_vocabulary_is_a_note(tiny: pathlib.Path, base: pathlib.Path) -> None:
    path = base / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    # The same in another layout, as other versions of tokenizers save it.
    path.write_text(json.dumps(tokenizer, indent=4, sort_keys=True), encoding="utf-8")
    assert changes(tiny, base) == ([], [])
    words = tokenizer["model"]["vocab"]
    first, second = list(words)[100:102]
    words[first], words[second] = words[second], words[first]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    assert changes(tiny, base) == ([], ["The tokenizer of its base has another vocabulary than in training."])
    # Nothing can be compared for a base without a tokenizer.
    path.unlink()
    assert changes(tiny, base) == ([], [])


@pytest.mark.parametrize("missing", ["config.json", WEIGHTS])
def test_identify_incomplete_base_is_rejected(base: pathlib.Path, missing: str) -> None:
    (base / missing).unlink()
    with pytest.raises(DeliveryError, match=rf"base {base}: is incomplete: it has no .*Copy the complete base"):
        identify(str(base))
    (base / INDEX).write_text("{}", encoding="utf-8")
    with pytest.raises(DeliveryError, match="is incomplete"):
        identify(str(base))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_identify_damaged_file_is_rejected(base: pathlib.Path, name: str) -> None:
    (base / name).write_text("{", encoding="utf-8")
    with pytest.raises(DeliveryError, match=rf"{base}/{name}: cannot be read: .*Copy the complete base to this host"):
        identify(str(base))


def test_identities_reads_each_base_once(base: pathlib.Path) -> None:
    identities = Identities()
    assert identities.at(None) is None
    assert identities.at("") is None
    found = identities.at(str(base))
    shutil.rmtree(base)
    assert identities.at(str(base)) is found
