# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines that are added to authorized_keys for a while: whatever is killed, all others stay."""

from __future__ import annotations

import os
import pathlib
import resource
import signal
import stat
import subprocess
import sys
import threading
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import authorized_keys
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer.authorized_keys import Line, Unusable

from tests.support.paths import CHECKOUT

LIMIT = 30
OTHERS = b'# comment\n\nssh-ed25519 AAAA kim@host\r\ncommand="x lorafleet.delivery" ssh-rsa BBBB lorafleet.delivery\n\xff\n'
LINE = 'restrict,command="true" ssh-ed25519 CCCC'


@pytest.fixture
def keys(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / ".ssh" / "authorized_keys"
    path.parent.mkdir(0o700)
    path.write_bytes(OTHERS)
    path.chmod(0o640)
    return path


def names(keys: pathlib.Path) -> list[str]:
    return sorted(os.listdir(keys.parent))


@pytest.mark.parametrize("before", [OTHERS, OTHERS[:-1], b"", b"\n"])
def test_line_is_there_within_the_block_only(keys: pathlib.Path, before: bytes) -> None:
    keys.write_bytes(before)
    with Line(str(keys), LINE):
        lines = keys.read_bytes().splitlines()
        assert lines[-1].startswith(LINE.encode() + b" lorafleet.delivery:")
        assert lines[:-1] == before.splitlines()
    # A missing end of the last line is what is needed for another one.
    assert keys.read_bytes() in (before, before + b"\n")
    assert (stat.S_IMODE(keys.stat().st_mode), names(keys)) == (0o640, ["authorized_keys"])


def test_line_is_added_without_replacing_the_file(keys: pathlib.Path) -> None:
    inode = keys.stat().st_ino
    with Line(str(keys), LINE):
        assert keys.stat().st_ino == inode


def test_line_in_a_file_that_does_not_exist_is_added_to_a_private_one(keys: pathlib.Path) -> None:
    keys.unlink()
    with Line(str(keys), LINE):
        assert (stat.S_IMODE(keys.stat().st_mode), keys.read_bytes().count(b"\n")) == (0o600, 1)
    assert keys.read_bytes() == b""


def test_line_of_a_link_is_added_to_what_it_leads_to(keys: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to(keys)
    with Line(str(tmp_path / "link"), LINE):
        assert LINE.encode() in keys.read_bytes()
    assert (tmp_path / "link").is_symlink() and keys.read_bytes() == OTHERS


def test_what_others_add_within_the_block_stays(keys: pathlib.Path) -> None:
    with Line(str(keys), LINE), keys.open("ab") as stream:
        stream.write(b"ssh-ed25519 DDDD lee@host\n")
    assert keys.read_bytes() == OTHERS + b"ssh-ed25519 DDDD lee@host\n"


def test_remove_does_not_undo_what_others_write_at_the_same_time(keys: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.fsync
    added = iter([b"ssh-ed25519 DDDD lee@host\n"])

    def fsync(descriptor: int) -> None:
        """Just before the file is replaced, somebody else adds a line."""
        original(descriptor)
        for line in added:
            with keys.open("ab") as stream:
                stream.write(line)

    with Line(str(keys), LINE):
        monkeypatch.setattr(os, "fsync", fsync)
    assert keys.read_bytes() == OTHERS + b"ssh-ed25519 DDDD lee@host\n"
    assert names(keys) == ["authorized_keys"]


# Adds a line and waits, or kills itself when it first calls a function of os.
HOLD = """\
import os, signal, sys, threading
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer.authorized_keys import Line
path, line, victim = sys.argv[1:]
with Line(path, line):
    print("added", flush=True)
    if victim:
        setattr(os, victim, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
    else:
        sys.stdin.read()
"""


def holder(keys: pathlib.Path, victim: str = "") -> subprocess.Popen[str]:
    """A process with a line of its own, which kills itself at the call when it removes the line."""
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    argv = [sys.executable, "-c", HOLD, str(keys), LINE, victim]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=path)
    timer = threading.Timer(LIMIT, process.kill)
    timer.start()
    assert t.cast("t.IO[str]", process.stdout).readline() == "added\n"
    timer.cancel()
    return process


@pytest.mark.parametrize("victim", ["fsync", "fchmod", "replace", "unlink"])
def test_line_of_a_process_that_was_killed_goes_with_the_next_change(keys: pathlib.Path, victim: str) -> None:
    process = holder(keys, victim)
    process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGKILL
    left = keys.read_bytes()
    assert left.startswith(OTHERS)
    with Line(str(keys), LINE):
        assert keys.read_bytes().count(LINE.encode()) == 1
    assert (keys.read_bytes(), names(keys)) == (OTHERS, ["authorized_keys"])


def test_line_of_a_killed_process_that_nobody_waits_for_goes_too(keys: pathlib.Path) -> None:
    process = holder(keys)
    try:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with Line(str(keys), LINE):
            assert keys.read_bytes().count(LINE.encode()) == 1
    finally:
        process.communicate(timeout=LIMIT)


def test_line_of_another_run_stays(keys: pathlib.Path) -> None:
    process = holder(keys)
    with Line(str(keys), LINE):
        assert keys.read_bytes().count(LINE.encode()) == 2
    assert keys.read_bytes().count(LINE.encode()) == 1
    process.communicate("", timeout=LIMIT)
    assert keys.read_bytes() == OTHERS


def test_line_of_an_earlier_process_with_the_same_number_goes(keys: pathlib.Path) -> None:
    keys.write_bytes(OTHERS + b"ssh-ed25519 CCCC lorafleet.delivery:1:99999999999\n")
    began = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    with Line(str(keys), LINE):
        assert keys.read_bytes().endswith(f" lorafleet.delivery:{os.getpid()}:{began}\n".encode())
    assert keys.read_bytes() == OTHERS


def test_many_lines_at_once_leave_the_file_as_it_was(keys: pathlib.Path) -> None:
    processes = [holder(keys) for _number in range(4)]
    assert keys.read_bytes().count(LINE.encode()) == 4
    for process in processes:
        t.cast("t.IO[str]", process.stdin).close()
    for process in processes:
        assert process.wait(LIMIT) == 0
        t.cast("t.IO[str]", process.stdout).close()
    assert (keys.read_bytes(), names(keys)) == (OTHERS, ["authorized_keys"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda keys: os.link(keys, keys.parent / "other"), "no plain file of its own that belongs to this user"),
        (lambda keys: (keys.unlink(), os.mkfifo(keys)), "no plain file of its own that belongs to this user"),
        (lambda keys: (keys.unlink(), keys.mkdir()), "no plain file|Is a directory"),
        (lambda keys: keys.write_bytes(bytes(2 << 20)), "it is too long"),
        (lambda keys: (keys.unlink(), keys.parent.rmdir()), "No such file or directory"),
    ],
)
def test_line_in_a_file_that_cannot_be_changed_safely_is_refused(
    keys: pathlib.Path, change: t.Callable[[pathlib.Path], object], problem: str
) -> None:
    change(keys)
    with pytest.raises(Unusable, match=f"authorized_keys cannot be changed: .*{problem}"), Line(str(keys), LINE):
        pass


def test_line_that_could_not_be_taken_away_is_not_added(keys: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(Unusable, match="this user cannot write to its directory"), Line(str(keys), LINE):
        pass
    assert keys.read_bytes() == OTHERS


def test_line_that_does_not_fit_is_not_added_in_part(keys: pathlib.Path) -> None:
    """As on a full file system, the kernel writes only a part of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(OTHERS) + 10, hard))
    try:
        with pytest.raises(Unusable, match="the file system is full"), Line(str(keys), LINE):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert keys.read_bytes() == OTHERS


def test_line_while_another_holds_the_lock_is_refused_after_a_while(keys: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorized_keys, "_LOCK_TIMEOUT", 0.2)
    refused = pytest.raises(Unusable, match=r"was locked for 0\.2 seconds")
    with authorized_keys._locked(str(keys.parent)), refused, Line(str(keys), LINE):
        pass
    assert keys.read_bytes() == OTHERS
