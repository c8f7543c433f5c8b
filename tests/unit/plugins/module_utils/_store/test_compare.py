# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.compare import Difference, differences, in_content

from tests.support.releases import WEIGHTS, manifest_of, write_version

MANIFEST = manifest_of(1)


@pytest.fixture
def release(tmp_path: pathlib.Path) -> pathlib.Path:
    directory = tmp_path / "release"
    write_version(directory, 1)
    return directory


def found(directory: pathlib.Path, **arguments: t.Any) -> list[tuple[str, str]]:
    return [(difference.kind, difference.path) for difference in differences(str(directory), MANIFEST, **arguments)]


def flip_last_bit(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_differences_of_equal_directory_are_none(release: pathlib.Path) -> None:
    assert differences(str(release), MANIFEST, fsync=True) == []


def test_differences_find_one_changed_bit(release: pathlib.Path) -> None:
    status = os.stat(release / WEIGHTS)
    flip_last_bit(release / WEIGHTS)
    os.utime(release / WEIGHTS, ns=(status.st_atime_ns, status.st_mtime_ns))
    (difference,) = differences(str(release), MANIFEST)
    wanted = next(entry.sha256 for entry in MANIFEST.files if entry.path == WEIGHTS)
    assert difference.line().startswith(f"changed  {WEIGHTS}  sha256 ")
    assert difference.line().endswith(f".. instead of {wanted[:12]}..")


def test_differences_are_sorted_by_path(release: pathlib.Path) -> None:
    with open(release / WEIGHTS, "ab") as stream:
        stream.write(b"\0")
    (release / "tokenizer.json").unlink()
    (release / ".hidden").write_text("")
    assert [difference.line() for difference in differences(str(release), MANIFEST)] == [
        "extra    .hidden",
        f"changed  {WEIGHTS}  513 bytes instead of 512",
        "missing  tokenizer.json",
    ]


def test_differences_of_absent_directory_are_one(tmp_path: pathlib.Path) -> None:
    assert found(tmp_path / "nothing") == [("missing", ".")]


def test_differences_of_link_or_file_instead_of_directory_are_one(tmp_path: pathlib.Path, release: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to(release)
    assert found(tmp_path / "link") == [("changed", ".")]
    assert found(release / WEIGHTS) == [("changed", ".")]


def test_differences_reject_link_fifo_directory_and_hard_link(release: pathlib.Path, tmp_path: pathlib.Path) -> None:
    real = tmp_path / "real"
    (release / WEIGHTS).rename(real)
    (release / WEIGHTS).symlink_to(real)
    (release / "tokenizer.json").unlink()
    os.mkfifo(release / "tokenizer.json")
    os.link(release / "adapter_config.json", tmp_path / "second")
    (release / "checkpoint").mkdir()
    lines = [difference.line() for difference in differences(str(release), MANIFEST)]
    assert lines == [
        "changed  adapter_config.json  has 2 hard links",
        f"changed  {WEIGHTS}  a symbolic link instead of a plain file",
        "extra    checkpoint  a directory",
        "changed  tokenizer.json  a FIFO instead of a plain file",
    ]


def test_differences_compare_modes_only_if_given(release: pathlib.Path) -> None:
    release.chmod(0o750)
    (release / WEIGHTS).chmod(0o4600)
    assert found(release) == []
    result = differences(str(release), MANIFEST, file_mode=0o600, directory_mode=0o755)
    assert [difference.line() for difference in result] == [
        "mode     .  0750 instead of 0755",
        f"mode     {WEIGHTS}  4600 instead of 0600",
    ]
    assert in_content(result) == []


def test_differences_compare_owner_and_group_only_if_given(release: pathlib.Path) -> None:
    status = release.stat()
    assert found(release, uid=status.st_uid, gid=status.st_gid) == []
    assert len(found(release, uid=status.st_uid + 1)) == 4
    assert set(found(release, gid=status.st_gid + 1)) == {("mode", path) for path in (".", *os.listdir(release))}


def test_line_of_hostile_name_is_one_line(release: pathlib.Path) -> None:
    (release / "a\nmissing  b").write_text("")
    (difference,) = differences(str(release), MANIFEST)
    assert "\n" not in difference.line()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_differences_include_unreadable_file(release: pathlib.Path) -> None:
    (release / WEIGHTS).chmod(0)
    (difference,) = differences(str(release), MANIFEST)
    assert difference == Difference("changed", WEIGHTS, "cannot be read: Permission denied")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_differences_include_file_with_read_error(release: pathlib.Path) -> None:
    weights, config = release / WEIGHTS, release / "adapter_config.json"
    weights.write_bytes(b"")
    files = [dataclasses.replace(entry, size=0) if entry.path == WEIGHTS else entry for entry in MANIFEST.files]
    manifest = dataclasses.replace(MANIFEST, files=tuple(files))
    flip_last_bit(config)
    # Reading the first byte of this file fails with EIO.
    subprocess.run(["mount", "--bind", f"/proc/{os.getpid()}/mem", weights], check=True)
    try:
        changed, broken = differences(str(release), manifest)
        with pytest.raises(DeliveryError, match="Input/output error"):
            differences(str(release), manifest, fsync=True)
    finally:
        subprocess.run(["umount", weights], check=True)
    assert broken == Difference("changed", WEIGHTS, "cannot be read: Input/output error")
    assert changed.line().startswith("changed  adapter_config.json  sha256 ")


def test_differences_names_a_hundred_of_any_number_of_other_files(release: pathlib.Path) -> None:
    for number in range(1000):
        (release / f"other-{number:04}").touch()
    (release / WEIGHTS).unlink()
    lines = [(one.kind, one.path, one.detail) for one in differences(str(release), MANIFEST)]
    assert lines == [
        ("extra", ".", "900 more"),
        ("missing", WEIGHTS, ""),
        *(("extra", f"other-{number:04}", "") for number in range(100)),
    ]
