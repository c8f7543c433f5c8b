# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

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
    """A copy of the tiny base, to be changed at will."""
    shutil.copytree(tiny / "base", tmp_path / "base")
    return tmp_path / "base"


def changes(tiny: pathlib.Path, base: pathlib.Path) -> tuple[list[str], list[str]]:
    return differences(identify(str(tiny / "base")), identify(str(base)))


def reshape(base: pathlib.Path, name: str, **values: t.Any) -> None:
    path = base / name
    data = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}), encoding="utf-8")


def test_a_copy_is_the_same_base(tiny: pathlib.Path, base: pathlib.Path) -> None:
    assert changes(tiny, base) == ([], [])
    found = identify(str(base))
    assert found["tensors"] == 20
    assert found["config"]["hidden_size"] == 64
    assert json.loads(json.dumps(found)) == found


def test_the_same_weights_in_other_shards_are_the_same_base(tiny: pathlib.Path, base: pathlib.Path) -> None:
    tensors = safetensors.numpy.load_file(base / WEIGHTS)
    (base / WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[:7], "model-2.safetensors": names[7:]}
    for shard, part in shards.items():
        safetensors.numpy.save_file({name: tensors[name] for name in part}, base / shard, {"format": "pt"})
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (base / INDEX).write_text(json.dumps(index), encoding="utf-8")
    assert changes(tiny, base) == ([], [])
    # As the Hub's own cache lays out a snapshot.
    linked = base.with_name("linked")
    linked.mkdir()
    for path in base.iterdir():
        (linked / path.name).symlink_to(path)
    assert changes(tiny, linked) == ([], [])


@pytest.mark.parametrize("place", [0, "middle", -1])
def test_other_weights_are_another_base(tiny: pathlib.Path, base: pathlib.Path, place: int | str) -> None:
    tensors = safetensors.numpy.load_file(base / WEIGHTS)
    values = max(tensors.values(), key=lambda tensor: tensor.size)
    values.flat[values.size // 2 if place == "middle" else int(place)] += 1
    safetensors.numpy.save_file(tensors, base / WEIGHTS, {"format": "pt"})
    wrong, notes = changes(tiny, base)
    assert len(wrong) == 1
    assert wrong[0].startswith("its weights are others (sample ")
    assert notes == []


def test_the_sample_is_no_hash_of_all(tiny: pathlib.Path, base: pathlib.Path) -> None:
    # That is what it is said to be: quick, and no test of integrity.
    tensors = safetensors.numpy.load_file(base / WEIGHTS)
    values = max(tensors.values(), key=lambda tensor: tensor.size)
    assert values.nbytes > 16 * 4096
    values.flat[values.size // 4] += 1
    safetensors.numpy.save_file(tensors, base / WEIGHTS, {"format": "pt"})
    assert changes(tiny, base) == ([], [])


def test_another_dtype_or_another_number_of_tensors(tiny: pathlib.Path, base: pathlib.Path) -> None:
    tensors = safetensors.numpy.load_file(base / WEIGHTS)
    half = {name: values.astype(numpy.float16) for name, values in tensors.items()}
    safetensors.numpy.save_file(half, base / WEIGHTS, {"format": "pt"})
    assert "its weights are others" in changes(tiny, base)[0][0]
    del tensors["model.norm.weight"]
    safetensors.numpy.save_file(tensors, base / WEIGHTS, {"format": "pt"})
    assert changes(tiny, base)[0] == ["it has 19 tensors, it had 20 in the training"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"hidden_size": 128}, "hidden_size in its config.json is 128, it was 64 in the training"),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "rope_theta in its config.json is 500000.0"),
        ({"rope_parameters": ..., "rope_theta": 500000.0}, "rope_theta in its config.json is 500000.0, it was 10000.0"),
        ({"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2.0}}, 'rope in its config.json is {"type":'),
        # The same in the words of transformers 4.
        ({"rope_parameters": ..., "rope_theta": 10000.0, "rope_scaling": None}, None),
        ({"rope_parameters": ..., "rope_theta": 10000.0}, None),
        ({"rope_parameters": ...}, None),
        # What differs between two copies of one base.
        ({"transformers_version": "4.57.6", "torch_dtype": "bfloat16", "dtype": ..., "_name_or_path": "/x"}, None),
        ({"pad_token_id": 7}, None),
        ({"use_cache": False, "new_key_of_another_version": 1}, None),
    ],
)
def test_the_configuration_is_compared_by_what_it_means(
    tiny: pathlib.Path, base: pathlib.Path, values: dict[str, t.Any], says: t.Optional[str]
) -> None:
    assert identify(str(tiny / "base"))["config"]["rope_parameters"]["rope_theta"] == 10000.0
    reshape(base, "config.json", **values)
    wrong = changes(tiny, base)[0]
    if says is None:
        assert wrong == []
    else:
        assert len(wrong) == 1
        assert says in wrong[0]


def test_another_vocabulary_is_reported(tiny: pathlib.Path, base: pathlib.Path) -> None:
    path = base / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    # Another layout of the same, as another version of tokenizers writes it.
    path.write_text(json.dumps(tokenizer, indent=4, sort_keys=True), encoding="utf-8")
    assert changes(tiny, base) == ([], [])
    words = tokenizer["model"]["vocab"]
    first, second = list(words)[100:102]
    words[first], words[second] = words[second], words[first]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    assert changes(tiny, base) == ([], ["The tokenizer of its base has another vocabulary than in the training."])
    # A base without a tokenizer says nothing of it.
    path.unlink()
    assert changes(tiny, base) == ([], [])


@pytest.mark.parametrize("missing", ["config.json", WEIGHTS])
def test_a_base_that_is_not_whole_says_what_to_do(base: pathlib.Path, missing: str) -> None:
    (base / missing).unlink()
    with pytest.raises(DeliveryError, match=rf"base {base}: is not whole: it has no .*Bring the whole base"):
        identify(str(base))
    (base / INDEX).write_text("{}", encoding="utf-8")
    with pytest.raises(DeliveryError, match="is not whole"):
        identify(str(base))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_damaged_file_of_a_base_says_what_to_do(base: pathlib.Path, name: str) -> None:
    (base / name).write_text("{", encoding="utf-8")
    with pytest.raises(DeliveryError, match=rf"{base}/{name}: cannot be read: .*Bring the whole base to this host"):
        identify(str(base))


def test_each_base_is_looked_at_once(base: pathlib.Path) -> None:
    identities = Identities()
    assert identities.at(None) is None
    assert identities.at("") is None
    found = identities.at(str(base))
    shutil.rmtree(base)
    assert identities.at(str(base)) is found
