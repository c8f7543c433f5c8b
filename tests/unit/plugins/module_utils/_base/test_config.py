# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option ``bases``, completed with what is on this host."""

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


def test_with_config_reads_config_at_path(base: str) -> None:
    assert with_config({"tiny": {"path": base, "aliases": ["t"]}}) == {"tiny": {"path": base, "aliases": ["t"], "config": CONFIG}}


def test_with_config_declared_config_takes_precedence(base: str) -> None:
    found = with_config({"tiny": {"path": base, "config": {"model_type": "mistral"}}})
    assert found["tiny"]["config"] == {"model_type": "mistral"}


@pytest.mark.parametrize("entry", [{}, {"path": None}, {"path": ""}, {"aliases": []}, None])
def test_with_config_empty_entry_has_no_config(entry: t.Any) -> None:
    assert with_config({"tiny": entry})["tiny"]["config"] is None


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("/models/base", 'is "/models/base" in bases; expected a dictionary of path, config and aliases'),
        (["/models/base"], "expected a dictionary of path"),
        ({"path": 3}, "expected path as a string"),
        ({"config": "config.json"}, "expected config as the content of a config.json"),
        ({"aliases": "org/Tiny"}, "expected aliases as a list of names"),
        ({"aliases": [1]}, "expected aliases as a list of names"),
    ],
)
def test_with_config_malformed_entry_is_rejected(entry: t.Any, words: str) -> None:
    with pytest.raises(DeliveryError, match=rf"^base tiny: .*{re.escape(words)}.* Correct the entry in bases"):
        with_config({"tiny": entry})


def test_with_config_does_not_modify_its_argument(base: str) -> None:
    bases: dict[str, t.Any] = {"tiny": {"path": base}}
    with_config(bases)
    assert bases == {"tiny": {"path": base}}


def test_with_config_follows_links(base: str, tmp_path: pathlib.Path) -> None:
    # A snapshot in the Hub's cache looks like this.
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "config.json").symlink_to(os.path.join(base, "config.json"))
    assert with_config({"tiny": {"path": str(tmp_path / "snapshot")}})["tiny"]["config"] == CONFIG


def test_with_config_path_without_config_is_rejected(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DeliveryError, match=f"base tiny: has the path {tmp_path}, which contains no config.json.*in bases"):
        with_config({"tiny": {"path": str(tmp_path)}})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7"])
def test_with_config_damaged_config_is_rejected(base: str, text: str) -> None:
    pathlib.Path(base, "config.json").write_text(text)
    with pytest.raises(DeliveryError, match=r"Copy the complete base to this host|Correct the path of this base"):
        with_config({"tiny": {"path": base}})


def test_base_fingerprint_distinguishes_bases(tmp_path: pathlib.Path) -> None:
    declared = base_fingerprint({"path": None, "config": {"hidden_size": 64}})
    assert digest_of(declared) != digest_of(base_fingerprint({"config": {"hidden_size": 65}}))
    with pytest.raises(DeliveryError, match=r"is incomplete: .*config\.json"):
        base_fingerprint({"path": str(tmp_path)})
    # A snapshot in the Hub's cache consists of links.
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
    with pytest.raises(DeliveryError, match=r"is incomplete: .*gone\.safetensors"):
        base_fingerprint({"path": str(tmp_path)})


def test_with_config_of_base_that_is_an_lfs_pointer_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:6b\nsize 9\n")
    with pytest.raises(DeliveryError, match=r"config\.json: is a Git LFS pointer, not the file itself\. Run 'git lfs pull'"):
        with_config({"a": {"path": str(tmp_path)}})
