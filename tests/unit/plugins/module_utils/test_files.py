# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JSON files that are replaced atomically and durably."""

from __future__ import annotations

import collections.abc as c
import json
import os
import pathlib
import stat
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils import _files
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import fsync_directory, read_json, unfinished, write_json


def test_read_json_missing_file_is_none(tmp_path: pathlib.Path) -> None:
    assert read_json(str(tmp_path / "missing.json")) is None
    with pytest.raises(DeliveryError, match="cannot be read"):
        read_json(str(tmp_path))


def make_fifo(path: pathlib.Path) -> None:
    os.mkfifo(path)


def make_giant(path: pathlib.Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def make_deep(path: pathlib.Path) -> None:
    path.write_text("[" * 100_000 + "]" * 100_000)


@pytest.mark.parametrize("make", [make_fifo, make_giant, make_deep])
@pytest.mark.parametrize("linked", [False, True])
def test_read_json_file_of_another_user_does_not_hold_up_root(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, make: c.Callable[[pathlib.Path], None], linked: bool
) -> None:
    monkeypatch.setattr(_files, "_MOST_JSON", 1 << 20)
    path = tmp_path / "config.json"
    make(tmp_path / "target" if linked else path)
    if linked:
        path.symlink_to("target")
    with pytest.raises(DeliveryError, match="cannot be read"):
        read_json(str(path))


def test_read_json_does_not_open_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    # To open a watchdog is to start it.
    (tmp_path / "config.json").symlink_to("/dev/zero")
    seen: list[t.Any] = []
    opened = os.open
    monkeypatch.setattr(os, "open", lambda *args, **kwargs: seen.append(args) or opened(*args, **kwargs))
    with pytest.raises(DeliveryError, match="is not a plain file"):
        read_json(str(tmp_path / "config.json"))
    assert seen == []


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_write_json_sets_mode_despite_umask(tmp_path: pathlib.Path, mode: int) -> None:
    path = tmp_path / "file.json"
    before = os.umask(0o077)
    try:
        write_json(str(path), {"b": ["ä", 1], "a": None}, mode)
    finally:
        os.umask(before)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": None, "b": ["ä", 1]}
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(tmp_path) == ["file.json"]


def test_write_json_is_readable_by_all_by_default(tmp_path: pathlib.Path) -> None:
    umask = os.umask(0o077)
    try:
        write_json(str(tmp_path / "state.json"), {})
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o644


def test_unfinished_lists_only_files_of_write_json(tmp_path: pathlib.Path) -> None:
    for name in ("state.json", "state.json.new", "notes.new"):
        (tmp_path / name).write_text("{")
    (tmp_path / "link.json.new").symlink_to("state.json")
    (tmp_path / "directory.json.new").mkdir()
    assert unfinished(str(tmp_path)) == [str(tmp_path / "state.json.new")]


def test_write_json_replaces_file_instead_of_writing_into_it(tmp_path: pathlib.Path) -> None:
    path, other = tmp_path / "file.json", tmp_path / "other.json"
    write_json(str(path), {"version": 1})
    other.hardlink_to(path)
    write_json(str(path), {"version": 2})
    assert read_json(str(path)) == {"version": 2}
    assert read_json(str(other)) == {"version": 1}


def test_write_json_syncs_file_before_rename_and_directory_after(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor: int) -> None:
        events.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        if events == ["file"]:
            # All of it, not only what the buffer had flushed.
            [temporary] = tmp_path.iterdir()
            assert json.loads(temporary.read_text(encoding="utf-8")) == {"version": 1}
        fsync(descriptor)

    def record_rename(source: str, target: str) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    write_json(str(path), {"version": 1})
    assert events == ["file", "rename", "directory"]


def test_write_json_failed_write_keeps_old_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file.json"
    write_json(str(path), {"version": 1})
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_json(str(path), {"version": 2})
    assert read_json(str(path)) == {"version": 1}


@pytest.mark.parametrize("data", [{"version": object()}, {"key": {1, 2}}])
def test_write_json_unserializable_data_keeps_old_file(tmp_path: pathlib.Path, data: t.Any) -> None:
    path = tmp_path / "file.json"
    write_json(str(path), {"version": 1})
    with pytest.raises(TypeError):
        write_json(str(path), data)
    assert read_json(str(path)) == {"version": 1}


def test_write_json_planted_link_is_not_followed(tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "file.json.new").symlink_to(victim)
    with pytest.raises(OSError):
        write_json(str(tmp_path / "file.json"), {})
    assert victim.read_text() == "mine"


def test_fsync_directory_failure_raises(tmp_path: pathlib.Path) -> None:
    fsync_directory(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        fsync_directory(str(tmp_path / "file"))
