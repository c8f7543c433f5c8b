# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions over a real ssh server: the number of connections, retries, and the summary."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import TransferOptions
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.session import Session

from tests.support.sshd import Server

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync on this machine")

MIB = 1 << 20
ADAPTERS = ("grammar_lora", "paraphrase_lora", "wikipedia_lora")

# Its first connection to the source breaks after ``count`` bytes.
BREAKS_ONCE = """\
#!{python}
import os, subprocess, sys
marker = {marker!r}
if os.path.exists(marker) or "--sender" not in sys.argv[-1]:
    os.execvp("ssh", ["ssh", *sys.argv[1:]])
open(marker, "w").close()
source = subprocess.Popen(["ssh", *sys.argv[1:]], stdout=subprocess.PIPE)
left = {count}
while left and (data := os.read(source.stdout.fileno(), min(left, 65536))):
    os.write(1, data)
    left -= len(data)
source.kill()
"""

OLD_RSYNC = """\
#!/bin/sh
case "$*" in
--version) echo "rsync  version 3.1.3  protocol version 31" ;;
*) echo "rsync: on remote machine: --compress-choice=zstd: unknown option" >&2; exit 1 ;;
esac
"""


@dataclasses.dataclass(frozen=True)
class WithPath(End):
    """This machine, with another search path."""

    search_path: str = ""

    def argv(self, command: t.Any) -> list[str]:
        return ["env", f"PATH={self.search_path}", *command]


@dataclasses.dataclass(frozen=True)
class StoppedOnce(End):
    """An end over ssh whose first command stops sshd's process for that connection.

    The process ID is written to ``pid_file``.
    """

    pid_file: str = ""

    def argv(self, command: t.Any) -> list[str]:
        stop = 'test -e "$0" || { echo $PPID > "$0"; kill -STOP $PPID; }; exec "$@"'
        return super().argv(["sh", "-c", stop, self.pid_file, *command])


@dataclasses.dataclass(frozen=True)
class StoppedWithin(End):
    """An end over ssh that simulates a link that is down for a while.

    sshd's process for the first connection is stopped as soon as ``receiving`` has content, and
    continued when the next connection is made.
    """

    pid_file: str = ""
    receiving: str = ""

    def argv(self, command: t.Any) -> list[str]:
        stop = '{ until test -s "$1"; do sleep 0.1; done; kill -STOP $PPID; } < /dev/null > /dev/null 2>&1 &'
        script = f'if test -e "$0"; then kill -CONT "$(cat "$0")"; else echo $PPID > "$0"; {stop} fi; shift; exec "$@"'
        return super().argv(["sh", "-c", script, self.pid_file, self.receiving, *command])


@pytest.fixture
def sockets() -> t.Iterator[pathlib.Path]:
    """A directory with a path short enough for a socket."""
    with tempfile.TemporaryDirectory() as directory:
        yield pathlib.Path(directory)


