# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions over a real ssh server: how many connections they make, what they survive, and what they say of it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import Rsync
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End, Way
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.session import Session

from tests.support.sshd import Server

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync on this machine")

MIB = 1 << 20
ADAPTERS = ("grammar_lora", "paraphrase_lora", "wikipedia_lora")

# Ends after so many bytes, the first time.
BREAKS_ONCE = """\
#!{python}
import os, subprocess, sys
mark = {mark!r}
if os.path.exists(mark) or "--sender" not in sys.argv[-1]:
    os.execvp("ssh", ["ssh", *sys.argv[1:]])
open(mark, "w").close()
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
    """An end over ssh, where the first command stops the server's process for that connection, whose number goes to C(mark)."""

    mark: str = ""

    def argv(self, command: t.Any) -> list[str]:
        stop = 'test -e "$0" || { echo $PPID > "$0"; kill -STOP $PPID; }; exec "$@"'
        return super().argv(["sh", "-c", stop, self.mark, *command])


@dataclasses.dataclass(frozen=True)
class StoppedWithin(End):
    """An end over ssh, where the server's process for the first connection is stopped as soon as C(arriving) has bytes, and
    goes on when another connection comes: as when a link was down for a while."""

    mark: str = ""
    arriving: str = ""

    def argv(self, command: t.Any) -> list[str]:
        stop = '{ until test -s "$1"; do sleep 0.1; done; kill -STOP $PPID; } < /dev/null > /dev/null 2>&1 &'
        script = f'if test -e "$0"; then kill -CONT "$(cat "$0")"; else echo $PPID > "$0"; {stop} fi; shift; exec "$@"'
        return super().argv(["sh", "-c", script, self.mark, self.arriving, *command])


@pytest.fixture
def sockets() -> t.Iterator[pathlib.Path]:
    """A directory whose name is short enough for a socket in it."""
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


def bring(
    session: Session,
    places: tuple[pathlib.Path, pathlib.Path],
    *names: str,
    progress: t.Callable[[int], None] = lambda count: None,
) -> None:
    source, node = places
    for name in names:
        session.bring(name, ["weights"], str(source / name), str(node / name), progress)
        assert (node / name / "weights").read_bytes() == (source / name / "weights").read_bytes()


def logins(sshd: Server) -> int:
    return sum(line.startswith("Accepted publickey") for line in sshd.log)


def test_all_adapters_of_a_node_share_one_connection_to_each_end(
    sshd: Server, sockets: pathlib.Path, places: tuple[pathlib.Path, pathlib.Path]
) -> None:
    before = logins(sshd)
    source_end, node_end = (End(sshd.options(), str(sockets / end)) for end in ("source", "node"))
    session = Session("sbs29", "jw2-1", source_end, node_end, Way(30), 1)
    bring(session, places, *ADAPTERS)
    assert sorted(os.listdir(sockets)) == ["node", "source"]
    assert logins(sshd) - before == 2
    session.hang_up()
    assert os.listdir(sockets) == []
    account = session.account()
    assert 3 * MIB <= account["wire_bytes"] <= 1.02 * 3 * MIB
    assert account["source_rsync"] == session.source_rsync != ""
    assert [command[0] for command in account["commands"]] == ["ssh"] * 6


def test_a_broken_connection_is_made_anew_and_gone_on_from(
    sshd: Server, sockets: pathlib.Path, places: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(BREAKS_ONCE.format(python=sys.executable, mark=str(tmp_path / "broken"), count=MIB // 2))
    ssh.chmod(0o755)
    before = logins(sshd)
    source_end = End(sshd.options(ssh_executable=str(ssh)), str(sockets / "source"))
    session = Session("sbs29", "jw2-1", source_end, End(None), Way(30), 2)
    counts: list[int] = []
    bring(session, places, *ADAPTERS[:2], progress=counts.append)
    session.hang_up()
    assert [outcome.returncode == 0 for outcome in session.outcomes] == [False, True, True]
    assert logins(sshd) - before == 2
    # What the broken try has brought counts as well, and was not brought again.
    assert 2 * MIB <= session.account()["wire_bytes"] == sum(counts) <= 1.02 * 2 * MIB


@pytest.mark.slow
def test_a_connection_that_stands_still_is_left(
    sshd: Server, sockets: pathlib.Path, places: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    before = logins(sshd)
    stopped = tmp_path / "stopped"
    source_end = StoppedOnce(sshd.options(), str(sockets / "source"), mark=str(stopped))
    session = Session("sbs29", "jw2-1", source_end, End(None), Way(5), 2)
    try:
        bring(session, places, ADAPTERS[0])
    finally:
        os.kill(int(stopped.read_text()), signal.SIGCONT)
        session.hang_up()
    assert [outcome.returncode for outcome in session.outcomes] == [30, 0]
    assert logins(sshd) - before == 2


@pytest.mark.slow
def test_a_link_to_the_node_that_was_down_is_gone_on_over(
    sshd: Server, sockets: pathlib.Path, places: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    source, node = places
    (source / ADAPTERS[0] / "weights").write_bytes(os.urandom(4 * MIB))
    arriving = str(node / ADAPTERS[0] / "weights")
    node_end = StoppedWithin(sshd.options(), str(sockets / "node"), mark=str(tmp_path / "stopped"), arriving=arriving)
    session = Session("sbs29", "jw2-1", End(None), node_end, Way(5, bwlimit="512K"), 2)
    bring(session, places, ADAPTERS[0])
    session.hang_up()
    assert [outcome.returncode for outcome in session.outcomes] == [30, 0]


def test_tries_end(places: tuple[pathlib.Path, pathlib.Path], sshd: Server, sockets: pathlib.Path) -> None:
    closed = End(sshd.options(port=1), str(sockets / "node"))
    session = Session("sbs29", "jw2-1", End(None), closed, Way(30), 2)
    with pytest.raises(DeliveryError) as caught:
        bring(session, places, ADAPTERS[0])
    assert f"{ADAPTERS[0]}: could not be brought from sbs29:{places[0] / ADAPTERS[0]} to jw2-1: an ssh conn" in str(caught.value)
    assert len(session.outcomes) == 2
    assert session.account()["wire_bytes"] == 0
    assert session.source_rsync != ""


def test_a_source_that_cannot_compress_is_named(places: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rsync").write_text(OLD_RSYNC)
    (tmp_path / "bin" / "rsync").chmod(0o755)
    old = WithPath(None, search_path=f"{tmp_path}/bin:{os.environ['PATH']}")
    session = Session("sbs29", "jw2-1", old, End(None), Way(30, compress=True), 3)
    with pytest.raises(DeliveryError, match=r"^sbs29: has an rsync \(3\.1\.3\) that cannot compress with zstd\. Turn agent_"):
        bring(session, places, ADAPTERS[0])
    assert len(session.outcomes) == 1
    assert session.source_rsync == "3.1.3"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("rsync  version 3.5.0  protocol version 32\nCompress list:\n    zstd lz4 zlibx zlib none\n", Rsync("3.5.0", zstd=True)),
        ("rsync  version v3.2.7  protocol version 31\nCompress list:\n    lz4 zlibx zlib none\n", Rsync("3.2.7", zstd=False)),
        ("rsync  version 3.1.3  protocol version 31\nCapabilities:\n    zstd\n", Rsync("3.1.3", zstd=False)),
        ("sh: 1: rsync: not found\n", None),
        ("", None),
    ],
)
def test_what_rsync_says_of_itself(said: str, expected: Rsync | None) -> None:
    assert Rsync.parse(said) == expected
