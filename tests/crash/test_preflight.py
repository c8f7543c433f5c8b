# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The preflight on file systems that lack what a delivery needs, simulated by strace."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.crash.traced import run_traced
from tests.support.fleet import contents
from tests.support.preflight import Site

pytestmark = pytest.mark.usefixtures("strace")


@pytest.fixture
def site(directory: pathlib.Path, tiny: pathlib.Path) -> Site:
    return Site(directory, tiny)


def failures(site: Site, call: str, answer: str, **options: str) -> dict[str, str]:
    """Return the failed checks of a preflight during which a system call has this answer."""
    before = contents(site.home)
    params = site.node_params(**options)
    result = site.root / "result"

    def run() -> bool:
        found = site.check_node(**params)
        result.write_text(json.dumps({one.check: one.found for one in found.checks if one.state == "failed"}), encoding="utf-8")
        return False

    ended = run_traced(run, "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{answer}")
    assert ended.code == 0, ended.message
    assert contents(site.home) == before
    failed: dict[str, str] = json.loads(result.read_text(encoding="utf-8"))
    return failed


def test_preflight_without_exchange_falls_back_to_symlink(site: Site) -> None:
    assert failures(site, "renameat2", "error=EINVAL") == {}


def test_preflight_without_exchange_fails_where_it_is_asked_for(site: Site) -> None:
    failed = failures(site, "renameat2", "error=EINVAL", activation="exchange")
    assert list(failed) == ["activation"]
    assert "cannot be exchanged in one step" in failed["activation"]


def test_preflight_without_exchange_fails_for_a_served_directory(site: Site) -> None:
    (site.models / "grammar_3b").mkdir()
    failed = failures(site, "renameat2", "error=EINVAL")
    assert list(failed) == ["activation"]
    assert failed["activation"].startswith(f"{site.models / 'grammar_3b'}: is a plain directory, and this file system cannot")


def test_preflight_without_locks_fails(site: Site) -> None:
    failed = failures(site, "flock", "error=ENOLCK")
    assert failed == {"locks": f"the file system of {site.home} has no locks: No locks available."}


def test_preflight_where_a_lock_is_granted_twice_fails(site: Site) -> None:
    failed = failures(site, "flock", "retval=0")
    assert failed == {"locks": f"the file system of {site.home} grants the same lock twice."}


def test_preflight_where_directories_cannot_be_locked_fails(site: Site) -> None:
    """As on NFS: the first three locks are those of the models directory and of one file, twice."""
    failed = failures(site, "flock", "error=EBADF:when=4")
    assert failed == {"locks": f"the file system of {site.home} has no locks: Bad file descriptor."}


def test_preflight_where_owners_cannot_be_set_fails(site: Site) -> None:
    failed = failures(site, "fchown", "error=EPERM", owner="12345")
    assert list(failed) == ["owner and modes"]
    assert failed["owner and modes"].endswith(f"on the file system of {site.home}: Operation not permitted.")
