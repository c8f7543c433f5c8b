# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import re
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.config import base_fingerprint, with_config
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import digest_of

CONFIG = {"model_type": "llama", "hidden_size": 64}


@pytest.fixture
def base(tmp_path: pathlib.Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return str(tmp_path)


def test_the_config_comes_from_the_path(base: str) -> None:
    assert with_config({"tiny": {"path": base, "aliases": ["t"]}}) == {"tiny": {"path": base, "aliases": ["t"], "config": CONFIG}}


def test_what_the_inventory_says_wins(base: str) -> None:
    found = with_config({"tiny": {"path": base, "config": {"model_type": "mistral"}}})
    assert found["tiny"]["config"] == {"model_type": "mistral"}


@pytest.mark.parametrize("entry", [{}, {"path": None}, {"path": ""}, {"aliases": []}, None])
def test_a_base_of_which_nothing_is_known(entry: t.Any) -> None:
    assert with_config({"tiny": entry})["tiny"]["config"] is None


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("/models/base", "is said to be '/models/base': a base has keys below its name"),
        (["/models/base"], "a base has keys below its name"),
        ({"path": 3}, "path is text"),
        ({"config": "config.json"}, "config is what config.json holds, or nothing"),
        ({"aliases": "org/Tiny"}, "aliases is a list of names"),
        ({"aliases": [1]}, "aliases is a list of names"),
    ],
)
def test_what_cannot_have_been_meant(entry: t.Any, words: str) -> None:
    with pytest.raises(DeliveryError, match=rf"^base tiny: .*{re.escape(words)}.* Correct it in agent_bases"):
        with_config({"tiny": entry})


def test_nothing_is_changed_in_place(base: str) -> None:
    bases: dict[str, t.Any] = {"tiny": {"path": base}}
    with_config(bases)
    assert bases == {"tiny": {"path": base}}


def test_a_config_in_a_cache_of_links(base: str, tmp_path: pathlib.Path) -> None:
    # As the hub's own cache lays out a snapshot.
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "config.json").symlink_to(os.path.join(base, "config.json"))
    assert with_config({"tiny": {"path": str(tmp_path / "snapshot")}})["tiny"]["config"] == CONFIG


def test_a_path_without_a_config_says_what_to_do(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DeliveryError, match=f"base tiny: is said to lie at {tmp_path}, where there is no config.json.*inventory"):
        with_config({"tiny": {"path": str(tmp_path)}})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7"])
def test_a_damaged_config_is_an_error(base: str, text: str) -> None:
    pathlib.Path(base, "config.json").write_text(text)
    with pytest.raises(DeliveryError, match=r"Bring the whole base to this host|Correct the path of this base"):
        with_config({"tiny": {"path": base}})


def test_a_base_is_told_from_another(tmp_path: pathlib.Path) -> None:
    declared = base_fingerprint({"path": None, "config": {"hidden_size": 64}})
    assert digest_of(declared) != digest_of(base_fingerprint({"config": {"hidden_size": 65}}))
    with pytest.raises(DeliveryError, match=r"is not whole: .*config\.json"):
        base_fingerprint({"path": str(tmp_path)})
    # A snapshot in the cache of the Hub consists of links.
    (tmp_path / "blob").write_text("{}", encoding="utf-8")
    (tmp_path / "config.json").symlink_to("blob")
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    os.utime(tmp_path / "model.safetensors", ns=(5, 5))
    first = base_fingerprint({"path": str(tmp_path)})
    assert first["weights"] == [["model.safetensors", 4, 5]]
    assert first == base_fingerprint({"path": str(tmp_path), "aliases": ["x"]})
    os.utime(tmp_path / "model.safetensors", ns=(6, 6))
    second = base_fingerprint({"path": str(tmp_path)})
    (tmp_path / "blob").write_text('{"a": 1}', encoding="utf-8")
    third = base_fingerprint({"path": str(tmp_path)})
    assert len({digest_of(found) for found in (first, second, third)}) == 3
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}', encoding="utf-8")
    with pytest.raises(DeliveryError, match=r"is not whole: .*gone\.safetensors"):
        base_fingerprint({"path": str(tmp_path)})
