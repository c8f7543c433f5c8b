# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A delivery whose source is its own target."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.source import check_not_source, identify_source

NAME = "a_lora"


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    """The adapter's directory on the training server."""
    path = tmp_path / "trained" / NAME
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text("{}", encoding="utf-8")
    return path


def check(source: pathlib.Path, models: pathlib.Path, store: pathlib.Path) -> None:
    check_not_source(str(models), str(store), {NAME: identify_source(str(source))})


def test_check_not_source_elsewhere_passes(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    models = tmp_path / "models"
    check(source, models, tmp_path / ".lorafleet")
    (models / NAME).mkdir(parents=True)
    check(source, models, tmp_path / ".lorafleet")
    # Beside the adapter, the store touches nothing of it.
    check(source, models, source.parent / ".lorafleet")


def test_check_not_source_same_models_directory_is_error(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "models"
    link.symlink_to(source.parent)
    for models in (source.parent, link):
        with pytest.raises(DeliveryError) as caught:
            check(source, models, tmp_path / ".lorafleet")
        [problem] = caught.value.problems
        assert (problem.subject, problem.adapter) == (str(models / NAME), NAME)
        assert problem.problem.startswith(f"is the same directory as {source} of the source")
        assert problem.remedy.startswith("Set models_dir to another directory on this node")


def test_check_not_source_original_of_folded_adapter_is_error(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folded = tmp_path / "cache" / "folded" / NAME / "0123456789ab"
    folded.mkdir(parents=True)
    sources = {NAME: {**identify_source(str(folded)), "original": identify_source(str(source))}}
    check_not_source(str(tmp_path / "models"), str(tmp_path / ".lorafleet"), sources)
    with pytest.raises(DeliveryError, match=f"is the same directory as {source} of the source"):
        check_not_source(str(source.parent), str(tmp_path / ".lorafleet"), sources)
    with pytest.raises(DeliveryError, match=f"is inside {folded}, the adapter's directory at the source"):
        check_not_source(str(tmp_path / "models"), str(folded / "store"), sources)


def test_check_not_source_linked_adapter_is_error(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / NAME).symlink_to(source)
    with pytest.raises(DeliveryError, match="is the same directory as"):
        check(source, models, tmp_path / ".lorafleet")


def test_check_not_source_inside_served_directory_is_error(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    deeper = source / "checkpoint-500" / NAME
    deeper.mkdir(parents=True)
    with pytest.raises(DeliveryError, match=rf"{source}: contains {deeper} of the source"):
        check(deeper, source.parent, tmp_path / ".lorafleet")


@pytest.mark.parametrize("option", ["models_dir", "store"])
def test_check_not_source_directory_inside_adapter_is_error(source: pathlib.Path, tmp_path: pathlib.Path, option: str) -> None:
    places = {"models_dir": tmp_path / "models", "store": tmp_path / ".lorafleet", option: source / "new" / "directory"}
    with pytest.raises(DeliveryError) as caught:
        check(source, places["models_dir"], places["store"])
    assert str(caught.value) == (
        f"{places[option]}: is inside {source}, the adapter's directory at the source."
        f" Set {option} to a directory on this node that is not part of it."
    )
    assert not (source / "new").exists()
