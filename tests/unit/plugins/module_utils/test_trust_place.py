# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node has a trust unless nothing at all is at its place."""

from __future__ import annotations

import os
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils import _trust_place
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import read_trust


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    path = tmp_path / "lorafleet" / "trust"
    monkeypatch.setattr(_trust_place, "PLACE", _trust_place.Place(str(path), os.geteuid()))
    return path


def test_is_set_up_where_nothing_is_is_false(place: pathlib.Path) -> None:
    assert not _trust_place.is_set_up()
    place.parent.mkdir()
    assert not _trust_place.is_set_up()
    assert read_trust(_trust_place.PLACE) is None


@pytest.mark.parametrize("what", ["directory", "file", "broken link", "below a file"])
def test_is_set_up_with_anything_at_its_place_is_true_and_it_is_read(place: pathlib.Path, what: str) -> None:
    """What cannot be read is an error, not a node that requires nothing."""
    if what == "below a file":
        place.parent.write_text("")
    else:
        place.parent.mkdir()
        {
            "directory": place.mkdir,
            "file": place.touch,
            "broken link": lambda: place.symlink_to("nowhere"),
        }[what]()
    assert _trust_place.is_set_up()
    with pytest.raises(DeliveryError):
        read_trust(_trust_place.PLACE)