@pytest.fixture
def places(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The adapters at the source, and an empty staging directory for each on the node."""
    for name in ADAPTERS:
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "weights").write_bytes(os.urandom(MIB))
        (tmp_path / "node" / name).mkdir(parents=True)
    return tmp_path / "source", tmp_path / "node"


def fetch(
    session: Session,
    places: tuple[pathlib.Path, pathlib.Path],
    *names: str,
    progress: t.Callable[[int], None] = lambda count: None,
) -> None:
    source, node = places
    for name in names:
        session.fetch(name, ["weights"], str(source / name), str(node / name), progress)
        assert (node / name / "weights").read_bytes() == (source / name / "weights").read_bytes()


def logins(sshd: Server) -> int:
    return sum(line.startswith("Accepted publickey") for line in sshd.log)


def test_session_subdirectories_and_links_arrive_under_their_names(tmp_path: pathlib.Path) -> None:
    source, blobs, staging = (tmp_path / name for name in ("source", "blobs", "staging"))
    for directory in (source / "templates", blobs, staging / "templates"):
        directory.mkdir(parents=True)
    (source / "config").write_text("config")
    (source / "templates" / "a").write_text("a")
    (blobs / "0123").write_text("weights")
    (blobs / "4567").write_text("b")
    links = {"weights": str(blobs / "0123"), "templates/b": str(blobs / "4567"), "secret": str(blobs / "89ab")}
    (blobs / "89ab").symlink_to("/etc/hostname")
    session = Session("sbs29", "jw2-1", End(None), End(None), TransferOptions(30), 1)
    names = ["config", "templates/a", "templates/b", "weights", "secret"]
    session.fetch("a_lora", names, str(source), str(staging), links=links)
    found = {str(path.relative_to(staging)): path.read_text() for path in staging.rglob("*") if path.is_file()}
    # A link that took the place of a resolved file is not followed.
    assert found == {"config": "config", "weights": "weights", "templates/a": "a", "templates/b": "b"}


def test_session_several_adapters_share_one_connection_per_end(
    sshd: Server, sockets: pathlib.Path, places: tuple[pathlib.Path, pathlib.Path]
) -> None:
    before = logins(sshd)
    source_end, node_end = (End(sshd.options(), str(sockets / end)) for end in ("source", "node"))
    session = Session("sbs29", "jw2-1", source_end, node_end, TransferOptions(30), 1)
    fetch(session, places, *ADAPTERS)
    assert sorted(os.listdir(sockets)) == ["node", "source"]
    assert logins(sshd) - before == 2
    session.close()
    assert os.listdir(sockets) == []
    summary = session.summary()
    assert 3 * MIB <= session.received <= 1.02 * 3 * MIB
    assert summary["source_rsync"] == session.source_rsync != ""
    assert [command[0] for command in summary["commands"]] == ["ssh"] * 6


def test_session_commands_cannot_control_the_terminal_that_shows_them(places: tuple[pathlib.Path, pathlib.Path]) -> None:
    # The source has named the directory. These characters are no control characters of ASCII.
    source, staging = places
    directory = source / "\x9b2J\u202e"
    directory.mkdir()
    session = Session("sbs29", "jw2-1", End(None), End(None), TransferOptions(30), 1)
    with pytest.raises(DeliveryError):
        session.fetch("adapter", ["absent"], str(directory), str(staging))
    [*_client, server] = session.summary()["commands"]
    assert f"{source}/\\x9b2J\\u202e/absent" in server
    assert all(word.isprintable() for command in session.summary()["commands"] for word in command)


def test_session_broken_connection_is_reopened_and_transfer_resumed(
    sshd: Server, sockets: pathlib.Path, places: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(BREAKS_ONCE.format(python=sys.executable, marker=str(tmp_path / "broken"), count=MIB // 2))
    ssh.chmod(0o755)
    before = logins(sshd)
    source_end = End(sshd.options(ssh_executable=str(ssh)), str(sockets / "source"))
    session = Session("sbs29", "jw2-1", source_end, End(None), TransferOptions(30), 2)
    counts: list[int] = []
    fetch(session, places, *ADAPTERS[:2], progress=counts.append)
    session.close()
    assert [result.returncode == 0 for result in session.results] == [False, True, True]
    assert logins(sshd) - before == 2
    # The bytes of the broken attempt count too, and are not transferred again.
    assert 2 * MIB <= session.received == sum(counts) <= 1.02 * 2 * MIB


@pytest.mark.slow
def test_session_stalled_connection_is_replaced(
    sshd: Server, sockets: pathlib.Path, places: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    before = logins(sshd)
    stopped = tmp_path / "stopped"
    source_end = StoppedOnce(sshd.options(), str(sockets / "source"), pid_file=str(stopped))
    session = Session("sbs29", "jw2-1", source_end, End(None), TransferOptions(5), 2)
    try:
        fetch(session, places, ADAPTERS[0])
    finally:
        os.kill(int(stopped.read_text()), signal.SIGCONT)
        session.close()
    assert [result.returncode for result in session.results] == [30, 0]
    assert logins(sshd) - before == 2


@pytest.mark.slow
def test_session_link_down_to_node_transfer_resumes(
    sshd: Server, sockets: pathlib.Path, places: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    source, node = places
    (source / ADAPTERS[0] / "weights").write_bytes(os.urandom(4 * MIB))
    receiving = str(node / ADAPTERS[0] / "weights")
    node_end = StoppedWithin(sshd.options(), str(sockets / "node"), pid_file=str(tmp_path / "stopped"), receiving=receiving)
    session = Session("sbs29", "jw2-1", End(None), node_end, TransferOptions(5, bwlimit="512K"), 2)
    fetch(session, places, ADAPTERS[0])
    session.close()
    assert [result.returncode for result in session.results] == [30, 0]


def test_session_unreachable_node_fails_after_last_try(
    places: tuple[pathlib.Path, pathlib.Path], sshd: Server, sockets: pathlib.Path
) -> None:
    closed = End(sshd.options(port=1), str(sockets / "node"))
    session = Session("sbs29", "jw2-1", End(None), closed, TransferOptions(30), 2)
    with pytest.raises(DeliveryError) as caught:
        fetch(session, places, ADAPTERS[0])
    assert f"{ADAPTERS[0]}: could not be transferred from sbs29:{places[0] / ADAPTERS[0]} to jw2-1: an ssh conn" in str(
        caught.value
    )
    assert len(session.results) == 2
    assert session.received == 0


def test_session_source_without_zstd_is_named(places: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rsync").write_text(OLD_RSYNC)
    (tmp_path / "bin" / "rsync").chmod(0o755)
    old = WithPath(None, search_path=f"{tmp_path}/bin:{os.environ['PATH']}")
    session = Session("sbs29", "jw2-1", old, End(None), TransferOptions(30, compress=True), 3)
    with pytest.raises(
        DeliveryError, match=r"^sbs29: has an rsync \(3\.1\.3\) that cannot compress with zstd\. Set transfer_compress "
    ):
        fetch(session, places, ADAPTERS[0])
    assert len(session.results) == 1
    assert session.source_rsync == "3.1.3"


@pytest.mark.parametrize(
    ("missing", "first"),
    [("weights", "Correct this first. The received files were kept; run again"), ("", "Wait for it to finish")],
)
def test_session_failure_that_lasts_names_what_to_do_first(
    places: tuple[pathlib.Path, pathlib.Path], missing: str, first: str
) -> None:
    source, node = (place / ADAPTERS[0] for place in places)
    descriptor = os.open(node, os.O_RDONLY)
    try:
        if missing:
            (source / missing).unlink()
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(DeliveryError) as caught:
            fetch(Session("sbs29", "jw2-1", End(None), End(None), TransferOptions(30), 3), places, ADAPTERS[0])
    finally:
        os.close(descriptor)
    assert caught.value.problems[0].remedy.startswith(first)


@dataclasses.dataclass(frozen=True)
class Greeting(End):
    """This machine, with a login shell that prints something first."""

    def argv(self, command: t.Any) -> list[str]:
        return ["sh", "-c", 'echo "Welcome to \\033[1mgpu-07"; exec "$@"', "sh", *command]


def test_session_source_with_unclean_shell_is_named(places: tuple[pathlib.Path, pathlib.Path]) -> None:
    session = Session("sbs29", "jw2-1", Greeting(None), End(None), TransferOptions(30), 3)
    with pytest.raises(DeliveryError) as caught:
        fetch(session, places, ADAPTERS[0])
    [problem] = caught.value.problems
    assert (problem.subject, problem.adapter) == ("sbs29", ADAPTERS[0])
    assert problem.problem.startswith('prints "Welcome to \\u001b[1mgpu-07\\n" before the output of each command')
    assert problem.remedy.startswith("Remove it from the start-up file of the login shell there (~/.bashrc")
    assert len(session.results) == 1


def test_session_node_with_unclean_shell_transfers(places: tuple[pathlib.Path, pathlib.Path]) -> None:
    """The source's rsync takes the text for its own name."""
    fetch(Session("sbs29", "jw2-1", End(None), Greeting(None), TransferOptions(30), 1), places, ADAPTERS[0])


@pytest.mark.parametrize(("host", "programs"), [("sbs29", "rsync"), ("jw2-1", "rsync or flock")])
def test_session_host_without_rsync_is_named(
    places: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path, host: str, programs: str
) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("env", "sh"):
        (tmp_path / "bin" / program).symlink_to(str(shutil.which(program)))
    bare = WithPath(None, search_path=f"{tmp_path}/bin")
    ends = (bare, End(None)) if host == "sbs29" else (End(None), bare)
    session = Session("sbs29", "jw2-1", *ends, TransferOptions(30), 3)
    with pytest.raises(DeliveryError) as caught:
        fetch(session, places, ADAPTERS[0])
    [problem] = caught.value.problems
    assert problem.subject == host
    assert problem.problem.startswith(f"did not find {programs} in the search path of commands over this connection: ")
    assert "run again" not in str(caught.value)
    assert len(session.results) == 1
