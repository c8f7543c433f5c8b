# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.lock import locked

HOLDER = """
import sys
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.lock import locked
with locked(sys.argv[1], "deploy by alice", 0):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path: pathlib.Path) -> t.Iterator[subprocess.Popen[str]]:
    """A second process that holds the lock until its standard input ends."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SSH_CLIENT": "192.0.2.7 40000 22"}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def take(path: pathlib.Path, timeout: float = 0) -> None:
    with locked(str(path), "me", timeout):
        pass


@pytest.fixture
def lock(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "lock"


@pytest.mark.parametrize("before", [None, 0o644])
def test_locked_file_is_private(lock: pathlib.Path, before: int | None) -> None:
    """Any user who can read it could hold the lock, and so stop updates and rollbacks for good."""
    if before is not None:
        lock.touch()
        lock.chmod(before)
    umask = os.umask(0o022)
    try:
        take(lock)
    finally:
        os.umask(umask)
    assert lock.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_locked_by_a_user_without_rights_is_not_possible() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o711)  # noqa: S103
        lock = pathlib.Path(directory, "lock")
        take(lock)
        done = subprocess.run(["flock", "--nonblock", lock, "true"], user=65534, group=65534, check=False, capture_output=True)
        assert b"Permission denied" in done.stderr


def test_locked_by_other_process_is_error_with_holder(lock: pathlib.Path) -> None:
    with holder(lock) as process:
        with pytest.raises(DeliveryError) as caught:
            take(lock)
        assert f"deploy by alice from 192.0.2.7, process {process.pid} since 20" in str(caught.value)


def test_locked_by_stopped_process_is_error(lock: pathlib.Path) -> None:
    with holder(lock) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(DeliveryError, match=f"process {process.pid}"):
            take(lock, timeout=0.1)


def test_locked_after_killed_holder_succeeds(lock: pathlib.Path) -> None:
    with holder(lock) as process:
        process.kill()
        process.wait()
        take(lock)


def test_locked_waits_for_holder(lock: pathlib.Path) -> None:
    with holder(lock) as process:
        assert process.stdin is not None
        process.stdin.close()
        take(lock, timeout=60)


def test_locked_keeps_empty_file(lock: pathlib.Path) -> None:
    take(lock)
    inode = lock.stat().st_ino
    take(lock)
    assert lock.stat().st_ino == inode
    assert lock.read_bytes() == b""


def test_locked_releases_after_error(lock: pathlib.Path) -> None:
    with pytest.raises(KeyError), locked(str(lock), "me", 0):
        raise KeyError
    take(lock)


def test_locked_does_not_follow_link(lock: pathlib.Path, tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("content")
    lock.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        take(lock)
    assert victim.read_text() == "content"


def test_locked_with_invalid_entry_names_unknown_process(lock: pathlib.Path) -> None:
    with holder(lock):
        lock.write_text("not JSON")
        with pytest.raises(DeliveryError, match="an unknown process"):
            take(lock)
