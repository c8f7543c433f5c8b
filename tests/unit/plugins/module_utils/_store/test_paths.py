# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import stat
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import fsync_directory, read_json, unfinished, write_json
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths

from tests.support.releases import manifest_of


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> AdapterPaths:
    return AdapterPaths(str(tmp_path / "models"), str(tmp_path / "store"), "name")


def test_where_things_lie() -> None:
    paths = AdapterPaths("/home/models", "/home/.lorafleet", "name")
    assert paths.served == "/home/models/name"
    assert paths.release("0123456789ab") == "/home/.lorafleet/name/releases/0123456789ab"
    assert paths.staged("0123456789ab") == "/home/.lorafleet/name/staging/0123456789ab"
    assert paths.manifest("0123456789ab") == "/home/.lorafleet/name/manifests/0123456789ab.json"
    assert paths.receipt("0123456789ab") == "/home/.lorafleet/name/receipts/0123456789ab.json"
    assert paths.state == "/home/.lorafleet/name/state.json"
    assert paths.lock == "/home/.lorafleet/name/lock"


@pytest.mark.parametrize("name", ["", ".", "..", "../models", "/etc", "a/b", ".hidden", "-rf"])
def test_no_path_is_made_of_a_hostile_name(name: str) -> None:
    with pytest.raises(DeliveryError, match="is not a valid name"):
        AdapterPaths("/home/models", "/home/.lorafleet", name)


def test_lists_releases_and_nothing_else(paths: AdapterPaths) -> None:
    assert paths.release_names() == []
    for name in ("bbbbbbbbbbbb", "aaaaaaaaaaaa", "incoming-aaaaaaaaaaaa", "lost+found", ".cccccccccccc", "AAAAAAAAAAAA"):
        os.makedirs(paths.release(name))
    assert paths.release_names() == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]


def test_a_manifest_is_read_back_as_it_was_written(paths: AdapterPaths) -> None:
    manifest = manifest_of(1, "name")
    os.makedirs(paths.manifests)
    assert paths.read_manifest(manifest.release) is None
    write_json(paths.manifest(manifest.release), manifest.to_json())
    assert paths.read_manifest(manifest.release) == manifest


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[]", b"null\0", b"{}", b'{"schema": 1}'])
def test_a_damaged_manifest_is_an_error_that_says_what_to_do(paths: AdapterPaths, damage: bytes) -> None:
    os.makedirs(paths.manifests)
    pathlib.Path(paths.manifest("0123456789ab")).write_bytes(damage)
    with pytest.raises(DeliveryError) as caught:
        paths.read_manifest("0123456789ab")
    assert caught.value.problems[0].remedy


def test_no_file_is_no_json(tmp_path: pathlib.Path) -> None:
    assert read_json(str(tmp_path / "missing.json")) is None
    with pytest.raises(DeliveryError, match="cannot be read"):
        read_json(str(tmp_path))


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_writes_json_with_its_mode_whatever_the_umask(tmp_path: pathlib.Path, mode: int) -> None:
    path = tmp_path / "file.json"
    before = os.umask(0o077)
    try:
        write_json(str(path), {"b": ["ä", 1], "a": None}, mode)
    finally:
        os.umask(before)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": None, "b": ["ä", 1]}
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(tmp_path) == ["file.json"]


def test_what_is_written_can_be_read_by_who_watches_the_node(tmp_path: pathlib.Path) -> None:
    umask = os.umask(0o077)
    try:
        write_json(str(tmp_path / "state.json"), {})
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o644


def test_of_what_a_killed_run_left_only_what_is_ours_is_known(tmp_path: pathlib.Path) -> None:
    for name in ("state.json", "state.json.new", "notes.new"):
        (tmp_path / name).write_text("{")
    (tmp_path / "link.json.new").symlink_to("state.json")
    (tmp_path / "directory.json.new").mkdir()
    assert unfinished(str(tmp_path)) == [str(tmp_path / "state.json.new")]


def test_replaces_a_file_instead_of_writing_into_it(tmp_path: pathlib.Path) -> None:
    path, other = tmp_path / "file.json", tmp_path / "other.json"
    write_json(str(path), {"version": 1})
    other.hardlink_to(path)
    write_json(str(path), {"version": 2})
    assert read_json(str(path)) == {"version": 2}
    assert read_json(str(other)) == {"version": 1}


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        events.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        if events == ["file"]:
            # All of it, not what the buffer had let go of.
            [temporary] = tmp_path.iterdir()
            assert json.loads(temporary.read_text(encoding="utf-8")) == {"version": 1}
        fsync(descriptor)

    def note_rename(source: str, target: str) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    write_json(str(path), {"version": 1})
    assert events == ["file", "rename", "directory"]


def test_a_failed_write_leaves_the_old_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file.json"
    write_json(str(path), {"version": 1})
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_json(str(path), {"version": 2})
    assert read_json(str(path)) == {"version": 1}


@pytest.mark.parametrize("data", [{"version": object()}, {"key": {1, 2}}])
def test_what_is_no_json_leaves_the_old_file(tmp_path: pathlib.Path, data: t.Any) -> None:
    path = tmp_path / "file.json"
    write_json(str(path), {"version": 1})
    with pytest.raises(TypeError):
        write_json(str(path), data)
    assert read_json(str(path)) == {"version": 1}


def test_a_planted_link_is_not_written_through(tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "file.json.new").symlink_to(victim)
    with pytest.raises(OSError):
        write_json(str(tmp_path / "file.json"), {})
    assert victim.read_text() == "mine"


def test_a_failed_fsync_of_a_directory_is_an_error(tmp_path: pathlib.Path) -> None:
    fsync_directory(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        fsync_directory(str(tmp_path / "file"))


def test_the_manifest_of_a_release_is_checked_when_it_is_read(paths: AdapterPaths) -> None:
    manifest = manifest_of(1, "name")
    os.makedirs(paths.manifests)
    write_json(paths.manifest(manifest.release), {**manifest.to_json(), "digest": manifest_of(2).digest})
    with pytest.raises(DeliveryError, match="was changed after it was made"):
        paths.read_manifest(manifest.release)
