# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases with a subdirectory: every step treats its files like those beside it."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.activate import copy_release
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.compare import differences
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.displaced import DISCARD, QUARANTINE, disposition_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import Permissions, set_permissions
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.staging import prepare, verify_staged

from tests.support import releases
from tests.support.releases import TEMPLATE, content, manifest_of, release_of, write_version
from tests.support.staging import StagingNode, receive, staged
from tests.support.transactions import Method, Node

DIRECTORY = os.path.dirname(TEMPLATE)
PERMISSIONS = Permissions(0o640, 0o750)


@pytest.fixture(autouse=True)
def template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(releases.FURTHER, TEMPLATE, b"{{ tools }}")


@pytest.fixture
def release(tmp_path: pathlib.Path) -> pathlib.Path:
    write_version(tmp_path / "release", 1)
    return tmp_path / "release"


def lines(directory: pathlib.Path, **options: int) -> list[str]:
    return [" ".join(found.line().split()) for found in differences(str(directory), manifest_of(1), **options)]


def test_differences_see_every_change_in_a_subdirectory(release: pathlib.Path) -> None:
    assert lines(release) == []
    (release / DIRECTORY / "more.jinja").write_text("x")
    (release / DIRECTORY / "inner").mkdir()
    assert lines(release) == [f"extra {DIRECTORY}/inner a directory", f"extra {DIRECTORY}/more.jinja"]
    shutil.rmtree(release / DIRECTORY)
    assert lines(release) == [f"missing {TEMPLATE}"]
    (release / DIRECTORY).mkdir()
    assert lines(release) == [f"missing {TEMPLATE}"]
    (release / TEMPLATE).write_text("{{ toolx }}")
    assert lines(release)[0].startswith(f"changed {TEMPLATE} sha256")


