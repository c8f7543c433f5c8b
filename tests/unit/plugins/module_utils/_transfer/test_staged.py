# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs that write to a staging directory stay within it, and know what is missing there."""

from __future__ import annotations

import os
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer.staged import Unusable, hold, missing_of, open_below

BLOCK = 1 << 16


@pytest.fixture
def staging(tmp_path: pathlib.Path) -> pathlib.Path:
    directory = tmp_path / "staging"
    (directory / "templates").mkdir(parents=True)
    return directory


@pytest.mark.parametrize("path", ["weights", "templates/chat"])
def test_open_below_creates_the_file(staging: pathlib.Path, path: str) -> None:
    os.close(open_below(str(staging), path, os.O_RDWR | os.O_CREAT))
    assert (staging / path).read_bytes() == b""


@pytest.mark.parametrize("path", ["weights", "templates/chat"])
def test_open_below_with_link_in_its_place_leaves_its_target(staging: pathlib.Path, path: str) -> None:
    (staging.parent / "other").write_text("of another")
    (staging / path).symlink_to(staging.parent / "other")
    with pytest.raises(OSError, match="symbolic links") as refused:
        open_below(str(staging), path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    assert refused.value.filename == str(staging / path)
    assert (staging.parent / "other").read_text() == "of another"


def test_open_below_with_link_above_it_creates_nothing(staging: pathlib.Path) -> None:
    (staging / "elsewhere").symlink_to(staging.parent)
    with pytest.raises(NotADirectoryError):
        open_below(str(staging), "elsewhere/weights", os.O_RDWR | os.O_CREAT)
    assert [path.name for path in staging.parent.iterdir()] == ["staging"]


def test_hold_of_link_or_held_directory_is_refused(staging: pathlib.Path) -> None:
    (staging.parent / "link").symlink_to(staging)
    with pytest.raises(Unusable, match="cannot be used"):
        hold(str(staging.parent / "link"))
    held = hold(str(staging))
    with pytest.raises(Unusable, match="another run is still writing"):
        hold(str(staging))
    os.close(held)
    os.close(hold(str(staging)))


@pytest.mark.parametrize(
    ("written", "size", "most", "missing"),
    [
        ([], 5, 9, [(0, 5)]),
        ([], 0, 9, [(0, 0)]),
        ([0, 1], 2 * BLOCK, 9, [(2 * BLOCK, 2 * BLOCK)]),
        ([0], 3 * BLOCK, 9, [(BLOCK, 3 * BLOCK)]),
        ([1, 3], 5 * BLOCK, 9, [(0, BLOCK), (2 * BLOCK, 3 * BLOCK), (4 * BLOCK, 5 * BLOCK)]),
        # The longest two parts are kept.
        ([1, 3, 4, 6, 7], 9 * BLOCK, 3, [(0, 3 * BLOCK), (5 * BLOCK, 6 * BLOCK), (8 * BLOCK, 9 * BLOCK)]),
    ],
)
def test_missing_of_are_the_holes_and_the_end(
    tmp_path: pathlib.Path, written: list[int], size: int, most: int, missing: list[tuple[int, int]]
) -> None:
    with open(tmp_path / "file", "w+b") as file:
        for block in written:
            file.seek(block * BLOCK)
            file.write(b"x" * BLOCK)
        file.flush()
        assert missing_of(file.fileno(), size, most) == missing


def test_missing_of_a_file_with_a_hole_at_its_end_ends_with_it(tmp_path: pathlib.Path) -> None:
    with open(tmp_path / "file", "w+b") as file:
        file.write(b"x" * BLOCK)
        file.flush()
        os.ftruncate(file.fileno(), 4 * BLOCK)
        assert missing_of(file.fileno(), 4 * BLOCK, 9) == [(BLOCK, 4 * BLOCK)]
