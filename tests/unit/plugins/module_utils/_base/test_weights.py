# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The weights files of a base."""

from __future__ import annotations

import json
import pathlib

from ansible_collections.lorafleet.delivery.plugins.module_utils._base.weights import base_weights


def test_base_weights_are_those_named_by_index(tmp_path: pathlib.Path) -> None:
    assert base_weights(str(tmp_path)) == []
    (tmp_path / "consolidated.safetensors").touch()
    index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert base_weights(str(tmp_path)) == [str(tmp_path / f"model-{n}.safetensors") for n in (1, 2)]
    (tmp_path / "model.safetensors").touch()
    assert base_weights(str(tmp_path)) == [str(tmp_path / "model.safetensors")]