def test_differences_subdirectory_that_is_a_link_or_file_is_changed(release: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (release / DIRECTORY).rename(tmp_path / "elsewhere")
    (release / DIRECTORY).symlink_to(tmp_path / "elsewhere")
    assert lines(release) == [f"changed {DIRECTORY} a symbolic link instead of a directory", f"missing {TEMPLATE}"]
    (release / DIRECTORY).unlink()
    (release / DIRECTORY).write_text("")
    assert lines(release) == [f"changed {DIRECTORY} a file instead of a directory", f"missing {TEMPLATE}"]


def test_set_permissions_covers_subdirectory(release: pathlib.Path) -> None:
    (release / DIRECTORY).chmod(0o700)
    found = lines(release, file_mode=0o640, directory_mode=0o750)
    assert f"mode {DIRECTORY} 0700 instead of 0750" in found
    assert f"mode {TEMPLATE} 0600 instead of 0640" in found
    set_permissions(str(release), manifest_of(1), PERMISSIONS)
    assert lines(release, file_mode=0o640, directory_mode=0o750) == []


def test_set_permissions_link_as_subdirectory_is_not_followed(release: pathlib.Path, tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "victim"
    (release / DIRECTORY).rename(victim)
    (release / DIRECTORY).symlink_to(victim)
    before = victim.stat()
    with pytest.raises(OSError, match="Not a directory"):
        set_permissions(str(release), manifest_of(1), PERMISSIONS)
    assert (victim.stat().st_mode, victim.stat().st_ctime_ns) == (before.st_mode, before.st_ctime_ns)


def test_staging_receives_and_resumes_in_a_subdirectory(tmp_path: pathlib.Path) -> None:
    node = StagingNode(tmp_path)
    fetch = node.prepared()
    path = pathlib.Path(fetch.staging, TEMPLATE)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.write_bytes(content(1)[TEMPLATE][:4])
    (path.parent / "foreign").write_text("x")
    fetch = node.one()
    assert fetch.staged_bytes == 4
    prepare(fetch)
    assert staged(fetch) == {TEMPLATE: content(1)[TEMPLATE][:4]}
    receive(fetch)
    assert verify_staged(fetch) == []
    assert node.one().missing == []


def test_staging_reuses_a_file_in_a_subdirectory(tmp_path: pathlib.Path) -> None:
    node = StagingNode(tmp_path)
    old = node.add_release(2)
    fetch = node.prepared()
    assert fetch.reusable[TEMPLATE] == str(old / TEMPLATE)
    receive(fetch)
    assert verify_staged(fetch) == []
    assert staged(fetch) == content(1)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_prepare_planted_subdirectory_is_replaced(tmp_path: pathlib.Path, kind: str) -> None:
    node = StagingNode(tmp_path)
    fetch = node.prepared()
    planted = pathlib.Path(fetch.staging, DIRECTORY)
    planted.rmdir()
    victim = tmp_path / "victim"
    victim.mkdir()
    if kind == "link":
        planted.symlink_to(victim)
    else:
        planted.write_text("")
    prepare(node.one())
    assert planted.is_dir()
    assert not planted.is_symlink()
    assert victim.is_dir()


@pytest.mark.parametrize("method", ["exchange", "symlink"])
def test_transaction_delivers_repairs_and_rolls_back_a_subdirectory(tmp_path: pathlib.Path, method: Method) -> None:
    node = Node(tmp_path)
    for version in (1, 2):
        node.deploy(version, method)
    assert releases.version_at(node.served) == 2
    assert stat.S_IMODE((node.served / DIRECTORY).stat().st_mode) == 0o755
    assert node.carry_out(2, method)["action"] == "unchanged"
    (node.served / TEMPLATE).chmod(0o600)
    assert node.carry_out(2, method)["action"] == "repaired"
    assert stat.S_IMODE((node.served / TEMPLATE).stat().st_mode) == 0o644
    node.roll_back(method)
    assert releases.version_at(node.served) == 1
    assert node.junk() == []


def test_transaction_unknown_file_in_a_subdirectory_is_quarantined(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path)
    node.deploy(1)
    (node.served / DIRECTORY / "mine.jinja").write_text("precious")
    adopted = node.deploy(2)["adopted"]
    assert pathlib.Path(adopted, DIRECTORY, "mine.jinja").read_text() == "precious"


def test_disposition_of_copy_with_subdirectory_is_discard(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path)
    node.deploy(1)
    copy = tmp_path / "copy"
    write_version(copy, 1)
    manifests = [manifest_of(1)]
    assert disposition_of(node.paths, str(copy), manifests)[0] == DISCARD
    (copy / DIRECTORY / "inner").mkdir()
    assert disposition_of(node.paths, str(copy), manifests)[0] == QUARANTINE
    assert pathlib.Path(node.paths.release(release_of(1))).is_dir()


def test_manifest_file_that_is_also_a_directory_is_rejected() -> None:
    data = manifest_of(1).to_json()
    data["files"].append({**data["files"][0], "path": DIRECTORY})
    with pytest.raises(DeliveryError, match=f"has {DIRECTORY} as a file and as a directory"):
        type(manifest_of(1)).from_json(data)


@pytest.mark.parametrize("linked", ["directory", "subdirectory", "file"])
def test_copy_release_is_not_led_elsewhere_by_the_owner_of_what_is_served(
    release: pathlib.Path, tmp_path: pathlib.Path, linked: str
) -> None:
    # The owner exchanges something for a link after the directory was compared.
    manifest = manifest_of(1)
    elsewhere = tmp_path / "elsewhere"
    release.rename(elsewhere)
    if linked == "directory":
        release.symlink_to(elsewhere)
    else:
        name = DIRECTORY if linked == "subdirectory" else TEMPLATE
        shutil.copytree(elsewhere, release)
        (shutil.rmtree if linked == "subdirectory" else os.unlink)(release / name)  # type: ignore[operator]
        (release / name).symlink_to(elsewhere / name)
    target = tmp_path / "target"
    with pytest.raises((OSError, DeliveryError)):
        copy_release(str(release), str(target), manifest, PERMISSIONS)
    assert not (target / TEMPLATE).exists()
